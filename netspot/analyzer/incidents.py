"""Alarms that overlap in time, as one thing that happened, with a title made of what was seen."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from netspot.analyzer.evidence import Headers, Names, Seen, account
from netspot.analyzer.titles import Case, Title, added, number, title
from netspot.events import Alarm, Incident, Sample, Window
from netspot.record import replace

LINGER_NS = 30 * 10**9  # after its last statistic came back: what begins sooner is the same incident
UPDATE_NS = 10 * 10**9  # updates of one incident are at least this far apart
RING_BYTES = 5 << 19  # headers of the windows gone by: of busy ones every second is forgotten, and again
RING_WINDOWS = 60


class Incidents:
    """At most one incident is open. Fed with the windows and with alarms that are not muted."""

    def __init__(
        self, node: str, names: Names | None = None, capture: bool = False, spans: Collection[int] = (1,)
    ) -> None:
        """``capture``: an incident's packets are kept as a file. ``spans``: of the statistics that watch [period]."""
        self.names = names or Names()
        self._node, self._capture, self._spans = node, capture, frozenset(spans)
        self._ring: deque[Headers] = deque(maxlen=RING_WINDOWS)
        self._ring_bytes = 0
        self._window_ns = 10**9
        self._open: _Open | None = None

    @property
    def id(self) -> str:
        """Of the open incident; empty when there is none."""
        return "" if self._open is None else self._open.id

    @property
    def title(self) -> str | None:
        """Of the open incident; None when there is none."""
        return None if self._open is None else self._open.title

    @property
    def evidence(self) -> Mapping[str, Any]:
        """Of the open incident."""
        return {} if self._open is None else self._open.evidence

    def see(self, window: Window) -> None:
        """Remember the headers of a window of one period."""
        self._window_ns = window.end_ns - window.start_ns
        headers = window.evidence.get("headers")
        if headers is None:
            return
        if len(self._ring) == RING_WINDOWS:
            self._ring_bytes -= self._ring[0].nbytes
        self._ring.append(headers)
        self._ring_bytes += headers.nbytes
        while self._ring_bytes > RING_BYTES and len(self._ring) > 1:
            largest = max(range(len(self._ring) - 1), key=lambda k: self._ring[k].nbytes)
            whole = self._ring[largest]
            self._ring[largest] = whole.thinner()
            self._ring_bytes -= whole.nbytes - self._ring[largest].nbytes

    def case(
        self, window: Window, about: Collection[str], values: Mapping[str, float], culprits: Mapping[str, int]
    ) -> Case | None:
        """What the packets of ``window`` tell; None where no headers are kept."""
        seen = self._seen(window.span)
        if seen is None:
            return None
        covered = min(len(self._ring), window.span) * self._window_ns / 1e9
        return Case(about, values, culprits, seen, self.names, covered)

    def step(self, window: Window, samples: Iterable[Sample], alarms: Sequence[Alarm], outside: bool) -> list[Incident]:
        """What ``alarms``, those of ``window``, do to incidents; ``outside``: a statistic is still out of its range."""
        begun = [alarm for alarm in alarms if alarm.event_type != "cleared"]
        told: list[Incident] = []
        now_ns = window.end_ns
        if self._open is not None and self._over(self._open, window, bool(begun)):
            told += self.close(now_ns)
        if begun and self._open is None:
            self._open = _Open(f"{self._node}-{now_ns // 10**9:x}", window.start_ns)
        incident = self._open
        if incident is None:
            return told
        incident.take(samples, begun)
        if begun:
            incident.explain(self, window, {alarm.stat.partition("@")[0] for alarm in begun})
        incident.outside = outside
        if outside:
            incident.last_ns = now_ns
        if not incident.told_ns:
            told.append(self._event(incident, "opened", now_ns))
        elif incident.news and not 0 <= now_ns - incident.told_ns < UPDATE_NS:  # or the clock was set back
            told.append(self._event(incident, "updated", now_ns))
        return told

    def close(self, now_ns: int) -> list[Incident]:
        """The end of the open incident, if there is one."""
        incident, self._open = self._open, None
        return [] if incident is None else [self._event(incident, "closed", now_ns)]

    def _over(self, incident: _Open, window: Window, begun: bool) -> bool:
        """Whether ``window``, with an alarm that has ``begun`` there, is of another time than ``incident``.

        A window of a longer span that reaches back into it is a part of it, and ends later: it is waited for.
        """
        if incident.outside or 0 <= window.end_ns - incident.last_ns < LINGER_NS:
            return False
        if begun:
            return not window.start_ns < incident.last_ns < window.end_ns
        spans_ns = (span * self._window_ns for span in self._spans)
        judged_ns = max(-(-incident.last_ns // span_ns) * span_ns for span_ns in spans_ns)
        return window.span == 1 and (window.start_ns >= judged_ns or window.end_ns < incident.last_ns)

    def usual(self, span: int) -> Seen | None:
        """The windows before the last ``span`` ones."""
        before = list(self._ring)[:-span]
        return before[-1].seen(before[:-1]) if before else None

    def _seen(self, span: int) -> Seen | None:
        windows = list(self._ring)[-span:]
        return windows[-1].seen(windows[:-1]) if windows else None

    def _event(self, incident: _Open, event_type: Any, now_ns: int) -> Incident:
        incident.told_ns, incident.news = now_ns, False
        return Incident(
            incident.id,
            now_ns,
            event_type,
            0,  # numbered when it is told
            incident.title,
            tuple(incident.stats),
            incident.start_ns,
            max(incident.start_ns, incident.last_ns) if event_type == "closed" else None,  # the clock may be set back
            incident.peak,
            incident.evidence,
            f"/api/incidents/{incident.id}.pcap" if self._capture else None,
        )


class _Open:
    """The incident that is going on."""

    def __init__(self, id: str, start_ns: int) -> None:
        self.id, self.start_ns = id, start_ns
        self.outside = True  # a statistic is, since the last window
        self.last_ns = start_ns  # when one was outside for the last time
        self.told_ns = 0
        self.news = False
        self.titles: list[Title] = []  # what happened, as far as somebody can tell
        self.stats: dict[str, Alarm] = {}  # by name, the alarm with which each left its range
        self.values: dict[str, float] = {}  # by name without span, the greatest
        self.culprits: dict[str, int] = {}
        self.peak: dict[str, Any] = {}
        self.evidence: dict[str, Any] = {}

    @property
    def title(self) -> str:
        """All that is told, what tells most first."""
        told = sorted(self.titles, key=lambda each: each.kind)
        return "; ".join(each.text for each in told) or plain_title(self.peak, self.stats)

    def take(self, samples: Iterable[Sample], begun: Iterable[Alarm]) -> None:
        for alarm in begun:
            self.news |= alarm.stat not in self.stats
            self.stats.setdefault(alarm.stat, alarm)
            if not self.peak or alarm.probability < self.peak["probability"]:
                self.peak = {name: getattr(alarm, name) for name in ("stat", "value", "threshold", "probability")}
        for sample in samples:
            if sample.state == "alarm" and sample.stat in self.stats:
                name = sample.stat.partition("@")[0]
                self.values[name] = max(self.values.get(name, 0.0), sample.value)

    def explain(self, incidents: Incidents, window: Window, begun: set[str]) -> None:
        """What the statistics that have ``begun`` add to the title, and the evidence that goes with it."""
        self.culprits |= window.evidence.get("top", {})
        case = incidents.case(window, begun, self.values, self.culprits)
        if case is None:
            return
        found = title(case)
        if found is None and not self.titles:  # what began before may be told now
            found = title(replace(case, about=self.values))
        titles = self.titles if found is None else added(self.titles, found)
        if self.evidence and titles == self.titles:
            return
        self.news |= titles != self.titles
        self.titles = titles
        usual = incidents.usual(window.span)
        before = {} if usual is None else {"usual": account(usual, incidents.names)}
        self.evidence = {**account(case.seen, incidents.names), **before}


def plain_title(peak: Mapping[str, Any], stats: Mapping[str, Alarm]) -> str:
    """Only what is sure: which statistic left its range."""
    side = "below" if stats[peak["stat"]].event_type == "down" else "above"
    return f"{peak['stat']} left its range: {number(peak['value'])}, {side} {number(peak['threshold'])}"


def blamed(case: Case | None) -> Title | None:
    """The explanation of a case, if there is one."""
    return None if case is None else title(case)
