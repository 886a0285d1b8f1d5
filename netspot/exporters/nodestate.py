"""The state of the whole node, as one retained message."""

from __future__ import annotations

from collections.abc import Mapping

from netspot.events import Alarm, Incident, encode, iso
from netspot.exporters.base import Message


class NodeState:
    """The retained state of the whole node: is something wrong, since when, and why."""

    def __init__(self, active: Mapping[str, int], title: str | None) -> None:
        """``active``: statistic -> when it left its range [ns since epoch]; ``title`` of the open incident."""
        self._active = dict(active)
        self._muted: set[str] = set()
        self._title = title
        self._last: Message | None = None

    def alarm(self, event: Alarm, message: Message) -> None:
        self._last = message
        if event.event_type == "cleared" or event.muted:
            self._active.pop(event.stat, None)
        else:
            self._active.setdefault(event.stat, event.time_ns)

    def incident(self, event: Incident) -> None:
        self._title = None if event.event_type == "closed" else event.title

    def muted(self, stat: str, muted: bool) -> bool:
        """Note whether ``stat`` is muted; True if that is news."""
        if muted == (stat in self._muted):
            return False
        (self._muted.add if muted else self._muted.discard)(stat)
        return True

    def json(self) -> str:
        active = bool(self._active)
        since = iso(min(self._active.values())) if active else None
        title = self._title or (f"{', '.join(self._active)} out of range" if active else None)
        return encode({
            "v": 1, "active": active, "title": title, "stats": list(self._active), "since": since,
            "muted": sorted(self._muted), "last": dict(self._last) if self._last else None,
        })  # fmt: skip
