"""The tail fit of the package libspot 3.1.0, to the last bit, faults included: for comparison only.

It looks for the roots of Grimshaw's equation within 2e-8 of 0 whatever the unit, where rounding errors decide whether
it looks at all, and how likely a law is. So sums run in its order, and logarithms are those of the C library: numpy's
depend on the processor. See `netspot.spot.gpd` for the formulas.
"""

import math

import numpy as np
from numpy.typing import NDArray

from netspot.spot.gpd import ROOT_TOLERANCE, Excesses, Law, moments, root


def likeliest(excesses: Excesses) -> Law:
    """The likelier of the fits by moments and by Grimshaw's equation.

    Examples
    --------
    >>> likeliest(np.array([1.0, 3.0]))
    Law(gamma=-1.5, sigma=5.0)
    """
    return max(moments(excesses), grimshaw(excesses), key=lambda law: log_likelihood(excesses, law))


def grimshaw(excesses: Excesses) -> Law:
    """The likeliest of the exponential law and those of the roots of Grimshaw's equation.

    Examples
    --------
    >>> grimshaw(np.array([1.0, 1.0, 1.0]))
    Law(gamma=0.0, sigma=1.0)
    """
    top, mean, low = float(excesses.max()), float(excesses.mean()), float(excesses.min())
    edge = min(ROOT_TOLERANCE, 0.5 / top)
    last = 2 * (mean - low) / max(low * low, 1e-300)
    laws = [Law(0.0, mean)]
    for start, end in ((-1 / top + edge, -edge), (edge, last)):
        x = root(lambda x: _equation(excesses, x), start, end)
        if x:
            # Not the same as the mean alone: for a root next to 0 most digits are lost here.
            gamma = (1 + _total(_log(1 + x * excesses)) / len(excesses)) - 1
            laws.append(Law(gamma, gamma / x))
    return max(laws, key=lambda law: log_likelihood(excesses, law))


def quantile(law: Law, p: float) -> float:
    """Excess that is passed with probability `p`, by the formula as it stands: for a shape of 1e-12 it is all noise.

    Examples
    --------
    >>> quantile(Law(0.5, 1.0), 0.25)
    2.0
    """
    if law.gamma == 0:
        return -law.sigma * math.log(p)
    try:
        power = math.pow(p, -law.gamma)
    except OverflowError:
        power = math.inf
    return law.sigma / law.gamma * (power - 1)


def log_likelihood(excesses: Excesses, law: Law) -> float:
    """Log-likelihood, minus infinity where an excess lies beyond the law's end.

    Examples
    --------
    >>> log_likelihood(np.array([1.0, 3.0]), Law(0.0, 2.0)) == -2 * math.log(2) - 2
    True
    """
    gamma, sigma = law
    if sigma <= 0:
        return -math.inf
    start = -len(excesses) * math.log(sigma)
    if gamma == 0:
        return start - _total(excesses) / sigma
    factors = 1 + gamma / sigma * excesses
    if float(factors.min()) <= 0:
        return -math.inf
    return _total(np.concatenate(([start], -(1 + 1 / gamma) * _log(factors))))


def _equation(excesses: Excesses, x: float) -> float:
    s = 1 + x * excesses
    if float(s.min()) <= 0:
        return math.nan
    return (_total(1 / s) / len(s)) * (1 + _total(_log(s)) / len(s)) - 1


def _log(values: Excesses) -> Excesses:
    return np.array([math.log(x) for x in values.tolist()])


def _total(values: NDArray[np.float64]) -> float:
    """Sum one by one, as a loop adds: numpy's sum adds in pairs, and Python's has compensated since 3.12."""
    return float(np.add.accumulate(values)[-1])
