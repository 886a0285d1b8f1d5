"""Extensions that other packages bring along: what they declare under an entry point of ours."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

log = logging.getLogger("netspot.plugins")

T = TypeVar("T")


def load(group: str, kind: type[T], taken: Collection[str]) -> dict[str, T]:
    """The declarations of ``kind`` (they have a ``name``) that installed packages offer under ``group``.

    An entry point is one declaration or an iterable of them. One that cannot be loaded, or takes a name that is
    ``taken``, is left out with a warning: a broken extension never stops the program.
    """
    found: dict[str, T] = {}
    for entry in entries(group):
        try:
            offered = entry.load()
            offers: Iterable[Any] = (offered,) if isinstance(offered, kind) else tuple(offered)
        except Exception as error:  # whatever goes wrong in somebody else's code
            log.warning("%s: %s (%s) is left out: %r", group, entry.name, entry.value, error)
            continue
        for each in offers:
            name = getattr(each, "name", "")
            if not isinstance(each, kind) or not isinstance(name, str) or name in taken or name in found:
                log.warning("%s: %s: %r is no %s, or its name is taken", group, entry.name, each, kind.__name__)
            else:
                found[name] = each
    return found


def entries(group: str) -> Iterable[EntryPoint]:
    """The entry points of ``group``; the library that finds them is big, and only imported where there are some."""
    files = (file for folder in sys.path for file in Path(folder or ".").glob("*-info/entry_points.txt"))
    try:
        if not any(f"[{group}]".encode() in file.read_bytes() for file in files):
            return ()
    except OSError as error:
        log.warning("%s: packages cannot be looked through: %s", group, error)
        return ()
    from importlib.metadata import entry_points

    return entry_points(group=group)


def guarded(what: str, call: Callable[..., T], instead: T) -> Callable[..., T]:
    """``call``, whose exceptions become ``instead`` and one warning."""
    failed = False

    def attempt(*args: Any) -> T:
        nonlocal failed
        try:
            return call(*args)
        except Exception as error:
            if not failed:
                log.warning("%s fails: %r; its value is %r from now on, where it does", what, error, instead)
            failed = True
            return instead

    return attempt
