"""One JSON shape for every exporter: strict, and the same everywhere."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from netspot.events import Alarm, Event, Health, Incident, Relearn, Sample, Window, encode, iso, message

T = 1_795_514_401_000_000_000
EVENTS: dict[str, Event] = {
    "stat": Sample("R_SYN", T, 0.0417, "1", 0.093, None, "watching", 1000, 1000),
    "alarm": Alarm("R_SYN", T, 0.71, "up", 0.093, 3e-7, "pi-1", 41, "high", evidence={"top_src": [("192.0.2.1", 0.9)]}),
    "incident": Incident("pi-1", T, "opened", 42, "port scan", ("R_SYN",), T, None, {"value": math.inf}),
    "relearn": Relearn("R_SYN", T, "it stayed outside"),
    "health": Health(T, {"phase": "learning", "rss_bytes": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "event"), EVENTS.items())
def test_every_event_is_strict_json_with_the_same_head(kind: str, event: Event) -> None:
    said = json.loads(encode(message(event, "pi-kitchen", "eth0")))
    head = {name: said[name] for name in ("v", "kind", "node", "series", "time", "time_ns")}
    assert head == {
        "v": 1,
        "kind": kind,
        "node": "pi-kitchen",
        "series": "eth0",
        "time": "2026-11-24T10:00:01.000Z",
        "time_ns": T,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_null(value: float) -> None:
    said = message(Sample("R_SYN", T, value, "1", value, None, "learning", 1, 1000), "n", "s")
    assert (said["value"], said["up"], said["down"]) == (None, None, None)
    assert "null" in encode(said)


def test_nested_evidence_is_cleaned_too() -> None:
    said: Any = message(Alarm("R", T, 1.0, "up", 0.5, 1e-9, evidence={"a": [(1.0, math.nan)]}), "n", "s")
    assert said["evidence"] == {"a": [[1.0, None]]}


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_999_999_999, "1970-01-01T00:00:01.999Z"),
        (T + 123_456_789, "2026-11-24T10:00:01.123Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1 << 62, "2116-02-20T23:53:38.427Z"),
    ],
)
def test_iso(time_ns: int, text: str) -> None:
    assert iso(time_ns) == text


def test_a_window_that_was_not_seen_whole_is_partial() -> None:
    assert Window(T, T + 10**9, {}, 0, 0.5).partial
    assert not Window(T, T + 10**9, {}, 0, 1.0).partial
