"""What an exporter is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from netspot.commands import CommandQueue
from netspot.events import Event


@dataclass(frozen=True, slots=True)
class StatInfo:
    """What a reader of the messages may want to know of a statistic."""

    name: str
    unit: str
    help: str


@dataclass(frozen=True, slots=True)
class Context:
    """What an exporter may know of the program around it."""

    node: str  # slug of the host name: [A-Za-z0-9_-]
    series: str  # the interface, or the base name of a capture file
    version: str
    state_dir: str | None  # a folder that outlives the program, or None
    stats: tuple[StatInfo, ...] = ()
    commands: CommandQueue | None = None  # where requests from outside go


class Exporter(Protocol):
    """All methods run on the main loop and return at once; one that talks to the network queues, and counts drops.

    An exception counts as a drop of that event and is logged once: it never reaches another exporter.
    """

    kinds: frozenset[type[Event]]  # the classes of events that it takes

    def start(self) -> None:
        """Open what is needed; a missing peer is no error. Raises ConfigError for a setting that can never work."""

    def write(self, event: Event, message: Mapping[str, Any]) -> None:
        """Send ``event``, or queue it; ``message`` is its JSON object, from ``netspot.events.message``."""

    def health(self) -> Mapping[str, Any]:
        """Figures for the health message and the page: ``dropped`` at least."""

    def close(self) -> None:
        """Flush what can be flushed in a second, say goodbye, free everything."""
