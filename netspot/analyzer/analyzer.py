"""All statistics under watch: windows in; samples, alarms and incidents out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from netspot.analyzer.evidence import Names
from netspot.analyzer.incidents import Incidents, blamed
from netspot.analyzer.mute import Rule
from netspot.analyzer.watch import Watch, cleared
from netspot.events import Alarm, Event, Incident, Relearn, Sample, Window
from netspot.record import replace

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
        self._by_span: dict[int, list[Watch]] = {}
        for watch in watches:
            self._by_span.setdefault(watch.span, []).append(watch)
        self.seq = seq
        self.alarms = 0  # statistics that left their normal range since the start, muted ones included
        self.incidents = Incidents(node, names, capture, {1, *self._by_span})
        self._mute = tuple(mute)

    def step(self, window: Window) -> tuple[list[Sample], list[Event]]:
        """Samples of the statistics watched over this span, and what happened to them."""
        if window.span == 1:
            self.incidents.see(window)
        samples: list[Sample] = []
        happened: list[Event] = []
        for watch in self._by_span.get(window.span, ()):
            sample, events = watch.step(window)
            samples.append(sample)
            happened += events
        return samples, self._told(window, samples, happened)

    def relearn(self, names: Iterable[str], time_ns: int, reason: str) -> list[Event]:
        """Let the detectors of ``names`` start afresh."""
        return self._numbered(event for name in names for event in self.watches[name].relearn(time_ns, reason))

    def close(self, time_ns: int) -> list[Event]:
        """The end of everything that is open [ns since epoch], when nobody watches it any more."""
        alarms = [alarm for watch in self.watches.values() for alarm in watch.clear(time_ns)]
        return self._numbered([*alarms, *self.incidents.close(time_ns)])

    def succeed(self, before: Analyzer, time_ns: int) -> list[Event]:
        """Go on in the place of ``before``, whose open alarms and incident end: with its numbers and what is muted."""
        ends = before.close(time_ns)
        self.seq, self.alarms = before.seq, before.alarms
        for name in self.watches.keys() & before.watches.keys():
            self.mute([name], before.watches[name].muted_until_ns)
        return ends

    def mute(self, names: Iterable[str], until_ns: int) -> None:
        """Count the alarms of ``names`` but tell nobody until then [ns since epoch]; a time gone by unmutes.

        It reaches open alarms with the next window: one that was told is told as cleared; one that is no longer muted
        is told with the next value that alarms.
        """
        for name in names:
            self.watches[name].muted_until_ns = until_ns

    def states(self) -> dict[str, dict[str, Any]]:
        """What every detector has learned, by statistic, for ``netspot.state``."""
        return {name: state for name, watch in self.watches.items() if (state := watch.state())}

    def restore(self, states: Mapping[str, Any]) -> list[str]:
        """Take up what was learned before with the same parameters; returns the names of those that did."""
        return [name for name, watch in self.watches.items() if watch.restore(states.get(name, {}))]

    @property
    def active(self) -> dict[str, int]:
        """Statistics of which it was told that they are out of their range, and since when [ns since epoch]."""
        open_ = ((watch.name, watch.alarm) for watch in self.watches.values())
        return {name: alarm.time_ns for name, alarm in open_ if alarm is not None and not alarm.muted}

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
        alarms = [self._begun(event, window) for event in happened if isinstance(event, Alarm)]
        open_ = [watch for watch in self.watches.values() if watch.alarm is not None]
        alarms += self._changed(open_, window)
        loud = [alarm for alarm in alarms if not alarm.muted]
        outside = any(watch.alarm is not None and not watch.alarm.muted for watch in open_)
        incidents = self.incidents.step(window, samples, loud, outside)
        others = [event for event in happened if not isinstance(event, Alarm)]
        return [*others, *self._numbered([self._joined(alarm) for alarm in alarms]), *self._numbered(incidents)]

    def _begun(self, alarm: Alarm, window: Window) -> Alarm:
        """An alarm that begins, muted where a rule or a command says so; it is counted in any case."""
        if alarm.event_type == "cleared":
            return alarm
        self.alarms += 1
        watch = self.watches[alarm.stat]
        watch.blamed = self._blamed(alarm, window)
        watch.alarm = replace(alarm, muted=self._muted(watch, window.end_ns))
        return watch.alarm

    def _changed(self, outside: Iterable[Watch], window: Window) -> list[Alarm]:
        """The end of open alarms that are muted from now on, and, with their newest value, those that no longer are."""
        changed: list[Alarm] = []
        for watch in outside:
            alarm, latest, now_ns = watch.alarm, watch.latest, window.end_ns
            if alarm is None or latest is None or alarm.muted == self._muted(watch, now_ns):
                continue
            if not alarm.muted:
                changed.append(cleared(alarm, now_ns))
                watch.alarm = replace(alarm, muted=True, id="")
            elif latest.time_ns == now_ns:  # else it is perhaps on its way back
                watch.alarm = latest
                changed.append(latest)
        return changed

    def _muted(self, watch: Watch, time_ns: int) -> bool:
        """Whether the open alarm of ``watch`` is counted, not told, at that time."""
        if time_ns < watch.muted_until_ns:
            return True
        return any(rule.holds(watch.name, time_ns) and rule.blames(watch.blamed) for rule in self._mute)

    def _blamed(self, alarm: Alarm, window: Window) -> tuple[str, ...]:
        """Who the title of ``alarm`` would blame, if a rule wants to know; asked once, so that its answer stays."""
        if not any(rule.source is not None and rule.about(alarm.stat) for rule in self._mute):
            return ()
        values = {alarm.stat.partition("@")[0]: alarm.value}
        case = self.incidents.case(window, values, values, window.evidence.get("top", {}))
        found = blamed(case)
        if case is None or found is None:
            return ()
        return tuple(address for key in found.who if (address := case.seen.address(key)) is not None)

    def _joined(self, alarm: Alarm) -> Alarm:
        """An alarm that begins, with its incident, whose evidence it tells."""
        if alarm.muted or alarm.event_type == "cleared":
            return alarm
        alarm = self.watches[alarm.stat].alarm = replace(alarm, id=self.incidents.id)
        return replace(alarm, evidence=self.incidents.evidence)

    def _numbered(self, events: Iterable[Event]) -> list[Event]:
        """``events`` with numbers where they have one."""
        numbered: list[Event] = []
        for event in events:
            if isinstance(event, Alarm | Incident):
                self.seq += 1
                event = replace(event, seq=self.seq)
            numbered.append(event)
        return numbered
