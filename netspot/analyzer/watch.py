"""One statistic under watch: its value in each window, its detector, and whether it is outside of what is normal."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from netspot.analyzer.stats import Stat
from netspot.analyzer.stats.base import LOG_RANGE
from netspot.config import Config, SpotConfig
from netspot.errors import ConfigError
from netspot.events import Alarm, Event, Relearn, Sample, State, Window
from netspot.record import replace
from netspot.spot import Spot, Verdict

log = logging.getLogger("netspot.analyzer")

DAY_NS = 86_400 * 10**9
RECORD_HALVES_NS = 7 * DAY_NS  # the greatest normal value fades: a week shows what a home's days are like
SPAN_LEARNS = 20  # windows that the longest span learns from at least: 20 minutes of 60 s
SPAN_RELEARNS = 20
FEW_REACH = 0.2  # the law of the few values of a longer span tells nothing of what comes less than once in five times n
LEARN_STEP = 1.1  # an incident raises the greatest normal value by this factor at most: what comes often is learned
STAYED = "it stayed outside of what was normal"
TAIL = 10  # values beyond the level while learning that a tail law needs at least


class Watch:
    """``name`` is the statistic's, with ``@span`` where it is watched over several periods."""

    def __init__(
        self,
        name: str,
        stat: Stat,
        span: int,
        spot: Spot | None,
        *,
        alert: bool = True,
        clear_after: int = 10,
        relearn_after: int = 0,
        period_ns: int = 10**9,
        meaning: str = "",
    ) -> None:
        """``clear_after``: windows without an alarm after which the statistic is back in its range.

        ``relearn_after``: alarmed windows after which the new level is learned; 0 leaves that to the detector.
        ``meaning``: what the value is, where the name may come to stand for another one.
        """
        self.name, self.stat, self.span, self.spot = name, stat, span, spot
        self.muted_until_ns = 0  # alarms before this are told as muted [ns since epoch]
        self.alarm: Alarm | None = None  # with which it left its normal range, as it was told; None inside
        self.latest: Alarm | None = None  # of the newest window that alarmed
        self.blamed: tuple[str, ...] = ()  # addresses, for the open alarm
        self._alert, self._meaning = alert, meaning
        self._clear_after, self._relearn_after = clear_after, relearn_after
        self._least = stat.least_over(span)
        self._fading = 0.5 ** (span * period_ns / RECORD_HALVES_NS)
        self._record = 0.0  # the greatest value of late that was normal
        self._newest = 0.0  # normal, but perhaps the begin of what alarms next: no part of the record yet
        self._up = None if spot is None else spot.up  # the detector's threshold now, which is costly to ask for
        self._quiet = 0  # windows without an alarm since the last one, while outside
        self._alarmed = 0  # windows with one since it left its range
        self._possible = True  # no value was out of what the statistic declares as possible

    @property
    def floor(self) -> float:
        """What a value must exceed, beside the detector's threshold, to alarm; in its own unit."""
        return max(self._least, self.stat.margin * self._record if self.stat.margin else -math.inf)

    def step(self, window: Window) -> tuple[Sample, list[Event]]:
        """The sample of ``window``, and what happened: an alarm, its end, a new start of learning."""
        counts = window.counts
        value = self.stat.compute(*[counts[name] for name in self.stat.needs])
        events: list[Event] = []
        low, high = self.stat.range
        if (value < low or value > high) and self._possible:
            self._possible = False
            text = "%s: its value %g is out of its range [%g, %g], so that its thresholds mean nothing"
            log.warning(text, self.name, value, low, high)
        # A partial window would teach a rate that never was.
        if self.spot is not None and not window.partial:
            verdict = self._verdict(self.spot, value)
            self._up = self.spot.up
            if verdict.kind == "alarm":
                self._newest = 0.0
                if verdict.relearning:  # a new level after long alarms; a detector that follows a slow change keeps it
                    self._record = 0.0
            elif verdict.kind != "skipped":
                self._record, self._newest = max(self._record * self._fading, self._newest), value
            events = self._judge(window.end_ns, value, verdict)
        return self._sample(window.end_ns, value), events

    def relearn(self, time_ns: int, reason: str) -> list[Event]:
        """Forget what is normal and begin to learn; an open alarm ends."""
        if self.spot is None:
            return []
        self.spot.relearn()
        self._record, self._newest, self._up = 0.0, 0.0, None
        return [*self.clear(time_ns), Relearn(self.name, time_ns, reason)]

    def clear(self, time_ns: int, value: float = math.nan) -> list[Alarm]:
        """The end of the open alarm, if there is one."""
        alarm, self.alarm, self.latest, self._quiet, self._alarmed = self.alarm, None, None, 0, 0
        if alarm is None:
            return []
        self._record = max(self._record, min(alarm.value, LEARN_STEP * self._record))
        return [cleared(alarm, time_ns, value)]

    def state(self) -> dict[str, Any]:
        """What was learned, for ``restore``."""
        if self.spot is None:
            return {}
        return {**self.spot.state(), "record": self._record, "newest": self._newest, "meaning": self._meaning}

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Take up what was learned before of the same value with the same parameters; False where they differ."""
        if self.spot is None or state.get("meaning", "") != self._meaning or not state:
            return False
        try:
            spot = Spot.restore(state)
        except ValueError as error:  # of another version of this program
            log.warning("%s: %s; it learns anew", self.name, error)
            return False
        if spot.parameters != self.spot.parameters:
            return False
        self.spot, self._record = spot, float(state.get("record", 0.0))
        self._newest, self._up = float(state.get("newest", 0.0)), spot.up
        return True

    def _verdict(self, spot: Spot, value: float) -> Verdict:
        """The detector's; what is above its threshold but not above the floor is given to it as the end of its tail."""
        scaled, up, tail = self._scale(value), self._up, spot.up_excess
        if up is None or tail is None or not value <= self.floor:
            return spot.update(scaled)
        verdict = spot.update(min(scaled, up - 0.01 * (up - tail)))  # what is shown may lag behind a little
        return verdict._replace(kind="excess") if verdict.kind == "alarm" and verdict.side == "up" else verdict

    def _judge(self, time_ns: int, value: float, verdict: Verdict) -> list[Event]:
        if verdict.relearning:
            return [*self.clear(time_ns, value), Relearn(self.name, time_ns, STAYED)]
        if verdict.kind == "alarm" and self._alert:
            self._quiet = 0
            self._alarmed += 1
            if self._alarmed == self._relearn_after:
                return self.relearn(time_ns, STAYED)
            self.latest = self._left(time_ns, value, verdict)
            if self.alarm is None:
                self.alarm = self.latest
                return [self.alarm]
            return []
        if self.alarm is not None and verdict.kind != "skipped":
            self._quiet += 1
            if self._quiet >= self._clear_after:
                return [*self.clear(time_ns, value)]
        return []

    def _left(self, time_ns: int, value: float, verdict: Verdict) -> Alarm:
        assert self.spot is not None and verdict.side is not None and verdict.probability is not None
        threshold = math.nan if verdict.threshold is None else self._unscale(verdict.threshold)
        if verdict.side == "up":
            threshold = max(threshold, self.floor)
        rarity = verdict.probability / self.spot.parameters["q"]
        return Alarm(
            self.name,
            time_ns,
            value,
            verdict.side,
            threshold,
            verdict.probability,
            level="high" if rarity < 1e-3 else "medium" if rarity < 0.1 else "low",
        )

    def _sample(self, time_ns: int, value: float) -> Sample:
        spot = self.spot
        if spot is None:
            return Sample(self.name, time_ns, value, self.stat.unit, None, None, "watching", 0, 0)
        up, down, learned, needed = self._up, spot.down, spot.learned, spot.needed
        muted = time_ns < self.muted_until_ns
        state: State = "watching" if learned == needed else "learning"
        return Sample(
            self.name,
            time_ns,
            value,
            self.stat.unit,
            None if up is None else max(self._unscale(up), self.floor),
            None if down is None else self._unscale(down),
            "muted" if muted else state if self.alarm is None else "alarm",
            learned,
            needed,
            muted,
        )

    def _scale(self, value: float) -> float:
        if not self.stat.log:
            return value
        return math.log1p(value) if value > -1 else math.nan

    def _unscale(self, value: float) -> float:
        if not self.stat.log:
            return value
        return math.expm1(value) if value < 700 else math.inf


def cleared(alarm: Alarm, time_ns: int, value: float = math.nan) -> Alarm:
    """The end of ``alarm``, of the same incident and muted as it was."""
    return replace(alarm, time_ns=time_ns, value=value, event_type="cleared")


def watches(config: Config, stats: Mapping[str, Stat], names: Iterable[str]) -> list[Watch]:
    """A watch for each of ``names``, with the detector that ``config`` asks for.

    Where ``spot.q`` is not set it follows from ``analyzer.false_alarms_per_day``, shared by the tails that are watched.
    Raises ConfigError for what the detector refuses.
    """
    chosen = [(name, stats[name.partition("@")[0]], int(name.partition("@")[2] or 1)) for name in names]
    if config.analyzer.profile == "classic":  # the detector alone decides there
        chosen = [(name, replace(stat, least=-math.inf, margin=0.0), span) for name, stat, span in chosen]
    settings = {name: settings_of(config, name) for name, _, _ in chosen}
    tails = sum(settings[name].up + settings[name].down for name, stat, _ in chosen if stat.watched)
    result = []
    for name, stat, span in chosen:
        spot = over(settings[name], span)
        windows_per_day = DAY_NS / (config.analyzer.period_ns * span)
        q = spot.q or config.analyzer.false_alarms_per_day / (windows_per_day * (tails or 1))
        if span > 1 and stat.margin and not spot.q:
            q = max(q, FEW_REACH / spot.n_init)
        try:
            detector = _spot(spot, q, stat, span) if stat.watched and (spot.up or spot.down) else None
        except ValueError as error:  # it begins with the option
            raise ConfigError(f"statistic {name}, its detector: {error}") from None
        result.append(
            Watch(
                name,
                stat,
                span,
                detector,
                alert=spot.alert,
                clear_after=max(1, config.analyzer.clear_after // span),
                relearn_after=spot.relearn_after and max(SPAN_RELEARNS, spot.relearn_after // span) if span > 1 else 0,
                period_ns=config.analyzer.period_ns,
                meaning=_meaning(config, stat),
            )
        )
    return result


def _meaning(config: Config, stat: Stat) -> str:
    """The text of a statistic of the configuration's own, and of its own counters that the statistic needs."""
    given = config.stats.get(stat.name, {})
    own = [f"{name} = {config.counters[name]}" for name in stat.needs if name in config.counters]
    return "; ".join([*(f"{given[key]}" for key in ("value", "transform") if given.get(key)), *own])


def settings_of(config: Config, name: str) -> SpotConfig:
    """The section of the statistic over its span, else of the statistic, else the common one."""
    return config.spot_stats.get(name) or config.spot_stats.get(name.partition("@")[0]) or config.spot


def over(spot: SpotConfig, span: int) -> SpotConfig:
    """The settings for windows of ``span`` periods: times stay, so numbers of windows shrink.

    Fewer windows to learn from need a lower level, for a tail of ``TAIL`` values.
    """
    if span == 1:
        return spot
    n_init = max(SPAN_LEARNS, spot.n_init // span)
    share = max(1 - spot.level, min(0.3, TAIL / n_init))
    return replace(spot, n_init=n_init, level=1 - share, depth=spot.depth // span)


def _spot(config: SpotConfig, q: float, stat: Stat, span: int) -> Spot:
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
        range=_log_range(low, high) if stat.log else (low, high),
        # A minute that alarms is no chance; behind the floor it is the record that learns of it, slowly.
        learn="discard" if span > 1 and stat.margin else "isolated",
        # So few windows fill the tail of a longer span that this rule takes an uneven hour for a change: see Watch.
        relearn_after=config.relearn_after if span == 1 else 0,
    )


def _log_range(low: float, high: float) -> tuple[float, float]:
    """The range of log(1 + value). Raises ValueError."""
    if not -1 < low < high:
        raise ValueError(f"range = [{low:g}, {high:g}]: {LOG_RANGE}")
    return math.log1p(low), math.log1p(high)
