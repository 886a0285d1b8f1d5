"""What happens, as immutable values, and the one JSON shape in which every exporter tells it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from netspot.record import Record

SCHEMA_VERSION = 1  # fields are only ever added

Side = Literal["up", "down"]
State = Literal["learning", "watching", "alarm", "muted"]


class Window(Record):
    """What was counted in ``[start_ns, end_ns)``."""

    start_ns: int  # [ns since epoch]
    end_ns: int
    counts: Mapping[str, float]  # by counter name
    dropped: int  # lost by the kernel in this window [frame]
    seconds: float  # time that was really observed; less than the span for a first, partial window [s]
    span: int = 1  # length of this window in periods
    evidence: Mapping[str, Any] = {}  # who was seen, for the title of an alarm

    @property
    def partial(self) -> bool:
        return self.seconds < (self.end_ns - self.start_ns) / 1e9 * 0.999


class Sample(Record):
    """One statistic of one window, beside what is normal for it."""

    stat: str
    time_ns: int  # end of the window [ns since epoch]
    value: float  # NaN: the window held nothing to compare with
    unit: str
    up: float | None  # thresholds, in the unit of the value; None while learning or where a tail is not watched
    down: float | None
    state: State
    learned: int  # [window]
    needed: int  # [window]
    muted: bool = False  # its alarms are, whatever ``state`` says of learning and alarm


class Alarm(Record):
    """A statistic left its normal range (``up``, ``down``) or is back (``cleared``)."""

    stat: str
    time_ns: int  # end of the window [ns since epoch]
    value: float
    event_type: Literal["up", "down", "cleared"]
    threshold: float
    probability: float  # of a value at least as extreme, in ]0, 1]
    id: str = ""  # the incident it belongs to
    seq: int = 0  # counts alarms and incidents of this node, so that a reader can drop doubles
    level: Literal["low", "medium", "high"] = "medium"
    clock_synced: bool = True
    muted: bool = False
    evidence: Mapping[str, Any] = {}


class Incident(Record):
    """Alarms that overlap in time, as one thing that happened."""

    id: str
    time_ns: int
    event_type: Literal["opened", "updated", "closed"]
    seq: int
    title: str
    stats: tuple[str, ...]
    start_ns: int
    end_ns: int | None
    peak: Mapping[str, Any]  # stat, value, threshold, probability
    evidence: Mapping[str, Any] = {}
    capture: str | None = None
    clock_synced: bool = True


class Relearn(Record):
    """A detector begins to learn anew: its statistic stayed outside of what was normal, or somebody asked for it."""

    stat: str
    time_ns: int
    reason: str


class Health(Record):
    """How the program itself does, every minute and on every change of phase."""

    time_ns: int
    figures: Mapping[str, Any]  # version, uptime_s, phase, captured, dropped, interfaces, rss_bytes, spool, mqtt ...


Event = Sample | Alarm | Incident | Relearn | Health


@lru_cache(maxsize=8)  # all samples of a window bear the same time
def iso(time_ns: int) -> str:
    """``time_ns`` [ns since epoch] as ISO 8601 with milliseconds and ``Z``."""
    return (
        datetime.fromtimestamp(time_ns // 1_000_000 / 1e3, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def counted(number: int, noun: str) -> str:
    """``1 packet``, ``1,200 packets``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def message(event: Event, node: str, series: str) -> dict[str, Any]:
    """``event`` as the JSON object that all exporters send; NaN and infinities are None.

    ``series`` is the interface, or the base name of a capture file.
    """
    head = {"v": SCHEMA_VERSION, "kind": KINDS[type(event)], "node": node, "series": series}
    head |= {"time": iso(event.time_ns), "time_ns": event.time_ns}
    match event:
        case Sample():
            body = _fields(event, "stat", "unit", "value", "up", "down", "state", "learned", "needed")
        case Alarm():
            body = _fields(
                event, "event_type", "id", "seq", "stat", "value", "threshold", "probability", "level", "muted"
            )
            body |= _fields(event, "clock_synced", "evidence")
        case Incident():
            body = _fields(
                event, "event_type", "id", "seq", "title", "stats", "peak", "evidence", "capture", "clock_synced"
            )
            body |= {"start": iso(event.start_ns), "end": None if event.end_ns is None else iso(event.end_ns)}
        case Relearn():
            body = _fields(event, "stat", "reason")
        case Health():
            body = dict(event.figures)
    clean: dict[str, Any] = _finite(head | body)
    return clean


def encode(obj: Any) -> str:
    """Strict, compact JSON; NaN and infinities become null, whatever JSON does not know becomes text."""
    try:
        return _ENCODER.encode(obj)
    except ValueError:
        return _ENCODER.encode(_finite(obj))


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=str)  # making it takes longer
KINDS: dict[type, str] = {Sample: "stat", Alarm: "alarm", Incident: "incident", Relearn: "relearn", Health: "health"}


def _fields(event: Event, *names: str) -> dict[str, Any]:
    return {name: getattr(event, name) for name in names}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):  # the most of them, and a Mapping takes long to tell
        return value
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
