"""Events on standard output: lines for people on a terminal, JSON lines in a pipe."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from netspot.events import Alarm, Event, Health, Incident, Relearn, Sample, iso
from netspot.exporters.base import Context, Message

if TYPE_CHECKING:
    from netspot.config import ConsoleConfig

RED, YELLOW, GREEN, DIM, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[2m", "\x1b[0m"
COLOURS = {"up": RED, "down": RED, "opened": RED, "updated": YELLOW, "cleared": GREEN, "closed": GREEN}


class ConsoleExporter:
    """``data`` shows every sample, ``alarm`` alarms, incidents and relearning."""

    def __init__(self, config: ConsoleConfig, context: Context, stream: TextIO | None = None) -> None:
        data: frozenset[type[Event]] = frozenset({Sample, Health}) if config.data else frozenset()
        alarm: frozenset[type[Event]] = frozenset({Alarm, Incident, Relearn}) if config.alarm else frozenset()
        self.kinds = data | alarm
        self._stream = stream or sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  (standard output is closed)
        self._human = self._stream.isatty()
        self._live = context.live
        self._dropped = 0

    def start(self) -> None:
        if self._human and isinstance(self._stream.encoding, str) and hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="replace")  # a title may hold what this terminal cannot show

    def write(self, event: Event, message: Message) -> None:
        if self._live and not self._ready():
            self._dropped += 1  # the reader of the pipe has stopped reading
            return
        self._stream.write((human(event) if self._human else message.json) + "\n")
        self._stream.flush()

    def _ready(self) -> bool:
        try:
            return bool(select.select([], [self._stream], [], 0)[1])
        except (OSError, ValueError):  # no file descriptor behind it
            return True

    def health(self) -> Mapping[str, Any]:
        return {"dropped": self._dropped}

    def close(self) -> None:
        self._stream.flush()


def human(event: Event) -> str:
    """``event`` as one line for a person, coloured where it matters."""
    clock = f"{DIM}{iso(event.time_ns)[11:]}{PLAIN}"
    match event:
        case Sample():
            limits = f"{DIM}[{_number(event.down)} .. {_number(event.up)}]{PLAIN}"
            state = f"learning {event.learned}/{event.needed}" if event.state == "learning" else event.state
            colour = RED if event.state == "alarm" else DIM
            unit = "" if event.unit == "1" else f" {event.unit}"
            return f"{clock} {event.stat:<16} {_number(event.value):>10}{unit}  {limits} {colour}{state}{PLAIN}"
        case Alarm():
            sign = {"up": "above", "down": "below", "cleared": "back within"}[event.event_type]
            what = f"{event.stat} {_number(event.value)} {sign} {_number(event.threshold)}"
            odds = "" if event.event_type == "cleared" else f" p={event.probability:.1e} {event.level}"
            head = "ALARM  " if event.event_type != "cleared" else "cleared"
            muted = " (muted)" if event.muted else ""
            return f"{clock} {COLOURS[event.event_type]}{head}{PLAIN} {what}{DIM}{odds}{muted}{PLAIN}"
        case Incident():
            return f"{clock} {COLOURS[event.event_type]}{event.event_type:<7}{PLAIN} {_printable(event.title)}"
        case Relearn():
            return f"{clock} {YELLOW}relearn{PLAIN} {event.stat}: {_printable(event.reason)}"
        case Health():
            shown = " ".join(
                f"{key}={event.figures[key]}" for key in ("phase", "captured", "dropped") if key in event.figures
            )
            return f"{clock} {DIM}health  {shown}{PLAIN}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _printable(text: str) -> str:
    """A title may quote names from the wire: no control sequence of theirs reaches the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
