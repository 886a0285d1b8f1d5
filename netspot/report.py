"""One run as one self-contained HTML page: every statistic over time, alarms, incidents, counts and settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from itertools import chain
from string import Template
from typing import IO, Any

import numpy as np

from netspot.events import Alarm, Event, Incident, Sample, Window, encode, iso, message
from netspot.snapshot import Cells, Info, Rows
from netspot.web import views
from netspot.web.page import FOLDER, NONE, number, peak, plain

POINTS = 1500  # of each statistic, at most: from as many again on, two neighbours become one
ALARMS = 1000
INCIDENTS = 200


class Condensed:
    """A run of any length in at most ``2 * POINTS`` rows: lowest and highest value, thresholds, bits."""

    def __init__(self, width: int) -> None:
        rows = 2 * POINTS
        self.time_ns = np.zeros(rows, np.int64)  # end of the newest window in the row
        self.values = np.full((4, rows, width), np.nan, np.float32)  # low, high, up, down
        self.bits = np.zeros((rows, width), np.uint8)
        self.rows = 0
        self._windows_a_row = 1
        self._in_row = 0

    def write(self, time_ns: int, cells: Cells) -> None:
        if self._in_row == 0 or self._in_row == self._windows_a_row:
            if self.rows == self.bits.shape[0]:
                self._halve()
            self.rows += 1
            self._in_row = 0
        at = self.rows - 1
        self._in_row += 1
        self.time_ns[at] = time_ns
        cells.into(self.values[:, at], self.bits[at])

    def _halve(self) -> None:
        """Two neighbouring rows become one."""
        half = self.rows // 2
        low, high = self.values[0].reshape(half, 2, -1), self.values[1].reshape(half, 2, -1)
        later = self.values[2:, 1::2]
        merged = np.stack([np.fmin(low[:, 0], low[:, 1]), np.fmax(high[:, 0], high[:, 1])])
        limits = np.where(np.isnan(later), self.values[2:, ::2], later)
        self.values[:2, :half], self.values[2:, :half] = merged, limits
        self.values[:, half:] = np.nan
        self.bits[:half] = self.bits[::2] | self.bits[1::2]
        self.bits[half:] = 0
        self.time_ns[:half] = self.time_ns[1::2]
        self.rows, self._windows_a_row = half, 2 * self._windows_a_row

    def of(self, column: int) -> Rows:
        """One statistic in the order of time, which is not that of a capture whose clock was set back."""
        order = np.argsort(self.time_ns[: self.rows], kind="stable")
        low, high, up, down = (self.values[i, order, column] for i in range(4))
        return Rows(self.time_ns[order], low, high, up, down, self.bits[order, column])


class Report:
    """Looks on while a run's windows pass, then writes the page. Memory does not grow with the run."""

    def __init__(self, info: Info, settings: Mapping[str, Any]) -> None:
        self._info, self._settings = info, settings
        self._columns = {stat.name: i for i, stat in enumerate(info.stats)}
        self._past = Condensed(len(info.stats))
        self._last: dict[str, Sample] = {}
        self._alarms: list[Alarm] = []
        self._alarms_left_out = 0
        self._incidents: dict[str, Incident] = {}
        self._counts: dict[str, tuple[float, float]] = {}  # by counter: sum, most in one window
        self._windows = self._start_ns = self._end_ns = self._dropped = 0

    def step(
        self, window: Window, samples: Iterable[Sample], events: Iterable[Event], health: Mapping[str, Any]
    ) -> None:
        """Take in one window and what came of it."""
        self._windows += 1
        self._start_ns = min(self._start_ns, window.start_ns) if self._windows > 1 else window.start_ns
        self._end_ns = max(self._end_ns, window.end_ns)
        self._dropped += window.dropped
        for name, value in window.counts.items():
            total, most = self._counts.get(name, (0.0, 0.0))
            self._counts[name] = total + value, max(most, value)
        samples = [sample for sample in samples if sample.stat in self._columns]
        self._past.write(window.end_ns, Cells.of(samples, self._columns, self._last))
        self._last.update((sample.stat, sample) for sample in samples)
        for event in events:
            if isinstance(event, Alarm) and event.event_type != "cleared":
                self._alarms.append(event) if len(self._alarms) < ALARMS else self._leave_out()
            elif isinstance(event, Incident) and (event.id in self._incidents or len(self._incidents) < INCIDENTS):
                self._incidents[event.id] = event

    def _leave_out(self) -> None:
        self._alarms_left_out += 1

    def write(self, file: IO[str]) -> None:
        """Write the page to ``file`` (UTF-8)."""
        for part in self._page():
            file.write(part)

    def _page(self) -> Iterable[str]:
        template = Template((FOLDER / "report.html").read_text("utf-8"))
        static = {name: (FOLDER / f"{name}.{kind}").read_text("utf-8") for name, kind in PARTS}
        yield template.substitute(
            title=escape(f"{self._info.series}: netspot report"),
            series=escape(self._info.series),
            style=static["page"],
            chart=static["chart"],
            script=static["report"],
            facts="".join(_row(name, text) for name, text in self._facts()),
            stats="\n".join(self._stat_row(stat) for stat in self._info.stats),
            incidents="\n".join(self._incident(incident) for incident in self._incidents.values()) or "<li>None.</li>",
            alarms="\n".join(chain(map(_alarm, self._alarms), self._note())) or "<li>None.</li>",
            counts="\n".join(self._count_row(name) for name in self._counts),
            settings=escape(json.dumps(self._settings, indent=2, default=str)),
            data=encode(self._data()).replace("<", "\\u003c"),  # no text can end the script element
        )

    def _facts(self) -> Iterable[tuple[str, str]]:
        span = f"{iso(self._start_ns)} to {iso(self._end_ns)}" if self._windows else "no packets"
        packets = self._counts.get("PKTS", (0.0, 0.0))[0]
        yield "Time", span
        yield "Windows", f"{self._windows:,} of {self._info.period_ns / 1e9:g} s"
        yield "Packets", f"{packets:,.0f}"
        yield "Dropped", f"{self._dropped:,}"
        yield "Alarms", f"{len(self._alarms) + self._alarms_left_out:,}"
        yield "Incidents", f"{len(self._incidents):,}"
        yield "Made by", f"netspot {self._info.version} on {self._info.node}"

    def _data(self) -> dict[str, Any]:
        rows = self._past
        t0, steps = views.times(np.sort(rows.time_ns[: rows.rows]))
        stats = {name: views.columns(rows.of(column)) for name, column in self._columns.items()}
        return {"t0": t0, "t": steps, "stats": stats}

    def _stat_row(self, stat: Any) -> str:
        alarms = sum(alarm.stat == stat.name for alarm in self._alarms)
        last = self._last.get(stat.name)
        limits = [NONE, NONE] if last is None else [number(last.down), number(last.up)]
        learned = "not watched" if last is None or not last.needed else f"{last.learned} of {last.needed}"
        unit = "" if stat.unit == "1" else stat.unit
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in (*limits, str(alarms), unit, learned, stat.help))
        return f'<tr><th scope="row">{escape(stat.name)}</th>{cells}</tr>'

    def _incident(self, incident: Incident) -> str:
        body = message(incident, self._info.node, self._info.series)
        when = f"{body['start']} to {body['end']}" if body["end"] else f"from {body['start']}, not over at the end"
        facts = [("statistics", ", ".join(incident.stats)), ("peak", peak(body))]
        facts += [(key.replace("_", " "), plain(value)) for key, value in body["evidence"].items()]
        rows = "".join(_row(name, text) for name, text in facts)
        return f'<li><h3>{escape(incident.title)}</h3><p>{when}</p><dl class="facts">{rows}</dl></li>'

    def _count_row(self, name: str) -> str:
        total, most = self._counts[name]
        mean = total / self._windows
        return f'<tr><th scope="row">{escape(name)}</th><td>{mean:.4g}</td><td>{most:.6g}</td></tr>'

    def _note(self) -> Iterable[str]:
        if self._alarms_left_out:
            yield f"<li>and {self._alarms_left_out:,} more</li>"


PARTS = (("page", "css"), ("chart", "js"), ("report", "js"))


def _row(name: str, text: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>"


def _alarm(alarm: Alarm) -> str:
    side = "above" if alarm.event_type == "up" else "below"
    text = (
        f"{alarm.stat} {number(alarm.value)}, {side} {number(alarm.threshold)}, probability {number(alarm.probability)}"
    )
    return f"<li><span>{escape(text)}</span><span>{iso(alarm.time_ns)}</span></li>"
