"""The detector: gives each value of a stream its verdict, and learns from it."""

import math
from array import array
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from netspot.spot.tail import Tail, TailOptions

Kind = Literal["learning", "normal", "excess", "alarm", "skipped"]
Side = Literal["up", "down"]

# Alarms at most so many values apart belong to one incident. An alarm alone is the rare value that any stream has and
# belongs to its tail; several together are something that happens to the stream, and must not be learnt.
INCIDENT_GAP = 20
# Beyond this, differences and sums of values could overflow; nothing that is measured is that large.
VALUE_MAX = 1e300
STATE_VERSION = 1


class Verdict(NamedTuple):
    """What the detector says of one value.

    Parameters
    ----------
    kind : str
        ``learning``; ``normal``; ``excess``, in the tail but not alarming; ``alarm``; ``skipped``, NaN or infinite.
    side : str or None
        ``up`` or ``down`` for an excess or an alarm.
    threshold : float or None
        The alarm threshold that was passed, in the unit of the input; None unless an alarm.
    probability : float or None
        Probability of a value at least as extreme on that side, in ]0, 1]; None unless an alarm [1].
    relearning : bool
        True once, at the value with which the detector gives up its past and begins to learn anew.
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


class Spot:
    """Alarms on a stream of numbers at a rate that is chosen beforehand."""

    __slots__ = (
        "_alarms", "_calm", "_ceiling", "_down", "_drift", "_floor", "_held", "_incident", "_learning", "_mean", "_n",
        "_parameters", "_up", "_waiting", "skipped",
    )  # fmt: skip

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
            estimator, quantile, learn, relearn_after = "likeliest", "p2", "discard", 0
            range = (-math.inf, math.inf)
        self._parameters: dict[str, Any] = {
            "q": float(q), "n_init": int(n_init), "level": float(level), "up": bool(up), "down": bool(down),
            "depth": int(depth), "max_excess": int(max_excess), "bounded": bool(bounded),
            "range": [float(range[0]), float(range[1])], "estimator": estimator, "quantile": quantile, "learn": learn,
            "relearn_after": int(relearn_after), "compat": compat,
        }  # fmt: skip
        _check(self._parameters)
        self.skipped = 0
        self.relearn()

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters it was built with, JSON-able: two detectors with equal ones may share a learnt state."""
        return dict(self._parameters)

    @property
    def up(self) -> float | None:
        """Upper alarm threshold now, in the unit of the input; None while learning or without an upper tail."""
        return None if self._up is None or self._learning is not None else self._threshold(self._up, 1)

    @property
    def down(self) -> float | None:
        """Lower alarm threshold now, in the unit of the input; None while learning or without a lower tail."""
        return None if self._down is None or self._learning is not None else self._threshold(self._down, -1)

    @property
    def learned(self) -> int:
        """Values seen of those `needed` before the first alarm can be raised."""
        return self.needed if self._learning is None else len(self._learning)

    @property
    def needed(self) -> int:
        """Values it learns from before it watches: depth + n_init."""
        return int(self._parameters["depth"] + self._parameters["n_init"])

    def relearn(self) -> None:
        """Forget everything and learn from the values to come."""
        p = self._parameters
        options = TailOptions(
            p["q"], p["level"], p["max_excess"], p["bounded"], p["estimator"], p["quantile"], p["compat"] == "libspot"
        )
        self._up = Tail(options) if p["up"] else None
        self._down = Tail(options) if p["down"] else None
        self._drift = Drift(p["depth"]) if p["depth"] else None
        self._mean = 0.0
        self._n = 0
        self._learning: array[float] | None = array("d")
        self._waiting: list[tuple[Side, float]] = []
        self._calm = INCIDENT_GAP
        self._held = self._alarms = 0
        self._incident = False
        self._floor, self._ceiling = math.inf, -math.inf

    def update(self, value: float) -> Verdict:
        """Judge `value`, then learn from it.

        Parameters
        ----------
        value : float
            The next value of the stream. NaN and infinities are skipped and counted in `skipped`.

        Returns
        -------
        Verdict
        """
        x = float(value)
        residual = x - self._mean
        if self._floor <= residual <= self._ceiling:
            self._n += 1
            if self._drift is not None:
                self._mean = self._drift.push(x)
            return NORMAL
        return self._step(x, residual)

    def _step(self, x: float, residual: float) -> Verdict:
        """Every value but the plainly normal ones."""
        if not -VALUE_MAX <= x <= VALUE_MAX:
            self.skipped += 1
            return SKIPPED
        if self._learning is not None:
            return self._learn(x, self._learning)
        verdict = NORMAL
        if self._up is not None and residual > self._up.t:
            verdict = self._beyond(self._up, residual, "up")
        elif self._down is not None and -residual > self._down.t:
            verdict = self._beyond(self._down, -residual, "down")
        if verdict.kind != "alarm":
            if self._drift is not None:
                self._mean = self._drift.push(x)
            self._pass()
        return verdict

    def _learn(self, x: float, learning: "array[float]") -> Verdict:
        learning.append(x)
        if len(learning) == self.needed:
            self._calibrate(np.array(learning, np.float64))
            self._learning = None
            self._open()
        return LEARNING

    def _calibrate(self, values: "np.ndarray[Any, np.dtype[np.float64]]") -> None:
        if self._drift is not None:
            depth = self._drift.depth
            self._drift.fill(values[:depth])
            residuals = np.empty(len(values) - depth)
            for i, x in enumerate(values[depth:].tolist()):
                residuals[i] = x - self._drift.mean
                self._drift.push(x)
            self._mean, values = self._drift.mean, residuals
        self._n = len(values)
        if self._up is not None:
            self._up.calibrate(values, self._bound(1), mirrored=False)
        if self._down is not None:
            self._down.calibrate(-values, self._bound(-1), mirrored=True)

    def _bound(self, sign: int) -> float:
        low, high = self._parameters["range"]
        return float(high) - self._mean if sign > 0 else self._mean - float(low)

    def _threshold(self, tail: Tail, sign: int) -> float:
        if tail.options.published:
            return sign * tail.z + self._mean
        tail.refresh(self._n, self._bound(sign))
        return sign * tail.z + self._mean

    def _beyond(self, tail: Tail, value: float, side: Side) -> Verdict:
        """A value above t: an alarm, or an excess to learn. `value` has the sign of the tail."""
        sign = 1 if side == "up" else -1
        threshold = self._threshold(tail, sign)
        if value > tail.z:
            probability = tail.probability(value, self._n, self._bound(sign))
            return self._alarm(side, threshold, probability, value, tail)
        if self._calm < INCIDENT_GAP and self._parameters["learn"] == "isolated":
            self._waiting.append((side, value - tail.t))
        else:
            tail.learn([value - tail.t], self._n + 1)
            tail.refresh(self._n + 1, self._bound(sign))
        return EXCESS[side]

    def _alarm(self, side: Side, threshold: float, probability: float, value: float, tail: Tail) -> Verdict:
        if self._calm < INCIDENT_GAP:
            self._incident = True
            self._waiting.clear()
        else:
            self._alarms = 0
            self._waiting = [(side, tail.capped(value))]
        self._alarms += 1
        self._calm = 0
        self._held += 1
        self._floor, self._ceiling = math.inf, -math.inf
        relearning = self._alarms == self._parameters["relearn_after"]
        if relearning:
            self.relearn()
        return Verdict("alarm", side, threshold, probability, relearning)

    def _pass(self) -> None:
        """Count a value that raised no alarm, and close the gap after an alarm when it is long enough."""
        if self._calm >= INCIDENT_GAP:
            self._n += 1
            return
        self._calm += 1
        if self._parameters["learn"] == "discard":
            self._n += 1
        else:
            self._held += 1
        if self._calm == INCIDENT_GAP:
            self._settle()

    def _settle(self) -> None:
        """The alarm is over: learn it if it was alone, forget everything near it if it was an incident."""
        if not self._incident and self._parameters["learn"] == "isolated":
            self._n += self._held
            for side, tail in (("up", self._up), ("down", self._down)):
                excesses = [y for s, y in self._waiting if s == side]
                if tail is not None and excesses:
                    tail.learn(excesses, self._n)
        self._waiting.clear()
        self._held = 0
        self._incident = False
        self._open()

    def _open(self) -> None:
        """Let plainly normal values take the short path again."""
        self._ceiling = VALUE_MAX if self._up is None else self._up.t
        self._floor = -VALUE_MAX if self._down is None else -self._down.t

    def state(self) -> dict[str, Any]:
        """Everything it knows, as a mapping of JSON-able values and float64 arrays, for `restore`."""
        return {
            "version": STATE_VERSION,
            "parameters": self.parameters,
            "skipped": self.skipped,
            "n": self._n,
            "calm": self._calm,
            "held": self._held,
            "alarms": self._alarms,
            "incident": self._incident,
            "waiting": [[side, y] for side, y in self._waiting],
            "learning": None if self._learning is None else np.array(self._learning, np.float64),
            "drift": None if self._drift is None else self._drift.state(),
            "up": None if self._up is None else self._up.state(),
            "down": None if self._down is None else self._down.state(),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Spot":
        """Build the detector that gave `state`: its next verdicts are those it would have given.

        Raises
        ------
        ValueError
            If `state` is not one of `state()` of this version.
        """
        try:
            if state["version"] != STATE_VERSION:
                raise ValueError(f"detector state version {state['version']!r}: only {STATE_VERSION} is known")
            spot = cls(**{**state["parameters"], "range": tuple(state["parameters"]["range"])})
            spot._take(state)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"not the state of a detector: {error!r}") from error
        return spot

    def _take(self, state: Mapping[str, Any]) -> None:
        self.skipped, self._n = int(state["skipped"]), int(state["n"])
        self._calm, self._held = int(state["calm"]), int(state["held"])
        self._alarms, self._incident = int(state["alarms"]), bool(state["incident"])
        self._waiting = [("up" if side == "up" else "down", float(y)) for side, y in state["waiting"]]
        learning = state["learning"]
        self._learning = None if learning is None else array("d", np.asarray(learning, np.float64).tolist())
        for tail, kept in ((self._up, state["up"]), (self._down, state["down"])):
            if tail is not None:
                tail.restore(kept)
        if self._drift is not None:
            self._drift.restore(state["drift"])
            self._mean = self._drift.mean
        if self._learning is None and self._calm >= INCIDENT_GAP:
            self._open()


class Drift:
    """Mean of the last `depth` values, each O(1)."""

    __slots__ = ("_next", "_since", "_sum", "_values", "depth", "mean")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._values = array("d")
        self._next = 0
        self._sum = 0.0
        self.mean = 0.0

    def fill(self, values: "np.ndarray[Any, np.dtype[np.float64]]") -> None:
        self._values = array("d", values.tolist())
        self._next = 0
        self._sum = math.fsum(self._values)
        self.mean = self._sum / self.depth

    def push(self, x: float) -> float:
        """Replace the oldest value by `x` and return the new mean."""
        i = self._next
        self._sum += x - self._values[i]
        self._values[i] = x
        self._next = i + 1
        if self._next == self.depth:
            # Rounding errors of the running sum would add up for ever.
            self._next = 0
            self._sum = math.fsum(self._values)
        self.mean = self._sum / self.depth
        return self.mean

    def state(self) -> dict[str, Any]:
        """The window and its running sum."""
        return {"values": np.array(self._values, np.float64), "next": self._next, "sum": self._sum, "mean": self.mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self._values = array("d", np.asarray(state["values"], np.float64).tolist())
        self._next, self._sum, self.mean = int(state["next"]), float(state["sum"]), float(state["mean"])


def _check(p: Mapping[str, Any]) -> None:
    """Refuse parameters that cannot work, with the accepted range."""
    if not 0 < p["level"] < 1:
        raise ValueError(f"level = {p['level']}: must lie in ]0, 1[")
    if not 0 < p["q"] < 1 - p["level"]:
        raise ValueError(f"q = {p['q']}: must lie in ]0, {1 - p['level']:g}[ (1 - level)")
