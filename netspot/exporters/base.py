"""What an exporter is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from netspot import events
from netspot.commands import CommandQueue
from netspot.events import Event
from netspot.record import Record


class StatInfo(Record):
    """What a reader of the messages may want to know of a statistic."""

    name: str
    unit: str
    help: str
    every_s: float = 1.0  # between two values: the length of its window [s]


class Context(Record):
    """What an exporter may know of the program around it."""

    node: str  # slug of the host name: [A-Za-z0-9_-]
    series: str  # the interface, or the base name of a capture file
    version: str
    state_dir: str | None  # a folder that outlives the program, or None
    stats: tuple[StatInfo, ...] = ()
    commands: CommandQueue | None = None  # where requests from outside go
    live: bool = False  # True: packets arrive meanwhile, so nothing may wait for a slow reader
    foreground: bool = False  # True: started for what it prints, not as a service
    page: str | None = None  # address of the status page, for a link to it
    active: Mapping[str, int] = {}  # statistics told as out of their range -> since [ns since epoch]
    title: str | None = None  # of the incident that is open


class Message(Mapping[str, Any]):
    """The JSON object of one event, built when the first exporter looks at it, and encoded at most once."""

    def __init__(self, event: Event, node: str, series: str) -> None:
        self._origin = (event, node, series)

    @cached_property
    def fields(self) -> dict[str, Any]:
        return events.message(*self._origin)

    @cached_property
    def json(self) -> str:
        return events.encode(self.fields)

    def __getitem__(self, key: str) -> Any:
        return self.fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


class Exporter(Protocol):
    """All methods run on the main loop and return at once; one that talks to the network queues, and counts drops.

    The constructor takes its section of the configuration and the Context, and raises ConfigError for a setting that
    can never work; the exporters before it may still be at work then, and are closed before ``start``. Later an
    exception counts as a drop of that event and is logged once: it never reaches another exporter.
    """

    kinds: frozenset[type[Event]]  # the classes of events that it takes

    def start(self) -> None:
        """Open what nobody else may have open; a missing peer is no error."""

    def write(self, event: Event, message: Message) -> None:
        """Send ``event``, or queue it; ``message`` is its JSON object."""

    def health(self) -> Mapping[str, Any]:
        """Figures for the health message and the page: ``dropped`` at least."""

    def close(self) -> None:
        """Flush what can be flushed in a second, say goodbye, free everything."""


@runtime_checkable
class Polled(Protocol):
    """An exporter that has something to do between events: called on every turn of the main loop."""

    def poll(self) -> None:
        """Take up what another thread has left; returns at once."""
