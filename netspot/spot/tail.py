"""One tail of a stream: its excess threshold, the excesses in memory, the law they follow and the alarm threshold."""

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspot.spot import gpd, published
from netspot.spot.quantile import RULES

# A shape fitted to twenty excesses is mostly noise, and extrapolated noise makes thresholds wrong by a factor: the fit
# counts as if twenty more excesses had spoken for the shape 0.1. It is a little above the exponential law's 0, for a
# threshold is passed too often rather than too seldom when its law is uncertain.
PRIOR_EXCESSES, PRIOR_GAMMA = 20, 0.1
GAMMA_MIN, GAMMA_MAX = -3.0, 1.0
# An alarm is learnt as a value passed so many times less often than the threshold, at most.
FEW = 8  # excesses; below it z reaches this many times the largest of them at most:
FEW_REACH = 1.25
LEARN_CAP = 10
# The law is fitted anew once this share of the memory has changed; z follows N_t and n at every value above t.
REFIT_SHARE = 0.01
# A threshold that is only shown may be as old as this growth of n.
SHOWN_GROWTH = 0.01
PROBABILITY_MIN = sys.float_info.min
HUGE = sys.float_info.max / 4


class TailOptions(NamedTuple):
    """What a tail is told once: see `netspot.spot.Spot` for the meaning and the unit of each."""

    q: float
    level: float
    max_excess: int
    bounded: bool
    estimator: str
    quantile: str
    published: bool


class Tail:
    """The upper tail of a stream; the lower tail is the upper tail of the negated stream.

    Values and thresholds are in the unit of the stream (after drift removal), excesses are value - t > 0. Methods
    take `n`, the detector's count of values; `n_before` of them do not count for this tail.
    """

    __slots__ = (
        "excesses",
        "head",
        "last_alarm",
        "law",
        "n_before",
        "n_t",
        "options",
        "refreshed",
        "size",
        "stale",
        "t",
        "z",
    )

    def __init__(self, options: TailOptions) -> None:
        self.options = options
        self.t = self.z = math.inf
        self.law = gpd.Law(0.0, 0.0)
        self.n_t = 0
        self.n_before = 0.0
        self.excesses = np.zeros(options.max_excess, np.float64)
        self.size = self.head = self.stale = 0
        self.refreshed = -1
        self.last_alarm = 0.0

    def calibrate(self, values: NDArray[np.float64], bound: float, mirrored: bool) -> None:
        """Set t, the excesses, the law and z from the values seen while learning; `mirrored` if they are negated."""
        rule, level = RULES[self.options.quantile], self.options.level
        if mirrored and self.options.published:
            # P2 is not symmetric: the package looks for the low quantile of the values as they came.
            self.t = -rule(-values, 1 - level)
        else:
            self.t = rule(values, level)
        excesses = (values[values > self.t] - self.t).tolist()
        for y in excesses:
            self._push(y)
        self.n_t = len(excesses)
        self.fit()
        self.refresh(len(values), bound)

    def learn(self, excesses: Iterable[float], n: int) -> None:
        """Take `excesses` into memory."""
        for y in excesses:
            self._push(y)
            self.n_t += 1
            if not self.options.published:
                self._forget(n)
        self.refreshed = -1
        if self.stale >= REFIT_SHARE * self.size or self.options.published:
            self.fit()

    def capped(self, value: float) -> float:
        """Excess of an alarm as it is learnt.

        No more than what is passed ten times less often than z, so that one wild value does not move the law far (a
        fixed multiple of z - t would cut heavy tails short); but what comes a second time is not wild. Where the tail
        has no scale yet, the first alarm is 0: not learnt.
        """
        excess, limit = value - self.t, self.z - self.t
        if limit <= 0:
            before, self.last_alarm = self.last_alarm, excess
            return min(excess, before)
        p = gpd.survival(self.law, limit) / LEARN_CAP
        if p > 0:
            limit = max(limit, gpd.quantile(self.law, p))
        before, self.last_alarm = self.last_alarm, excess
        return min(excess, max(limit, before))

    def _push(self, y: float) -> None:
        """Append to the ring; the oldest excess gives way, or the ring grows where it is not bounded."""
        if self.head == len(self.excesses):
            if self.options.bounded:
                self.head = 0
            else:
                self.excesses = np.concatenate([self.excesses, np.zeros_like(self.excesses)])
        self.excesses[self.head] = y
        self.head += 1
        self.size = max(self.size, self.head)
        self.stale += 1

    def _forget(self, n: int) -> None:
        """Let N_t / n describe the same past as the excesses in memory: both forget at the pace of the ring."""
        if self.n_t > self.size:
            seen = (n - self.n_before) * self.size / self.n_t
            self.n_before = n - seen
            self.n_t = self.size

    def fit(self) -> None:
        """Fit the law to the excesses in memory."""
        self.stale = 0
        excesses = self.excesses[: self.size]
        if self.size == 0:
            self.law = gpd.Law(0.0, 0.0)
        elif self.options.published:
            self.law = published.likeliest(excesses)
        else:
            self.law = shrunk(gpd.ESTIMATORS[self.options.estimator](excesses), self.size)

    def refresh(self, n: int, bound: float) -> None:
        """Compute z for a stream that cannot pass `bound`.

        z = t + quantile(q n / N_t) under the law cut off at `bound`, or the excess that no more of those in memory
        pass than q n and one, if that is larger; never below t.
        """
        self.refreshed = n
        if self.n_t == 0:
            self.z = self.t
            return
        if self.options.published:
            excess = published.quantile(self.law, self.options.q / (self.n_t / n))
            self.z = max(min(self.t + excess, HUGE), -HUGE)
            return
        p = self.options.q * (n - self.n_before) / self.n_t
        room = max(bound - self.t, 0.0)
        limit = self._seen_limit(p * self.size)
        if self.law.gamma > -1:
            # Below -1 values pile up at their end: there the bound is where they are, not where they thin out.
            p += (1 - p) * gpd.survival(self.law, room)
        if p < 1:
            limit = max(limit, gpd.quantile(self.law, p))
        if self.size < FEW:  # no law follows from so few: a single wild one would promise anything
            limit = min(limit, FEW_REACH * float(self.excesses[: self.size].max()))
        self.z = self.t + min(limit, room, HUGE)

    def refresh_shown(self, n: int, bound: float) -> None:
        """`refresh` where it would be seen: a threshold is shown far more often than it changes."""
        if self.refreshed < 0 or abs(n - self.refreshed) > SHOWN_GROWTH * self.refreshed:
            self.refresh(n, bound)

    def _seen_limit(self, expected: float) -> float:
        """Largest excess but the `expected` number and one: the law must not promise what the memory belies.

        Matters where no law of this family fits: ties, integers, values that pile up at a bound.
        """
        passing = int(expected) + 1
        if passing >= self.size:
            return 0.0
        k = self.size - 1 - passing
        return float(np.partition(self.excesses[: self.size], k)[k])

    def probability(self, value: float, n: int, bound: float) -> float:
        """Probability of a value above `value`, in ]0, 1] [1].

        N_t / n * survival(value - t) under the law cut off at `bound`. Beyond the law's end it is the smallest normal
        number, a bound rather than an estimate; without any excess in memory it is 1 / n.
        """
        share = max(self.n_t, 1) / max(n - self.n_before, 1.0)
        if self.n_t:
            beyond = gpd.survival(self.law, bound - self.t) if self.law.gamma > -1 else 0.0
            tail = gpd.survival(self.law, value - self.t) - beyond
            share = share * tail / (1 - beyond) if beyond < 1 else 0.0
        return min(max(share, PROBABILITY_MIN), 1.0)

    def state(self) -> dict[str, Any]:
        """All that was learnt, for `restore`."""
        return {
            "t": _number(self.t),
            "z": _number(self.z),
            "gamma": self.law.gamma,
            "sigma": self.law.sigma,
            "n_t": self.n_t,
            "n_before": self.n_before,
            "head": self.head,
            "stale": self.stale,
            "refreshed": self.refreshed,
            "last_alarm": self.last_alarm,
            "excesses": self.excesses[: self.size].copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; ValueError if it cannot be that."""
        excesses = np.asarray(state["excesses"], np.float64)
        self.size = len(excesses)
        if self.options.bounded and self.size > len(self.excesses):
            raise ValueError(f"{self.size} excesses in memory, but max_excess = {len(self.excesses)}")
        while self.size > len(self.excesses):
            self.excesses = np.concatenate([self.excesses, np.zeros_like(self.excesses)])
        self.excesses[: self.size] = excesses
        self.t = math.inf if state["t"] is None else float(state["t"])
        self.z = math.inf if state["z"] is None else float(state["z"])
        self.law = gpd.Law(float(state["gamma"]), float(state["sigma"]))
        self.n_t, self.n_before = int(state["n_t"]), float(state["n_before"])
        self.head, self.stale, self.refreshed = int(state["head"]), int(state["stale"]), int(state["refreshed"])
        self.last_alarm = float(state["last_alarm"])
        if not 0 <= self.head <= self.size or self.n_t < self.size:
            raise ValueError(f"{self.size} excesses in memory of {self.n_t}, the last at {self.head}")


def shrunk(law: gpd.Law, count: int) -> gpd.Law:
    """`law` fitted to `count` excesses, with its shape kept in bounds and drawn to the prior; its mean stays.

    gamma' = (gamma N + 0.1 * 20) / (N + 20), sigma' = sigma (1 - gamma') / (1 - gamma), as sigma / (1 - gamma) is the
    mean excess.

    Examples
    --------
    >>> shrunk(gpd.Law(-1.0, 2.0), 20)
    Law(gamma=-0.45, sigma=1.45)
    """
    gamma = min(max(law.gamma, GAMMA_MIN), GAMMA_MAX)
    gamma = (gamma * count + PRIOR_GAMMA * PRIOR_EXCESSES) / (count + PRIOR_EXCESSES)
    # From gamma = 1 on a law has no mean to keep.
    sigma = law.sigma * (1 - gamma) / (1 - law.gamma) if law.gamma < 1 else law.sigma
    return gpd.Law(gamma, sigma)


def _number(value: float) -> float | None:
    """None for the infinity of a tail that has learnt nothing: JSON has none."""
    return value if math.isfinite(value) else None
