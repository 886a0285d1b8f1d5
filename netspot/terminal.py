"""What the commands have in common: how they end, and what fits a terminal."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from netspot.errors import NetspotError

INTERRUPTED = 128 + signal.SIGINT  # the exit status, as of a shell


class Arguments(argparse.ArgumentParser):
    """One that tells itself what it does not know: argparse has the outermost tell it, with a usage that hides it."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def ended(name: str, command: Callable[[], int], interrupted: int) -> int:
    """The exit status of ``command``; ``interrupted`` where Ctrl-C ends it.

    1 where its output cannot be written, 141 as of other Unix tools where the reader of its output has left.
    """
    if sys.stderr is None:  # closed by the caller
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        status = command()
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except NetspotError as error:
        text = "".join(char if char.isprintable() or char == "\n" else "?" for char in str(error))
        print(f"{name}: {text}", file=sys.stderr)  # which may quote names from elsewhere
        return error.exit_status
    except KeyboardInterrupt:
        return interrupted
    except BrokenPipeError:  # the reader of our output has seen enough
        _silence(sys.stdout)
        return 128 + signal.SIGPIPE
    except OSError as error:  # a full disk, most of all
        print(f"{name}: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        _silence(sys.stdout)
        return 1


def leave(status: int) -> NoReturn:
    """End the process with everything told; Python would take apart its modules first, a tenth of a whole start."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # full, closed, None: ``ended`` has told what there is
            stream.flush()
    os._exit(status)


def fitted(lines: Sequence[str], room: int) -> list[str]:
    """At most ``room`` of ``lines``, the most important first, and in the last one how many are left out."""
    if len(lines) <= room:
        return list(lines)
    shown = max(room - 1, 0)
    return [*lines[:shown], f"... and {len(lines) - shown} more"]


def _silence(stream: IO[str] | None) -> None:
    """Let what is still buffered go nowhere, so that nobody complains of it at the end."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
