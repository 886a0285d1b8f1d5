"""A snapshot as JSON for the page and the API, and as Prometheus text."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspot.events import Sample, iso, message
from netspot.snapshot import OUTSIDE, Board, Described, Rows, Snapshot

PAGE_SECONDS = 600  # what the page shows of every statistic
PAGE_ROWS = 1200  # at most: a page on a phone need not hold more, whatever the period
SILENT_S = 30.0  # without a new window for so long, and 10 periods, the service is not well


def status(board: Board, snapshot: Snapshot) -> dict[str, Any]:
    """Who this is and how it does."""
    info = board.info
    return {
        "node": info.node,
        "series": info.series,
        "version": info.version,
        "started": iso(info.started_ns),
        "period_s": info.period_ns / 1e9,
        "time": iso(snapshot.time_ns) if snapshot.time_ns else None,
        "windows": snapshot.seq,
        "phase": "starting",
        **snapshot.health,
        "active": [sample.stat for sample in snapshot.samples.values() if sample.state == "alarm"],
    }


def ill(board: Board, snapshot: Snapshot) -> str | None:
    """What is wrong with the service, for a monitor; None: nothing."""
    silent_s = (time.time_ns() - (snapshot.time_ns or board.info.started_ns)) / 1e9
    if silent_s > max(SILENT_S, 10 * board.info.period_ns / 1e9) and snapshot.health.get("phase") != "stopped":
        return f"no window was completed for {silent_s:.0f} s"
    if snapshot.health.get("phase") == "degraded":
        return "the interface is down" if snapshot.health.get("source_up") is False else "packets are being lost"
    return None


def stat(board: Board, described: Described, sample: Sample | None) -> dict[str, Any]:
    """One statistic: the newest message about it, with its help text."""
    info = board.info
    head: dict[str, Any] = {"stat": described.name, "unit": described.unit, "help": described.help}
    if sample is None:
        return {**head, "value": None, "up": None, "down": None, "state": "learning", "learned": 0, "needed": 0}
    return {**message(sample, info.node, info.series), **head}


def poll(board: Board, snapshot: Snapshot, since: int | None) -> dict[str, Any]:
    """What the page does not have yet: windows, alarms and incidents after cursor ``since``.

    ``t`` holds the windows' ends as steps [ms] from ``t0``; ``stats`` the columns of each statistic, see ``columns``.
    """
    info, end = board.info, snapshot.seq
    first = end - min(PAGE_ROWS, math.ceil(PAGE_SECONDS * 1e9 / info.period_ns))
    rows = board.history.windows(max(first, since or 0), end, slice(None))
    t0, steps = times(rows.time_ns)
    stats: dict[str, Any] = {}
    for name, column in board.columns.items():
        stats[name] = columns(rows.of(column)) | {"now": _now(snapshot.samples.get(name))}
    after = since or 0
    return {
        "epoch": board.epoch,
        "seq": end,
        "reset": since is None,
        "status": status(board, snapshot),
        "t0": t0,
        "t": steps,
        "stats": stats,
        "alarms": [alarm for seq, alarm in snapshot.alarms if seq > after],
        "incidents": [incident for seq, incident in snapshot.incidents if seq > after],
    }


def history(rows: Rows) -> dict[str, Any]:
    """The rows of one statistic as JSON."""
    t0, steps = times(rows.time_ns)
    return {"t0": t0, "t": steps, **columns(rows)}


def columns(rows: Rows) -> dict[str, Any]:
    """``v``: values (or ``lo`` and ``hi`` of each minute); ``u``, ``d``: thresholds, where they change; ``a``: outside.

    Thresholds move rarely, so they are pairs [row, value], and absent where there is none; ``a`` lists rows.
    """
    out: dict[str, Any] = {"v": numbers(rows.high)}
    if not np.array_equal(rows.low, rows.high, equal_nan=True):
        out = {"lo": numbers(rows.low), "hi": numbers(rows.high)}
    for name, values in (("u", rows.up), ("d", rows.down)):
        if changes := _changes(values):
            out[name] = changes
    if outside := np.flatnonzero(rows.bits & OUTSIDE).tolist():
        out["a"] = outside
    return out


def numbers(values: NDArray[np.float32]) -> list[float | None]:
    """Four significant digits, None for what is no number."""
    exact = values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scale = 10.0 ** (3 - np.floor(np.log10(np.abs(exact))))
        rounded = np.where(np.isfinite(scale), np.round(exact * scale) / scale, exact)
    return [_short(value) for value in rounded.tolist()]


def _short(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) else value


def _changes(values: NDArray[np.float32]) -> list[list[float | None]]:
    if not values.size or np.isnan(values).all():
        return []
    moved = np.ones(values.size, np.bool_)
    moved[1:] = (values[1:] != values[:-1]) & ~(np.isnan(values[1:]) & np.isnan(values[:-1]))
    rows = np.flatnonzero(moved)
    return [[row, value] for row, value in zip(rows.tolist(), numbers(values[rows]), strict=True)]


def times(time_ns: NDArray[np.int64]) -> tuple[int | None, list[int]]:
    if not time_ns.size:
        return None, []
    ms = time_ns // 1_000_000
    return int(ms[0]), np.diff(ms, prepend=ms[:1]).tolist()


def _now(sample: Sample | None) -> list[Any]:
    """State and progress of a statistic: [state, learned, needed]."""
    return ["learning", 0, 0] if sample is None else [sample.state, sample.learned, sample.needed]


def metrics(board: Board, snapshot: Snapshot) -> str:
    """The Prometheus text exposition format, version 0.0.4."""
    return "\n".join(_metric_lines(board, snapshot)) + "\n"


def _metric_lines(board: Board, snapshot: Snapshot) -> Iterator[str]:
    info, health = board.info, snapshot.health
    yield from _family("info", "gauge", "which netspot this is", [(_labels(info, version=info.version), 1)])
    yield from _family(
        "window_end_seconds", "gauge", "end of the newest window", [(_labels(info), snapshot.time_ns / 1e9)]
    )
    for key, name, kind, text in FIGURES:
        value = health.get(key)
        if isinstance(value, int | float):
            yield from _family(name, kind, text, [(_labels(info), value)])
    exporters = health.get("exporters") or {}
    drops = [(_labels(info, exporter=name), figures.get("dropped", 0)) for name, figures in exporters.items()]
    yield from _family("exporter_dropped_total", "counter", "events that an exporter could not send", drops)
    samples = [sample for sample in snapshot.samples.values() if sample.stat in board.columns]
    values = [(_labels(info, stat=s.stat, unit=s.unit), s.value) for s in samples]
    yield from _family("stat", "gauge", "value of a statistic in its newest window, in its unit", values)
    bounds = [
        (s, side, bound) for s in samples for side, bound in (("up", s.up), ("down", s.down)) if bound is not None
    ]
    limits = [(_labels(info, stat=s.stat, side=side), bound) for s, side, bound in bounds]
    yield from _family("threshold", "gauge", "what a statistic must pass to be an alarm", limits)
    learned = [(_labels(info, stat=s.stat), s.learned) for s in samples]
    yield from _family("learned_windows", "gauge", "windows that a detector has learned from", learned)
    active = [(_labels(info, stat=s.stat), int(s.state == "alarm")) for s in samples]
    yield from _family("alarm_active", "gauge", "1 while a statistic is outside of its normal range", active)
    alarms = [(_labels(info, stat=name), snapshot.alarm_counts.get(name, 0)) for name in board.columns]
    yield from _family("alarms_total", "counter", "alarms since the start", alarms)


FIGURES = (
    ("captured", "captured_packets_total", "counter", "packets seen since the start"),
    ("dropped", "dropped_packets_total", "counter", "packets lost by the kernel since the start"),
    ("packets_per_s", "packets_per_second", "gauge", "packets in the newest window"),
    ("uptime_s", "uptime_seconds", "gauge", "how long the service has been running"),
    ("rss_bytes", "memory_bytes", "gauge", "resident memory of the service"),
    ("cpu_share", "cpu_share", "gauge", "share of one CPU used by the service"),
    ("disk_free_bytes", "state_free_bytes", "gauge", "free space where the learned detectors are kept"),
)


def _family(name: str, kind: str, text: str, values: Sequence[tuple[str, float]]) -> Iterator[str]:
    if values:
        yield f"# HELP netspot_{name} {text}"
        yield f"# TYPE netspot_{name} {kind}"
        yield from (f"netspot_{name}{{{labels}}} {_prometheus(value)}" for labels, value in values)


def _prometheus(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    return repr(value)


def _labels(info: Any, **more: str) -> str:
    pairs: Mapping[str, str] = {"node": info.node, "series": info.series, **more}
    return ",".join(f'{key}="{_escape(str(value))}"' for key, value in pairs.items())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
