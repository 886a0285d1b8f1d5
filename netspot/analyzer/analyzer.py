"""All statistics under watch: windows in; samples, alarms and incidents out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from netspot.analyzer.evidence import Names
from netspot.analyzer.incidents import Incidents, blamed
from netspot.analyzer.mute import Rule
from netspot.analyzer.watch import Watch
from netspot.events import Alarm, Event, Relearn, Sample, Window

log = logging.getLogger("netspot.analyzer")


class Analyzer:
    """Steps each watch once per window of its span. Alarms that overlap in time carry their incident's ``id``."""

    def __init__(
        self,
        watches: Sequence[Watch],
        node: str,
        seq: int = 0,
        *,
        mute: Iterable[Rule] = (),
        names: Names | None = None,
        capture: bool = False,
    ) -> None:
        """``seq``: of the last alarm that was told, so that numbers go on after a restart."""
        self.watches = {watch.name: watch for watch in watches}
        self.seq = seq
        self.alarms = 0  # statistics that left their normal range since the start, muted ones included
        self.muted = 0  # of those, the ones that were muted
        self.incidents = Incidents(node, names, capture)
        self._mute = tuple(mute)

    def step(self, window: Window) -> tuple[list[Sample], list[Event]]:
        """Samples of the statistics watched over this span, and what happened to them."""
        if window.span == 1:
            self.incidents.see(window)
        samples: list[Sample] = []
        happened: list[Event] = []
        for watch in self.watches.values():
            if watch.span == window.span:
                sample, events = watch.step(window)
                samples.append(sample)
                happened += events
        return samples, self._told(window, samples, happened)

    def relearn(self, names: Iterable[str], time_ns: int, reason: str) -> list[Event]:
        """Let the detectors of ``names`` start afresh."""
        events = [event for name in names for event in self.watches[name].relearn(time_ns, reason)]
        id = self.incidents.id
        return [replace(e, id=id, seq=self._next()) if isinstance(e, Alarm) else e for e in events]

    def mute(self, names: Iterable[str], until_ns: int) -> None:
        """Count the alarms of ``names`` but tell nobody until then [ns since epoch]; a time gone by unmutes."""
        for name in names:
            self.watches[name].muted_until_ns = until_ns

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

    def _told(self, window: Window, samples: list[Sample], happened: list[Event]) -> list[Event]:
        """``happened`` with numbers and the incident's id, then what it did to the incident."""
        for event in happened:
            if isinstance(event, Relearn):
                log.warning("%s: %s; it learns anew", event.stat, event.reason)
        alarms = [self._muted(event, window) for event in happened if isinstance(event, Alarm)]
        loud = [alarm for alarm in alarms if not alarm.muted]
        before = self.incidents.id
        outside = any(watch.outside and not watch.muted for watch in self.watches.values())
        incidents = self.incidents.step(window, samples, loud, outside)
        id = self.incidents.id or before
        evidence = self.incidents.evidence
        told: list[Event] = [event for event in happened if not isinstance(event, Alarm)]
        for alarm in alarms:
            shown = evidence if alarm.event_type != "cleared" and not alarm.muted else {}
            told.append(replace(alarm, id="" if alarm.muted else id, seq=self._next(), evidence=shown))
        return [*told, *(replace(incident, seq=self._next()) for incident in incidents)]

    def _muted(self, alarm: Alarm, window: Window) -> Alarm:
        """``alarm``, muted where a rule or a command says so; it is counted in any case."""
        watch = self.watches[alarm.stat]
        if alarm.event_type != "cleared":
            self.alarms += 1
            watch.muted = alarm.muted or self._ruled(alarm, window)
            self.muted += watch.muted
        return replace(alarm, muted=watch.muted)

    def _ruled(self, alarm: Alarm, window: Window) -> bool:
        rules = [rule for rule in self._mute if rule.holds(alarm.stat, alarm.time_ns)]
        if not rules or any(rule.source is None for rule in rules):
            return bool(rules)
        values = {alarm.stat.partition("@")[0]: alarm.value}
        case = self.incidents.case(window, values, window.evidence.get("top", {}))
        found = blamed(case)
        if case is None or found is None:
            return False
        addresses = [address for key in found.who if (address := case.seen.address(key)) is not None]
        return any(rule.blames(addresses) for rule in rules)

    def _next(self) -> int:
        self.seq += 1
        return self.seq
