"""Drift removal: the recent level of a stream, for the detector to look at what departs from it."""

import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Drift:
    """Mean of the last `depth` values that it was given, at a constant cost each.

    Parameters
    ----------
    depth : int
        Values in the mean, at least 1.

    Notes
    -----
    mean = (1 / depth) sum of the last `depth` values, in the unit of the stream, as in DSPOT (Siffer et al., KDD 2017,
    section 4.3). The detector gives it no alarms, so it follows what is normal and cannot be dragged away. Takes
    8 * depth bytes.

    Examples
    --------
    >>> drift = Drift(2)
    >>> drift.fill(np.array([1.0, 3.0]))
    >>> drift.mean, drift.push(5.0), drift.push(7.0)
    (2.0, 4.0, 6.0)
    """

    __slots__ = ("_next", "_sum", "_values", "depth", "mean")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.mean = 0.0
        self._values = array("d")
        self._next = 0
        self._sum = 0.0

    def fill(self, values: NDArray[np.float64]) -> None:
        """Start from `depth` values, the oldest first."""
        self._values = array("d", values.tolist())
        self._next = 0
        self._sum = math.fsum(self._values)
        self.mean = self._sum / self.depth

    def push(self, x: float) -> float:
        """Replace the oldest value by `x`; the new mean."""
        i = self._next
        self._sum += x - self._values[i]
        self._values[i] = x
        self._next = i + 1
        if self._next == self.depth:
            # The rounding errors of a running sum would add up for ever.
            self._next = 0
            self._sum = math.fsum(self._values)
        self.mean = self._sum / self.depth
        return self.mean

    def remove(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fill with the first `depth` of `values`; what each of the others departs by from the mean before it."""
        self.fill(values[: self.depth])
        residuals = np.empty(len(values) - self.depth, np.float64)
        for i, x in enumerate(values[self.depth :].tolist()):
            residuals[i] = x - self.mean
            self.push(x)
        return residuals

    def state(self) -> dict[str, Any]:
        """All it knows, for `restore`."""
        return {"values": np.array(self._values, np.float64), "next": self._next, "sum": self._sum, "mean": self.mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; ValueError if that is of another depth."""
        values = np.asarray(state["values"], np.float64)
        if len(values) not in (0, self.depth) or not 0 <= state["next"] < self.depth:
            raise ValueError(f"drift over {len(values)} values, but depth = {self.depth}")
        self._values = array("d", values.tolist())
        self._next, self._sum, self.mean = int(state["next"]), float(state["sum"]), float(state["mean"])
