"""Those who look on while windows pass: a CSV file of counts, a progress bar, the summary at the end."""

from __future__ import annotations

import csv
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from netspot.events import Alarm, Event, Sample, Window, counted, iso

if TYPE_CHECKING:
    from netspot.service import Service

BAR = 24  # characters
REDRAW_EVERY_S = 0.2


class Observer(Protocol):
    """Sees every window with all that came of it, on the main loop."""

    def step(
        self, window: Window, samples: Sequence[Sample], events: Sequence[Event], health: Mapping[str, Any]
    ) -> object: ...


class CountersCsv:
    """Every window's counts: one row a window, one column a counter, for those who only want to count."""

    def __init__(self, file: IO[str]) -> None:
        self._rows = csv.writer(file, lineterminator="\n")
        self._names: list[str] = []

    def step(
        self, window: Window, samples: Sequence[Sample], events: Sequence[Event], health: Mapping[str, Any]
    ) -> None:
        if not self._names:
            self._names = list(window.counts)
            self._rows.writerow(["start", "start_ns", *self._names])
        counts = (f"{window.counts[name]:.15g}" for name in self._names)
        self._rows.writerow([iso(window.start_ns), window.start_ns, *counts])


class Progress:
    """One line on a terminal: how much of a capture is read, or, where that says nothing, its clock."""

    def __init__(self, terminal: IO[str], service: Service) -> None:
        self._terminal, self._service = terminal, service
        self._started_s = time.monotonic()
        self._next_s = 0.0
        self._packets = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._terminal.write("\r\x1b[K")
        self._terminal.flush()

    def step(
        self, window: Window, samples: Sequence[Sample], events: Sequence[Event], health: Mapping[str, Any]
    ) -> None:
        self._packets += window.counts["PKTS"]
        now_s = time.monotonic()
        if any(not isinstance(event, Sample) for event in events):
            self._terminal.write("\r\x1b[K")  # the console is about to print a line
            self._next_s = 0.0
        elif now_s >= self._next_s:
            self._next_s = now_s + REDRAW_EVERY_S
            columns = os.get_terminal_size(self._terminal.fileno()).columns
            text = self._text(window, health, now_s - self._started_s)
            self._terminal.write(f"\r\x1b[K{text[: columns - 1]}")  # a line that wraps cannot be taken back
            self._terminal.flush()

    def _text(self, window: Window, health: Mapping[str, Any], elapsed_s: float) -> str:
        learned, needed = self._service.analyzer.progress
        phase = f"learning {learned} of {needed} windows" if learned < needed else "watching"
        rate = f"{counted(int(self._packets), 'packet')}, {self._packets / max(elapsed_s, 1e-3):,.0f}/s"
        progress = getattr(self._service.source, "progress", None)
        done, total = progress() if progress else (0, None)
        if not total or done >= total:  # all is in memory, and may still hold days: their clock moves
            return f"{iso(window.end_ns)[:19].replace('T', ' ')}Z  {rate}  {phase}"
        share = done / total
        bar = "█" * round(BAR * share) + "░" * (BAR - round(BAR * share))
        return f"{bar} {share:4.0%}  {rate}  {phase}"


class Summary:
    """What a run saw, told at its end."""

    def __init__(self) -> None:
        self._started_s, self._cpu_s = time.monotonic(), time.process_time()
        self._windows = self._packets = self._bytes = self._dropped = 0
        self._begin_ns = self._end_ns = 0
        self._alarms: Counter[str] = Counter()

    def step(
        self, window: Window, samples: Sequence[Sample], events: Sequence[Event], health: Mapping[str, Any]
    ) -> None:
        self._begin_ns = window.start_ns if not self._windows else self._begin_ns
        self._end_ns = window.end_ns
        self._windows += 1
        self._packets += int(window.counts["PKTS"])
        self._bytes += int(window.counts["BYTES"])
        self._dropped += window.dropped
        self._alarms.update(
            event.stat for event in events if isinstance(event, Alarm) and event.event_type != "cleared"
        )

    def text(self, service: Service) -> str:
        if not self._windows:
            return f"{service.source.series}: no packets"
        cpu_s = time.process_time() - self._cpu_s
        silent = (self._end_ns - self._begin_ns) // service.config.analyzer.period_ns - self._windows
        holes = f", {silent:,} silent ones left out" if silent > 0 else ""
        lines = [
            f"{service.source.series}: {counted(self._packets, 'packet')}, {_size(self._bytes)}"
            f" in {counted(self._windows, 'window')}{holes}, {iso(self._begin_ns)} to {iso(self._end_ns)}",
            f"took {time.monotonic() - self._started_s:.1f} s, {cpu_s:.2f} s of CPU:"
            f" {self._packets / max(cpu_s, 1e-3):,.0f} packets a CPU second",
        ]
        if self._dropped:
            lines.append(f"{counted(self._dropped, 'packet')} lost by the kernel before they could be counted")
        lines.append("alarms: " + (", ".join(f"{stat} {n}" for stat, n in self._alarms.most_common()) or "none"))
        learned, needed = service.analyzer.progress
        if learned < needed:
            lines.append(f"still learning at the end: {learned} of {needed} windows; no alarm can come before that")
            if not service.source.live:
                lines.append("a short capture teaches more in shorter windows (-p 100ms) or fewer (--spot.n_init 50)")
        return "\n".join(lines)


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
