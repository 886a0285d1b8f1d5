"""One statistic under watch: its value in each window, its detector, and whether it is outside of what is normal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from netspot.analyzer.stats import Stat
from netspot.config import Config, SpotConfig
from netspot.events import Alarm, Event, Relearn, Sample, State, Window
from netspot.spot import Spot, Verdict

DAY_NS = 86_400 * 10**9


class Watch:
    """``name`` is the statistic's, with ``@span`` where it is watched over several periods."""

    def __init__(self, name: str, stat: Stat, span: int, spot: Spot | None, alert: bool, clear_after: int) -> None:
        self.name, self.stat, self.span, self.spot = name, stat, span, spot
        self.muted_until_ns = 0  # alarms before this are told as muted [ns since epoch]
        self._alert = alert
        self._clear_after = clear_after
        self._quiet = 0  # windows without an alarm since the last one, while outside
        self._outside: Alarm | None = None  # the alarm with which it left its normal range

    @property
    def outside(self) -> bool:
        return self._outside is not None

    def step(self, window: Window) -> tuple[Sample, list[Event]]:
        """The sample of ``window``, and what happened: an alarm, its end, a new start of learning."""
        value = self.stat.compute(*(window.counts[name] for name in self.stat.needs))
        events: list[Event] = []
        # A partial window would teach a rate that never was.
        if self.spot is not None and not window.partial:
            verdict = self.spot.update(self._scale(value))
            events = self._judge(window.end_ns, value, verdict)
        return self._sample(window.end_ns, value), events

    def relearn(self, time_ns: int, reason: str) -> list[Event]:
        """Forget what is normal and begin to learn; an open alarm ends."""
        if self.spot is None:
            return []
        self.spot.relearn()
        return [*self._clear(time_ns, math.nan), Relearn(self.name, time_ns, reason)]

    def _judge(self, time_ns: int, value: float, verdict: Verdict) -> list[Event]:
        if verdict.relearning:
            return [*self._clear(time_ns, value), Relearn(self.name, time_ns, "it stayed outside of what was normal")]
        if verdict.kind == "alarm" and self._alert:
            self._quiet = 0
            return [] if self._outside else [self._leave(time_ns, value, verdict)]
        if self._outside and verdict.kind != "skipped":
            self._quiet += 1
            if self._quiet >= self._clear_after:
                return self._clear(time_ns, value)
        return []

    def _leave(self, time_ns: int, value: float, verdict: Verdict) -> Alarm:
        assert self.spot is not None and verdict.side is not None and verdict.probability is not None
        threshold = math.nan if verdict.threshold is None else self._unscale(verdict.threshold)
        rarity = verdict.probability / self.spot.parameters["q"]
        self._outside = Alarm(
            self.name,
            time_ns,
            value,
            verdict.side,
            threshold,
            verdict.probability,
            level="high" if rarity < 1e-3 else "medium" if rarity < 0.1 else "low",
            muted=time_ns < self.muted_until_ns,
        )
        return self._outside

    def _clear(self, time_ns: int, value: float) -> list[Event]:
        alarm, self._outside, self._quiet = self._outside, None, 0
        return [] if alarm is None else [replace(alarm, time_ns=time_ns, value=value, event_type="cleared")]

    def _sample(self, time_ns: int, value: float) -> Sample:
        spot = self.spot
        if spot is None:
            return Sample(self.name, time_ns, value, self.stat.unit, None, None, "watching", 0, 0)
        up, down = spot.up, spot.down
        return Sample(
            self.name,
            time_ns,
            value,
            self.stat.unit,
            None if up is None else self._unscale(up),
            None if down is None else self._unscale(down),
            self._state(time_ns),
            spot.learned,
            spot.needed,
        )

    def _state(self, time_ns: int) -> State:
        assert self.spot is not None
        if self._outside:
            return "alarm"
        if self.spot.learned < self.spot.needed:
            return "learning"
        return "muted" if time_ns < self.muted_until_ns else "watching"

    def _scale(self, value: float) -> float:
        return math.log1p(value) if self.stat.log else value

    def _unscale(self, value: float) -> float:
        if not self.stat.log:
            return value
        return math.expm1(value) if value < 700 else math.inf


def watches(config: Config, stats: Mapping[str, Stat], names: Iterable[str]) -> list[Watch]:
    """A watch for each of ``names``, with the detector that ``config`` asks for.

    Where ``spot.q`` is not set it follows from ``analyzer.false_alarms_per_day``, shared by the tails that are watched.
    """
    chosen = [(name, stats[name.partition("@")[0]], int(name.partition("@")[2] or 1)) for name in names]
    settings = {name: config.spot_stats.get(stat.name, config.spot) for name, stat, _ in chosen}
    tails = sum(settings[name].up + settings[name].down for name, stat, _ in chosen if stat.watched)
    result = []
    for name, stat, span in chosen:
        spot = settings[name]
        windows_per_day = DAY_NS / (config.analyzer.period_ns * span)
        q = spot.q or config.analyzer.false_alarms_per_day / (windows_per_day * tails)
        detector = _spot(spot, q, stat) if stat.watched and (spot.up or spot.down) else None
        result.append(Watch(name, stat, span, detector, spot.alert, config.analyzer.clear_after))
    return result


def _spot(config: SpotConfig, q: float, stat: Stat) -> Spot:
    low, high = stat.range
    return Spot(
        q=min(q, 0.5 * (1 - config.level)),
        n_init=config.n_init,
        level=config.level,
        up=config.up,
        down=config.down,
        depth=config.depth,
        max_excess=config.max_excess,
        bounded=config.bounded,
        range=(math.log1p(low), math.log1p(high)) if stat.log else (low, high),
        relearn_after=config.relearn_after,
    )
