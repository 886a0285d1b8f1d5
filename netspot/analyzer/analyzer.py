"""All statistics under watch: windows in, samples and alarms out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from netspot.analyzer.watch import Watch
from netspot.events import Alarm, Event, Relearn, Sample, Window

log = logging.getLogger("netspot.analyzer")


class Analyzer:
    """Steps each watch once per window of its span. Alarms that overlap in time carry the same ``id``."""

    def __init__(self, watches: Sequence[Watch], node: str, seq: int = 0) -> None:
        """``seq``: of the last alarm that was told, so that numbers go on after a restart."""
        self.watches = {watch.name: watch for watch in watches}
        self.seq = seq
        self.alarms = 0  # statistics that left their normal range since the start
        self._node = node
        self._incident = ""

    def step(self, window: Window) -> tuple[list[Sample], list[Event]]:
        """Samples of the statistics watched over this span, and what happened to them."""
        samples, events = [], []
        for watch in self.watches.values():
            if watch.span == window.span:
                sample, happened = watch.step(window)
                samples.append(sample)
                events += happened
        return samples, [self._told(event, window) for event in events]

    def relearn(self, names: Iterable[str], time_ns: int, reason: str) -> list[Event]:
        """Let the detectors of ``names`` start afresh."""
        return [event for name in names for event in self.watches[name].relearn(time_ns, reason)]

    def states(self) -> dict[str, dict[str, Any]]:
        """What every detector has learned, by statistic, for ``netspot.state``."""
        return {name: state for name, watch in self.watches.items() if (state := watch.state())}

    def restore(self, states: Mapping[str, Any]) -> list[str]:
        """Take up what was learned before with the same parameters; returns the names of those that did."""
        return [name for name, watch in self.watches.items() if watch.restore(states.get(name, {}))]

    @property
    def progress(self) -> tuple[int, int]:
        """(windows learned, windows needed) of the detector that is furthest behind; equal when all watch."""
        spots = [watch.spot for watch in self.watches.values() if watch.spot is not None and watch.span == 1]
        behind = max(spots, key=lambda spot: spot.needed - spot.learned, default=None)
        return (0, 0) if behind is None else (behind.learned, behind.needed)

    def _told(self, event: Event, window: Window) -> Event:
        if isinstance(event, Relearn):
            log.warning("%s: %s; it learns anew", event.stat, event.reason)
        if not isinstance(event, Alarm):
            return event
        if not self._incident:
            self._incident = f"{self._node}-{event.time_ns // 10**9:x}"
        self.seq += 1
        self.alarms += event.event_type != "cleared"
        told = replace(event, id=self._incident, seq=self.seq)
        if not any(watch.outside for watch in self.watches.values()):
            self._incident = ""
        return told
