"""One tail of a stream: its excess threshold, the excesses in memory, the law they follow and the alarm threshold."""

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspot.spot import gpd
from netspot.spot.quantile import RULES

# As many excesses of an exponential tail are believed to have been seen before the first real one: a shape fitted on
# twenty excesses is mostly noise, and that noise, extrapolated, is what makes thresholds wrong by a factor.
PRIOR_EXCESSES = 10
GAMMA_MIN, GAMMA_MAX = -3.0, 1.0
# An alarm is learnt as a value passed so many times less often than the threshold, at most.
LEARN_CAP = 10
# The law is fitted anew once this share of the memory has changed; z follows N_t and n at every value above t.
REFIT_SHARE = 0.01
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

    Values and thresholds are in the unit of the stream (after drift removal), excesses are value - t > 0.
    `n_before` is subtracted from the detector's count of values to give this tail's n.
    """

    __slots__ = ("excesses", "head", "last_alarm", "law", "n_before", "n_t", "options", "size", "stale", "t", "z")

    def __init__(self, options: TailOptions) -> None:
        self.options = options
        self.t = math.inf
        self.z = math.inf
        self.law = gpd.Law(0.0, 0.0)
        self.n_t = 0
        self.n_before = 0.0
        self.excesses = np.zeros(options.max_excess, np.float64)
        self.size = self.head = self.stale = 0
        self.last_alarm = 0.0

    def calibrate(self, values: NDArray[np.float64], bound: float, mirrored: bool) -> None:
        """Set t, the excesses, the law and z from the values seen while learning; `mirrored` if they are negated."""
        rule, level = RULES[self.options.quantile], self.options.level
        if mirrored and self.options.published:
            # P2 is not symmetric: the package looks for the low quantile of the values as they came.
            self.t = -rule(-values, 1 - level)
        else:
            self.t = rule(values, level)
        above = values[values > self.t]
        for y in (above - self.t).tolist():
            self._push(y)
        self.n_t = len(above)
        self.n_before = 0.0
        self.fit()
        self.refresh(len(values), bound)

    def capped(self, value: float) -> float:
        """Excess of an alarm as it is learnt: no more than what is passed ten times less often than z.

        One wild value must not move the law far; a fixed multiple of z - t would cut heavy tails short.
        """
        excess, limit = value - self.t, self.z - self.t
        if limit <= 0:
            # Hardly anything is known of this tail yet: there is no scale to cap by.
            return excess
        p = gpd.survival(self.law, limit) / LEARN_CAP
        if p > 0:
            limit = max(limit, gpd.quantile(self.law, p))
        before, self.last_alarm = self.last_alarm, excess
        return min(excess, max(limit, before))

    def learn(self, excesses: Iterable[float], n: float) -> None:
        """Take `excesses` into memory; `n` is the detector's count of values now."""
        for y in excesses:
            self._push(y)
            self.n_t += 1
            self._forget(n)
        if self.stale >= REFIT_SHARE * self.size or self.options.published:
            self.fit()

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

    def _forget(self, n: float) -> None:
        """Let N_t / n describe the same past as the excesses in memory: both forget at the pace of the ring."""
        if self.n_t > self.size and not self.options.published:
            seen = (n - self.n_before) * self.size / self.n_t
            self.n_before = n - seen
            self.n_t = self.size

    def fit(self) -> None:
        """Fit the law to the excesses in memory."""
        self.stale = 0
        excesses = self.excesses[: self.size]
        if self.size == 0:
            self.law = gpd.Law(0.0, 0.0)
            return
        if self.options.published:
            self.law = gpd.likeliest_published(excesses)
        else:
            self.law = shrunk(gpd.ESTIMATORS[self.options.estimator](excesses), self.size)

    def refresh(self, n: float, bound: float) -> None:
        """Compute z for `n` values seen and a stream that cannot pass `bound`.

        z = t + quantile(q n / N_t) under the fitted law cut off at `bound`, or the excess in memory that q n - 1
        others pass if that is larger; never below t.
        """
        seen = n - self.n_before
        if self.options.published:
            self.z = self.t + gpd.quantile(self.law, self.options.q * seen / self.n_t)
            return
        if self.n_t == 0:
            self.z = self.t
            return
        room = max(bound - self.t, 0.0)
        p = self.options.q * seen / self.n_t
        limit = self._seen_limit(p * self.size)
        if self.law.gamma > -1:
            # Below -1 the values pile up at their end: there a bound is where they are, not where they thin out.
            p += (1 - p) * gpd.survival(self.law, room)
        if p < 1:
            limit = max(limit, gpd.quantile(self.law, p))
        self.z = self.t + min(limit, room, HUGE)

    def _seen_limit(self, expected: float) -> float:
        """Largest excess but the `expected` number and one: the law must not promise what the memory belies.

        Matters where no law of this family fits: ties, integers, values that pile up at a bound.
        """
        passing = int(expected) + 1
        if passing >= self.size:
            return 0.0
        k = self.size - 1 - passing
        return float(np.partition(self.excesses[: self.size], k)[k])

    def probability(self, value: float, n: float, bound: float) -> float:
        """Probability of a value above `value`, in ]0, 1].

        N_t / n * survival(value - t), cut off at `bound`. Beyond the law's end it is the smallest normal number, a
        bound rather than an estimate.
        """
        beyond = gpd.survival(self.law, bound - self.t)
        share = max(self.n_t, 1) / max(n - self.n_before, 1.0)
        tail = (gpd.survival(self.law, value - self.t) - beyond) / (1 - beyond) if beyond < 1 else 0.0
        if self.n_t == 0:
            tail = 1.0
        return min(max(share * tail, PROBABILITY_MIN), 1.0)

    def state(self) -> dict[str, Any]:
        """Everything that was learnt."""
        return {
            "t": self.t,
            "z": self.z,
            "gamma": self.law.gamma,
            "sigma": self.law.sigma,
            "n_t": self.n_t,
            "n_before": self.n_before,
            "head": self.head,
            "stale": self.stale,
            "last_alarm": self.last_alarm,
            "excesses": self.excesses[: self.size].copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        excesses = np.asarray(state["excesses"], np.float64)
        if self.options.bounded and len(excesses) > len(self.excesses):
            raise ValueError(f"{len(excesses)} excesses in memory, but max_excess = {len(self.excesses)}")
        while len(excesses) > len(self.excesses):
            self.excesses = np.concatenate([self.excesses, np.zeros_like(self.excesses)])
        self.size = len(excesses)
        self.excesses[: self.size] = excesses
        self.t, self.z = float(state["t"]), float(state["z"])
        self.law = gpd.Law(float(state["gamma"]), float(state["sigma"]))
        self.n_t, self.n_before = int(state["n_t"]), float(state["n_before"])
        self.head, self.stale = int(state["head"]), int(state["stale"])
        self.last_alarm = float(state["last_alarm"])


def shrunk(law: gpd.Law, count: int) -> gpd.Law:
    """`law` with its shape drawn towards 0 as if by `PRIOR_EXCESSES` more, and kept in bounds; its mean stays.

    gamma' = gamma N / (N + 10), sigma' = sigma (1 - gamma') / (1 - gamma): sigma / (1 - gamma) is the mean excess.
    """
    gamma = min(max(law.gamma, GAMMA_MIN), GAMMA_MAX) * count / (count + PRIOR_EXCESSES)
    gamma += 1 / (count + PRIOR_EXCESSES)
    if law.gamma >= 1:
        # Such a law has no mean to keep.
        return gpd.Law(gamma, law.sigma)
    return gpd.Law(gamma, law.sigma * (1 - gamma) / (1 - law.gamma))
