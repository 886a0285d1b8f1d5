"""The excess threshold: the value below which a given share of the calibration lies."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Sample = NDArray[np.float64]


class Quantile(Protocol):
    """A rule that gives the value below which the share `level` of `sample` lies."""

    def __call__(self, sample: Sample, level: float) -> float: ...


def exact(sample: Sample, level: float) -> float:
    """Order statistic of rank ``ceil(level * n)``: a value that was really seen.

    Parameters
    ----------
    sample : array of float64
        At least one value, in the unit of the stream, in any order.
    level : float
        Share of the sample at or below the result, in ]0, 1[ [1].

    Returns
    -------
    float
        x_(k) with k = ceil(level * n), in the unit of the sample. Exactly equivariant under x -> a x + b, a > 0.

    Notes
    -----
    A value of the sample, never a mean of two: with ties at a bound (a ratio that is 1.0 most of the time) an
    interpolated quantile falls a rounding error short of the bound, and the bound itself becomes an excess.

    Examples
    --------
    >>> exact(np.array([3.0, 1.0, 4.0, 2.0]), 0.75)
    3.0
    """
    # The product of two decimals may end a hair above the integer that is meant: 0.98 * 50 must give 49, not 50.
    rank = math.ceil(level * len(sample) * (1 - 1e-12))
    k = min(max(rank, 1), len(sample)) - 1
    return float(np.partition(sample, k)[k])


def p2(sample: Sample, level: float) -> float:
    """Quantile by the P-square algorithm, which keeps five markers instead of the sample.

    Parameters
    ----------
    sample : array of float64
        At least five values, in the order of their arrival, which matters.
    level : float
        The quantile's level p, in ]0, 1[ [1].

    Returns
    -------
    float
        Height of the middle marker, in the unit of the sample.

    Raises
    ------
    ValueError
        With fewer than five values.

    Notes
    -----
    Markers sit at the minimum, p/2, p, (1 + p)/2 and the maximum. Each value shifts the desired positions by
    (0, p/2, p, (1 + p)/2, 1); a marker more than one place off moves by one, its height by a parabola through its
    neighbours, or by a line where the parabola would break the order. Source: Jain and Chlamtac, "The P2 algorithm
    for dynamic calculation of quantiles and histograms without storing observations", CACM 28 (1985).

    Examples
    --------
    >>> p2(np.arange(101.0), 0.5)
    50.0
    """
    if len(sample) < 5:
        raise ValueError(f"P2 needs at least 5 values, got {len(sample)}")
    values: list[float] = sample.tolist()
    heights = sorted(values[:5])
    places = [0, 1, 2, 3, 4]
    wanted = [0.0, 2 * level, 4 * level, 2 + 2 * level, 4.0]
    steps = (0.0, level / 2, level, (1 + level) / 2, 1.0)
    for x in values[5:]:
        _p2_count(x, heights, places)
        for i in range(5):
            wanted[i] += steps[i]
        for i in (1, 2, 3):
            _p2_adjust(i, heights, places, wanted[i])
    return heights[2]


def _p2_count(x: float, heights: list[float], places: list[int]) -> None:
    """Widen the outer markers to `x` and move every marker above it one place up."""
    heights[0] = min(heights[0], x)
    heights[4] = max(heights[4], x)
    cell = 0
    while cell < 3 and x >= heights[cell + 1]:
        cell += 1
    for i in range(cell + 1, 5):
        places[i] += 1


def _p2_adjust(i: int, heights: list[float], places: list[int], wanted: float) -> None:
    """Move marker `i` one place towards where it is wanted, if it is a whole place off and has room."""
    off = wanted - places[i]
    room_up, room_down = places[i + 1] - places[i], places[i - 1] - places[i]
    if not ((off >= 1 and room_up > 1) or (off <= -1 and room_down < -1)):
        return
    step = 1 if off > 0 else -1
    height = _p2_parabola(i, step, heights, places)
    if not heights[i - 1] < height < heights[i + 1]:
        j = i + step
        height = heights[i] + step * (heights[j] - heights[i]) / (places[j] - places[i])
    heights[i] = height
    places[i] += step


def _p2_parabola(i: int, step: int, heights: Sequence[float], places: Sequence[int]) -> float:
    """Height of marker `i` after `step`, on the parabola through it and its neighbours (eq. 1 of the paper)."""
    below, here, above = places[i - 1], places[i], places[i + 1]
    rise = (here - below + step) * (heights[i + 1] - heights[i]) / (above - here)
    fall = (above - here - step) * (heights[i] - heights[i - 1]) / (here - below)
    return heights[i] + step / (above - below) * (rise + fall)


RULES: dict[str, Quantile] = {"exact": exact, "p2": p2}
