"""The detector: gives each value of a stream its verdict, and learns from it."""

import math
from array import array
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from netspot.spot.drift import Drift
from netspot.spot.gpd import ESTIMATORS
from netspot.spot.quantile import RULES
from netspot.spot.tail import Tail, TailOptions

Kind = Literal["learning", "normal", "excess", "alarm", "skipped"]
Side = Literal["up", "down"]

# Alarms at most so many values apart belong to one incident. An alarm alone is the rare value that any stream has and
# belongs to its tail; several together are something that happens to the stream, and must not be learnt.
INCIDENT_GAP = 20
# The stream has left t behind where so many times more values pass it than should, or half of them if that is less.
OUTGROWN = 10
# While learning anew, a value out of the old normal range outweighs so many that are back in it.
AWAY_STEP = 4
# Beyond this, differences and sums of values could overflow; nothing that is measured is that large.
VALUE_MAX = 1e300
STATE_VERSION = 1


class Verdict(NamedTuple):
    """What the detector says of one value.

    Parameters
    ----------
    kind : str
        ``learning``; ``normal``; ``excess``, in the tail but no alarm; ``alarm``; ``skipped``, not a finite number.
    side : str or None
        ``up`` or ``down`` for an excess or an alarm.
    threshold : float or None
        The alarm threshold that was passed, in the unit of the input; None unless an alarm.
    probability : float or None
        Probability of a value at least as extreme on that side, in ]0, 1]; None unless an alarm [1].
    relearning : bool
        True once, at the value with which the detector gives up its past and begins to learn anew.

    Examples
    --------
    >>> Verdict("alarm", "up", 3.5, 2e-5)
    Verdict(kind='alarm', side='up', threshold=3.5, probability=2e-05, relearning=False)
    """

    kind: Kind
    side: Side | None = None
    threshold: float | None = None
    probability: float | None = None
    relearning: bool = False


LEARNING = Verdict("learning")
NORMAL = Verdict("normal")
SKIPPED = Verdict("skipped")
EXCESS: dict[Side, Verdict] = {"up": Verdict("excess", "up"), "down": Verdict("excess", "down")}


class Past(NamedTuple):
    """What was learnt before a change of regime, until the new regime is learnt."""

    up: Tail | None
    down: Tail | None
    drift: Drift | None
    n: int


class Spot:
    """Alarms on a stream of numbers, at a rate that is chosen beforehand.

    Parameters
    ----------
    q : float
        Probability of an alarm, for each tail and each value of a stream that has not changed; in ]0, 1 - level[ [1].
    n_init : int
        Values to learn from before the first verdict; at least 10.
    level : float
        Share of the values below the excess threshold t, in ]0, 1[ [1].
    up, down : bool
        Watch for values that are too high, too low; at least one of them.
    depth : int
        Subtract the mean of so many normal values before, 0 for none: for a stream whose level drifts.
    max_excess : int
        Excesses in memory for each tail, at least 10. More make z steadier, fewer let it follow sooner.
    bounded : bool
        False keeps every excess: memory and the cost of a fit then grow without end.
    range : (float, float)
        Least and greatest value the stream can take, in its unit; infinite where unknown.
    estimator : str
        Fit of the tail: ``zhang-stephens``, ``moments``, ``grimshaw``, ``likeliest`` (of the last two).
    quantile : str
        Rule for t: ``exact``, ``p2``.
    learn : str
        What alarms teach: ``discard``, nothing (as published: the rate then drifts above q, as every alarm cuts the
        tail a little shorter); ``isolated``, an alarm without another within 20 values is learnt, capped.
    relearn_after : int
        Learn anew once so many alarms have come at most 20 values apart, or once far more values than should have
        been above t for about n_init values; 0 for never.
    compat : str or None
        ``libspot`` reproduces the package libspot 3.1.0, faults included; it overrides `range`, `estimator`,
        `quantile`, `learn` and `relearn_after`.

    Attributes
    ----------
    skipped : int
        Values that were NaN, infinite or beyond 1e300 in size: judged ``skipped``, otherwise ignored.

    Raises
    ------
    ValueError
        With the parameter, its value and the accepted range.

    Notes
    -----
    The first n_init values give t, the smallest of them with at least the share `level` at or below it. Excesses
    y = x - t > 0 follow a generalised Pareto law (gamma, sigma), fitted to the last `max_excess` of them. With N_t
    excesses among n values, the alarm threshold is

        z = t + sigma / gamma ((q n / N_t)^-gamma - 1), or t - sigma ln(q n / N_t) as gamma -> 0,

    cut off at `range`, at least t. The lower tail is the upper tail of -x; with `depth`, x stands for what remains
    after drift removal. Source: Siffer, Fouque, Termier and Largouet, "Anomaly Detection in Streams with Extreme Value
    Theory", KDD 2017 (SPOT; BiSPOT with both tails, DSPOT with `depth`). Where this class departs from the paper to
    keep its rate is told in docs/detector.md.

    A tail takes 8 * max_excess bytes, learning 8 * (n_init + depth), drift removal 8 * depth, all else about 2 KiB:
    10 KiB with the defaults. While a new regime is being learnt the old one is kept beside it.

    Not safe to share between threads.

    Examples
    --------
    >>> spot = Spot(q=1e-3, n_init=100, range=(0, 1))
    >>> {spot.update((i * 37 % 100) / 200).kind for i in range(100)}
    {'learning'}
    >>> verdict = spot.update(0.9)
    >>> verdict.kind, verdict.side, 0.49 < verdict.threshold < 0.9, 0 < verdict.probability < 1e-3
    ('alarm', 'up', True, True)
    >>> spot.update(float("nan")), spot.skipped
    (Verdict(kind='skipped', side=None, threshold=None, probability=None, relearning=False), 1)
    """

    __slots__ = (
        "_alarms",
        "_back",
        "_calm",
        "_calm_step",
        "_ceiling",
        "_counted",
        "_down",
        "_drift",
        "_floor",
        "_held",
        "_high",
        "_incident",
        "_isolated",
        "_learning",
        "_mean",
        "_n",
        "_parameters",
        "_past",
        "_up",
        "_waiting",
        "skipped",
    )
    _up: Tail | None
    _down: Tail | None
    _drift: Drift | None
    _mean: float  # what drift removal subtracts from the next value
    _n: int  # values that count, since learning began
    _learning: "array[float] | None"  # what it learns from; None when it watches
    _past: Past | None
    _back: int  # values, while learning anew, that the old normal range would have held
    _high: float  # steps towards learning anew: values above t outweighing the others
    _counted: int  # n when the step towards learning anew was last computed
    _calm: int  # values since the last alarm, up to INCIDENT_GAP
    _alarms: int  # alarms of the open or last incident
    _incident: bool  # whether the open alarm is not alone
    _held: int  # values since the open alarm: they count if it stays alone
    _waiting: list[tuple[Side, float]]  # excesses since the open alarm: they are learnt if it stays alone

    def __init__(
        self,
        *,
        q: float = 1e-4,
        n_init: int = 1000,
        level: float = 0.98,
        up: bool = True,
        down: bool = False,
        depth: int = 0,
        max_excess: int = 1000,
        bounded: bool = True,
        range: tuple[float, float] = (-math.inf, math.inf),
        estimator: str = "zhang-stephens",
        quantile: str = "exact",
        learn: str = "isolated",
        relearn_after: int = 120,
        compat: str | None = None,
    ) -> None:
        if compat == "libspot":
            range, estimator, quantile = (-math.inf, math.inf), "likeliest", "p2"
            learn, relearn_after = "discard", 0
        low, high = range
        self._parameters: dict[str, Any] = {
            "q": float(q),
            "n_init": int(n_init),
            "level": float(level),
            "up": bool(up),
            "down": bool(down),
            "depth": int(depth),
            "max_excess": int(max_excess),
            "bounded": bool(bounded),
            "range": [_finite(low), _finite(high)],
            "estimator": estimator,
            "quantile": quantile,
            "learn": learn,
            "relearn_after": int(relearn_after),
            "compat": compat,
        }
        _check(self._parameters)
        self._isolated = learn == "isolated"
        self._calm_step = _calm_step((up + down) * (1 - level))
        self.skipped = 0
        self.relearn()

    @property
    def parameters(self) -> dict[str, Any]:
        """What it was built with, JSON-able (None for an infinite end of the range): a fingerprint to compare."""
        return {**self._parameters, "range": list(self._parameters["range"])}

    @property
    def up(self) -> float | None:
        """Upper alarm threshold now, in the unit of the input; None while learning or without an upper tail."""
        return None if self._up is None or self._learning is not None else self._shown(self._up, 1)

    @property
    def up_excess(self) -> float | None:
        """Where the upper tail begins now (t), in the unit of the input; None while learning or without one."""
        return None if self._up is None or self._learning is not None else self._up.t + self._mean

    @property
    def down(self) -> float | None:
        """Lower alarm threshold now, in the unit of the input; None while learning or without a lower tail."""
        return None if self._down is None or self._learning is not None else self._shown(self._down, -1)

    @property
    def learned(self) -> int:
        """Values seen of those `needed` before the first verdict; all of them when it watches."""
        return self.needed if self._learning is None else len(self._learning)

    @property
    def needed(self) -> int:
        """Values it learns from before it watches: depth + n_init."""
        return int(self._parameters["depth"] + self._parameters["n_init"])

    def relearn(self) -> None:
        """Forget everything and learn from the values to come."""
        self._past = None
        self._learn_anew()

    def update(self, value: float) -> Verdict:
        """Judge `value`, then learn from it.

        Parameters
        ----------
        value : float
            The next value of the stream. One that is not a finite number is skipped and counted in `skipped`.

        Returns
        -------
        Verdict
            ``alarm`` beyond the threshold as it was before this value.

        Examples
        --------
        >>> Spot().update(1.5).kind
        'learning'
        """
        x = float(value)
        residual = x - self._mean
        if self._floor <= residual <= self._ceiling:
            # The path of nearly all values: keep it short.
            self._n += 1
            if self._drift is not None:
                self._mean = self._drift.push(x)
            return NORMAL
        if not -VALUE_MAX <= x <= VALUE_MAX:
            self.skipped += 1
            return SKIPPED
        if self._learning is not None:
            return self._learn(x, self._learning)
        return self._watch(x, residual)

    def _learn(self, x: float, learning: "array[float]") -> Verdict:
        if self._past is not None and self._returned(x, self._past):
            self._resume(self._past)
            return NORMAL
        learning.append(x)
        if len(learning) == self.needed:
            self._calibrate(np.array(learning, np.float64))
        return LEARNING

    def _calibrate(self, values: "np.ndarray[Any, np.dtype[np.float64]]") -> None:
        if self._drift is not None:
            values = self._drift.remove(values)
            self._mean = self._drift.mean
        self._n = self._counted = len(values)
        if self._up is not None:
            self._up.calibrate(values, self._bound(1), mirrored=False)
        if self._down is not None:
            self._down.calibrate(-values, self._bound(-1), mirrored=True)
        self._learning = self._past = None
        self._open()

    def _watch(self, x: float, residual: float) -> Verdict:
        """Every value but the plainly normal ones, once it has learnt."""
        if self._n > self._counted:
            self._high = max(self._high - self._calm_step * (self._n - self._counted), 0.0)
        verdict = NORMAL
        if self._up is not None and residual > self._up.t:
            verdict = self._beyond(self._up, residual, "up")
        elif self._down is not None and -residual > self._down.t:
            verdict = self._beyond(self._down, -residual, "down")
        self._high = self._high + 1 if verdict.kind != "normal" else max(self._high - self._calm_step, 0.0)
        if verdict.kind != "alarm":
            if self._drift is not None:
                self._mean = self._drift.push(x)
            self._pass()
        self._counted = self._n
        return self._change(verdict)

    def _beyond(self, tail: Tail, value: float, side: Side) -> Verdict:
        """A value above t: an alarm, or an excess to learn. `value` has the sign of the tail."""
        sign = 1 if side == "up" else -1
        bound = self._bound(sign)
        if not tail.options.published:
            tail.refresh(self._n, bound)
        if value > tail.z:
            self._alarm(side, value, tail)
            return Verdict("alarm", side, sign * tail.z + self._mean, tail.probability(value, self._n, bound))
        if self._calm < INCIDENT_GAP and self._isolated:
            self._waiting.append((side, value - tail.t))
            return EXCESS[side]
        tail.learn([value - tail.t], self._n + 1)
        if tail.options.published:
            tail.refresh(self._n + 1, bound)
        return EXCESS[side]

    def _alarm(self, side: Side, value: float, tail: Tail) -> None:
        if self._calm < INCIDENT_GAP:
            self._incident = True
            self._waiting.clear()
        else:
            self._alarms = 0
            capped = tail.capped(value)
            self._waiting = [(side, capped)] if capped > 0 else []
        self._alarms += 1
        self._calm = 0
        self._held += self._isolated
        self._close()

    def _pass(self) -> None:
        """Count a value that raised no alarm; the gap after an alarm ends when it is long enough."""
        if self._calm >= INCIDENT_GAP:
            self._n += 1
            return
        self._calm += 1
        if self._isolated:
            self._held += 1
        else:
            self._n += 1
        if self._calm == INCIDENT_GAP:
            self._settle()

    def _settle(self) -> None:
        """The alarm is over: learn it and what came after if it was alone, forget all that if it was an incident."""
        if self._isolated and not self._incident:
            self._n += self._held
            for side, tail in (("up", self._up), ("down", self._down)):
                excesses = [y for s, y in self._waiting if s == side]
                if tail is not None and excesses:
                    tail.learn(excesses, self._n)
        self._waiting.clear()
        self._held = 0
        self._incident = False
        self._open()

    def _change(self, verdict: Verdict) -> Verdict:
        """Begin to learn anew when the stream has left what was learnt for good."""
        after, n_init = self._parameters["relearn_after"], self._parameters["n_init"]
        long_incident = verdict.kind == "alarm" and self._alarms >= after
        outgrown = self._high >= n_init and self._calm_step < math.inf
        if not after or not (long_incident or outgrown):
            return verdict
        self._past = Past(self._up, self._down, self._drift, self._n)
        self._learn_anew()
        return verdict._replace(relearning=True)

    def _learn_anew(self) -> None:
        p = self._parameters
        published = p["compat"] == "libspot"
        options = TailOptions(
            p["q"], p["level"], p["max_excess"], p["bounded"], p["estimator"], p["quantile"], published
        )
        self._up = Tail(options) if p["up"] else None
        self._down = Tail(options) if p["down"] else None
        self._drift = Drift(p["depth"]) if p["depth"] else None
        self._mean = self._high = 0.0
        self._learning = array("d")
        self._n = self._counted = self._back = 0
        self._quiet()
        self._close()

    def _returned(self, x: float, past: Past) -> bool:
        """Whether the stream has gone back to what was normal before the change, which then was but an episode."""
        residual = x - (past.drift.mean if past.drift is not None else 0.0)
        away = (past.up is not None and residual > past.up.t) or (past.down is not None and -residual > past.down.t)
        self._back = max(self._back - AWAY_STEP, 0) if away else self._back + 1
        return self._back >= int(self._parameters["relearn_after"])

    def _resume(self, past: Past) -> None:
        self._up, self._down, self._drift, self._n = past
        self._counted = self._n
        self._mean = 0.0 if self._drift is None else self._drift.mean
        self._learning = self._past = None
        self._high = 0.0
        self._quiet()
        self._open()

    def _quiet(self) -> None:
        """No alarm is open."""
        self._waiting = []
        self._calm = INCIDENT_GAP
        self._held = self._alarms = 0
        self._incident = False

    def _open(self) -> None:
        """Let plainly normal values take the short path."""
        self._ceiling = VALUE_MAX if self._up is None else self._up.t
        self._floor = -VALUE_MAX if self._down is None else -self._down.t

    def _close(self) -> None:
        """Let every value take the long path."""
        self._floor, self._ceiling = math.inf, -math.inf

    def _bound(self, sign: int) -> float:
        """End of the range on the side of `sign`, as a value of that tail."""
        end = self._parameters["range"][0 if sign < 0 else 1]
        return math.inf if end is None else float(sign * (end - self._mean))

    def _shown(self, tail: Tail, sign: int) -> float:
        bound = self._bound(sign)
        if not tail.options.published:
            tail.refresh_shown(self._n, bound)
        # Next to an end of the range even t, which follows the drift, may lie beyond it.
        return sign * min(tail.z, bound) + self._mean

    def state(self) -> dict[str, Any]:
        """All it knows, for `restore`: a mapping of JSON-able values and float64 arrays.

        Examples
        --------
        >>> spot = Spot(n_init=10)
        >>> spot.update(1.0).kind, Spot.restore(spot.state()).learned
        ('learning', 1)
        """
        past = None
        if self._past is not None:
            past = {"n": self._past.n, **_states(self._past.up, self._past.down, self._past.drift)}
        return {
            "version": STATE_VERSION,
            "parameters": self.parameters,
            "skipped": self.skipped,
            "n": self._n,
            "counted": self._counted,
            "high": self._high,
            "back": self._back,
            "calm": self._calm,
            "held": self._held,
            "alarms": self._alarms,
            "incident": self._incident,
            "waiting": [[side, y] for side, y in self._waiting],
            "learning": None if self._learning is None else np.array(self._learning, np.float64),
            "past": past,
            **_states(self._up, self._down, self._drift),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Spot":
        """Build the detector that gave `state`: its next verdicts are those it would have given.

        Parameters
        ----------
        state : mapping
            What `state` gave; arrays may have become lists.

        Raises
        ------
        ValueError
            If it is not the state of a detector of this version.

        Examples
        --------
        >>> Spot.restore({"version": 0})
        Traceback (most recent call last):
        ValueError: state of a detector of version 0: only 1 is known
        """
        try:
            if state["version"] != STATE_VERSION:
                raise ValueError(f"state of a detector of version {state['version']!r}: only {STATE_VERSION} is known")
            low, high = state["parameters"]["range"]
            ends = (-math.inf if low is None else low, math.inf if high is None else high)
            spot = cls(**{**state["parameters"], "range": ends})
            spot._take(state)
        except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise ValueError(f"not the state of a detector: {error!r}") from error
        return spot

    def _take(self, state: Mapping[str, Any]) -> None:
        if state["past"] is not None:
            _restore(self._up, self._down, self._drift, state["past"])
            self._past = Past(self._up, self._down, self._drift, int(state["past"]["n"]))
            self._learn_anew()
        _restore(self._up, self._down, self._drift, state)
        self.skipped, self._n, self._counted = int(state["skipped"]), int(state["n"]), int(state["counted"])
        self._high, self._back = float(state["high"]), int(state["back"])
        self._calm, self._held = int(state["calm"]), int(state["held"])
        self._alarms, self._incident = int(state["alarms"]), bool(state["incident"])
        self._waiting = [("up" if side == "up" else "down", float(y)) for side, y in state["waiting"]]
        learning = state["learning"]
        self._learning = None if learning is None else array("d", np.asarray(learning, np.float64).tolist())
        if self._drift is not None:
            self._mean = self._drift.mean
        if self._learning is None and self._calm >= INCIDENT_GAP:
            self._open()


def _states(up: Tail | None, down: Tail | None, drift: Drift | None) -> dict[str, Any]:
    parts = {"up": up, "down": down, "drift": drift}
    return {name: None if part is None else part.state() for name, part in parts.items()}


def _restore(up: Tail | None, down: Tail | None, drift: Drift | None, state: Mapping[str, Any]) -> None:
    for name, part in (("up", up), ("down", down), ("drift", drift)):
        if part is not None:
            part.restore(state[name])


def _calm_step(share: float) -> float:
    """Steps back from learning anew for a value that is not above t, when each that is takes one step towards it.

    f / (1 - f) balances the steps where the share f of the values passes t; `share` should. Infinite where half of the
    values pass t anyway: that says nothing then.
    """
    f = min(OUTGROWN * share, (1 + share) / 2)
    return f / (1 - f) if share < 0.5 else math.inf


def _finite(end: float) -> float | None:
    """`end` of a range, None where there is none: JSON has no infinity."""
    return float(end) if math.isfinite(end) else None


def _check(p: Mapping[str, Any]) -> None:
    """Refuse parameters that cannot work, with the accepted range."""
    low, high = p["range"]
    for fits, key, accepted in (
        (0 < p["level"] < 1, "level", "must lie in ]0, 1["),
        (0 < p["q"] < 1 - p["level"], "q", f"must lie in ]0, {1 - p['level']:g}[ (1 - level)"),
        (p["n_init"] >= 10, "n_init", "must be at least 10"),
        (p["up"] or p["down"], "up", "up or down must be true"),
        (p["depth"] >= 0, "depth", "must not be negative"),
        (p["max_excess"] >= 10, "max_excess", "must be at least 10"),
        (low is None or high is None or low < high, "range", "must begin below its end"),
        (p["estimator"] in ESTIMATORS, "estimator", f"must be one of {', '.join(ESTIMATORS)}"),
        (p["quantile"] in RULES, "quantile", f"must be one of {', '.join(RULES)}"),
        (p["learn"] in ("discard", "isolated"), "learn", "must be one of discard, isolated"),
        (p["relearn_after"] >= 0, "relearn_after", "must not be negative"),
        (p["compat"] in (None, "libspot"), "compat", "must be None or libspot"),
    ):
        if not fits:
            raise ValueError(f"{key} = {p[key]!r}: {accepted}")
