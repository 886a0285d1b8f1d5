"""The generalised Pareto law: what values above a high threshold follow, whatever the stream's own law.

P(Y > y) = (1 + gamma y / sigma)^(-1/gamma) for y >= 0, and exp(-y / sigma) as gamma -> 0, with the shape gamma [1]
and the scale sigma > 0 in the unit of the stream. gamma < 0 means an upper end at -sigma / gamma.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Excesses = NDArray[np.float64]

# Below this the powers of the law lose more digits than the exponential limit is wrong by.
GAMMA_ZERO = 1e-9
# Brent's method, as libspot sets it.
ROOT_TOLERANCE = 2e-8


class Law(NamedTuple):
    """Shape `gamma` [1] and scale `sigma` [unit of the stream] of a generalised Pareto law."""

    gamma: float
    sigma: float


class Estimator(Protocol):
    """A rule that fits a `Law` to excesses, all of them > 0."""

    def __call__(self, excesses: Excesses) -> Law: ...


def survival(law: Law, y: float) -> float:
    """Probability of an excess above `y`.

    Parameters
    ----------
    law : Law
        The fitted law; a scale of 0 stands for "no excess was ever seen".
    y : float
        Excess over the threshold, in the unit of the stream.

    Returns
    -------
    float
        (1 + gamma y / sigma)^(-1/gamma), exp(-y / sigma) as gamma -> 0; 0 beyond the law's end, 1 for y <= 0 [1].

    Examples
    --------
    >>> survival(Law(0.5, 1.0), 2.0)
    0.25
    """
    if y <= 0:
        return 1.0
    if law.sigma <= 0:
        return 0.0
    if abs(law.gamma) < GAMMA_ZERO:
        return math.exp(-y / law.sigma)
    base = 1 + law.gamma * (y / law.sigma)
    return math.exp(-math.log(base) / law.gamma) if 0 < base < math.inf else 0.0


def quantile(law: Law, p: float) -> float:
    """Excess that is passed with probability `p`: the inverse of `survival`.

    Parameters
    ----------
    law : Law
        The fitted law.
    p : float
        Probability, > 0 [1].

    Returns
    -------
    float
        sigma / gamma * (p^-gamma - 1), and -sigma ln p as gamma -> 0, in the unit of the stream. Negative for p > 1:
        the caller decides what that means.

    Examples
    --------
    >>> quantile(Law(0.5, 1.0), 0.25)
    2.0
    """
    if abs(law.gamma) < GAMMA_ZERO:
        return -law.sigma * math.log(p)
    return law.sigma * (math.expm1(-law.gamma * math.log(p)) / law.gamma)


def log_likelihood(excesses: Excesses, law: Law) -> float:
    """Log-likelihood of `excesses` under `law`; minus infinity where an excess lies beyond the law's end.

    -N ln sigma - (1 + 1/gamma) sum ln(1 + gamma y / sigma), and -N ln sigma - sum(y) / sigma at gamma = 0.

    Examples
    --------
    >>> log_likelihood(np.array([1.0, 3.0]), Law(0.0, 2.0)) == -2 * math.log(2) - 2
    True
    """
    gamma, sigma = law
    count = len(excesses)
    if sigma <= 0:
        return -math.inf
    if gamma == 0:
        return -count * math.log(sigma) - float(excesses.sum()) / sigma
    terms = gamma / sigma * excesses
    if float(terms.min()) <= -1:
        return -math.inf
    return -count * math.log(sigma) - (1 + 1 / gamma) * float(np.log1p(terms).sum())


def moments(excesses: Excesses) -> Law:
    """Fit by mean and variance.

    With R = mean^2 / variance: gamma = (1 - R) / 2, sigma = mean (1 + R) / 2. Excesses without spread give the
    exponential law of their mean. Source: Hosking and Wallis, Technometrics 29 (1987).

    Examples
    --------
    >>> moments(np.array([1.0, 3.0]))
    Law(gamma=-1.5, sigma=5.0)
    """
    # A power of two: squares cannot overflow, and no digit changes.
    unit = 2.0 ** math.frexp(float(excesses.max()))[1]
    scaled = excesses / unit
    mean = float(scaled.mean())
    variance = float(scaled.var())
    if not variance > 0:
        return Law(0.0, mean * unit)
    ratio = mean / variance * mean
    return Law((1 - ratio) / 2, mean * (1 + ratio) / 2 * unit)


def zhang_stephens(excesses: Excesses) -> Law:
    """Fit by an approximate posterior mean over a data-driven grid: no iteration, so it always ends.

    Notes
    -----
    The law is written with theta = -gamma / sigma. For a given theta the likeliest shape is
    k(theta) = -mean(ln(1 - theta y)) (k = -gamma), which leaves the profile log-likelihood
    l(theta) = N (ln(theta / k) + k - 1). On theta_j = 1/y_(N) + (1 - sqrt(m / (j - 1/2))) / (3 y*), j = 1..m,
    m = 20 + floor(sqrt(N)), y* the first quartile, the estimate is the mean of theta_j weighted by exp(l(theta_j)).
    Source: Zhang and Stephens, "A new and efficient estimation method for the generalized Pareto distribution",
    Technometrics 51 (2009).

    Examples
    --------
    >>> law = zhang_stephens(-np.log(1 - (np.arange(500) + 0.5) / 500))    # quantiles of the exponential law
    >>> abs(law.gamma) < 0.03, abs(law.sigma - 1) < 0.03
    (True, True)
    """
    y = np.sort(excesses)
    count = len(y)
    top = float(y[-1])
    quartile = max(float(y[max(int(count / 4 + 0.5), 1) - 1]) / top, 1e-30)
    if count < 2 or float(y[0]) == top:
        return Law(0.0, top)
    y = y / top
    m = 20 + int(math.sqrt(count))
    theta = 1 + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * quartile)
    theta[theta == 0] = 1e-12
    shape = -_mean_log(theta, y)
    profile = count * (np.log(theta / shape) + shape - 1)
    weight = np.exp(profile - profile.max())
    best = float(theta @ weight / weight.sum())
    k = -float(np.log1p(-best * y).mean())
    return Law(-k, k / best * top)


def _mean_log(theta: NDArray[np.float64], y: Excesses) -> NDArray[np.float64]:
    """``mean(ln(1 - theta y))`` for each theta; a logarithm of eight factors' product costs an eighth of eight."""
    whole = len(y) // 8
    factors = 1 - theta[:, None] * y
    total = np.log(factors[:, 8 * whole :]).sum(axis=1)
    product = factors[:, :whole]
    for i in range(1, 8):
        product = product * factors[:, i * whole : (i + 1) * whole]
    mean: NDArray[np.float64] = (total + np.log(product).sum(axis=1)) / len(y)
    return mean


def grimshaw(excesses: Excesses) -> Law:
    """Fit by maximum likelihood, reduced to the roots of one equation.

    Notes
    -----
    With x = gamma / sigma and s = 1 + x y, the likelihood is stationary where mean(1/s) (1 + mean(ln s)) = 1; then
    gamma = mean(ln s), sigma = gamma / x. Roots are sought on ]-1/max, 0[ and ]0, 2 (mean - min) / min^2[; x = 0, the
    exponential law, is always a candidate, and the likeliest wins. Source: Grimshaw, "Computing maximum likelihood
    estimates for the generalized Pareto distribution", Technometrics 35 (1993).

    Examples
    --------
    >>> law = grimshaw(-np.log(1 - (np.arange(500) + 0.5) / 500))    # quantiles of the exponential law
    >>> abs(law.gamma) < 0.03, abs(law.sigma - 1) < 0.03
    (True, True)
    """
    top = float(excesses.max())
    scaled = excesses / top
    mean, low = float(scaled.mean()), float(scaled.min())
    # Nearer to 0 the equation is all rounding error, and the law exponential.
    edge = 1e-5
    brackets = ((-(1 - 1e-9), -edge), (edge, 2 * (mean - low) / max(low * low, 1e-30)))
    laws = [Law(0.0, mean)]
    for start, end in brackets:
        x = root(lambda x: _equation(scaled, x), start, end) if start < end else None
        if x:
            gamma = float(np.log1p(x * scaled).mean())
            laws.append(Law(gamma, gamma / x))
    law = max(laws, key=lambda law: log_likelihood(scaled, law))
    return Law(law.gamma, law.sigma * top)


def _equation(excesses: Excesses, x: float) -> float:
    """mean(1/s) (1 + mean(ln s)) - 1, 0 where the likelihood is stationary; NaN where there is none."""
    s = 1 + x * excesses
    if float(s.min()) <= 0:
        return math.nan
    return float((1 / s).mean() * (1 + np.log(s).mean())) - 1


def likeliest(excesses: Excesses) -> Law:
    """The likelier of `moments` and `grimshaw`; likelihood alone has no maximum for a shape below -1.

    Examples
    --------
    >>> likeliest(np.array([1.0, 3.0])) == moments(np.array([1.0, 3.0]))
    True
    """
    return max(moments(excesses), grimshaw(excesses), key=lambda law: log_likelihood(excesses, law))


def root(function: Callable[[float], float], start: float, end: float) -> float | None:
    """Root of `function` between `start` and `end` by Brent's method; None where its sign does not change.

    Parameters
    ----------
    function : callable
        Continuous on [start, end].
    start, end : float
        The bracket.

    Returns
    -------
    float or None
        Within ``2 * ROOT_TOLERANCE * |x| + ROOT_TOLERANCE / 2`` of a root; None also after 200 steps without one.

    Notes
    -----
    Inverse quadratic interpolation or the secant where it shrinks the bracket fast enough, bisection elsewhere.
    Source: Brent, "Algorithms for Minimization without Derivatives" (1973), chapter 4.

    Examples
    --------
    >>> round(root(lambda x: x * x - 2, 0.0, 2.0), 6)
    1.414214
    """
    before, best, other = start, end, end
    f_before, f_best = function(start), function(end)
    if not f_before * f_best <= 0:
        return None
    f_other = f_best
    step = last_step = end - start
    for _ in range(200):
        if f_best * f_other > 0:
            # The root lies between the best point and the one before it.
            other, f_other = before, f_before
            step = last_step = best - before
        if abs(f_other) < abs(f_best):
            before, best, other = best, other, best
            f_before, f_best, f_other = f_best, f_other, f_best
        tolerance = 2 * ROOT_TOLERANCE * abs(best) + 0.5 * ROOT_TOLERANCE
        half = 0.5 * (other - best)
        if abs(half) <= tolerance or f_best == 0:
            return best
        trial = half
        if abs(last_step) >= tolerance and abs(f_before) > abs(f_best):
            guess = _interpolate(before, best, other, f_before, f_best, f_other)
            if abs(2 * guess) < min(3 * abs(half) - tolerance, abs(last_step)) and guess * half > 0:
                trial = guess
        last_step = half if trial == half else step
        step = trial
        before, f_before = best, f_best
        best += step if abs(step) > tolerance else math.copysign(tolerance, half)
        f_best = function(best)
    return None


def _interpolate(before: float, best: float, other: float, f_before: float, f_best: float, f_other: float) -> float:
    """Step from `best` to the zero of the parabola x(f) through three points, or of the line through two."""
    s = f_best / f_before
    if before == other:
        return (other - best) * s / (s - 1) if s != 1 else math.inf
    q, r = f_before / f_other, f_best / f_other
    rise = s * ((other - best) * q * (q - r) - (best - before) * (r - 1))
    return -rise / ((q - 1) * (r - 1) * (s - 1))


ESTIMATORS: dict[str, Estimator] = {
    "moments": moments,
    "grimshaw": grimshaw,
    "likeliest": likeliest,
    "zhang-stephens": zhang_stephens,
}
