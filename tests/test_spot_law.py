"""Quantiles and fits of the tail against values that are known without them."""

import math

import numpy as np
import pytest

from netspot.spot import gpd
from netspot.spot.quantile import exact, p2
from netspot.spot.tail import shrunk

SEED = 31


def sample(gamma: float, sigma: float, count: int, seed: int = SEED) -> np.ndarray:
    """Draws from a generalised Pareto law by inversion."""
    u = np.random.default_rng(seed).random(count)
    return -sigma * np.log(u) if gamma == 0 else sigma / gamma * (u**-gamma - 1)


@pytest.mark.parametrize(("level", "expected"), [(0.98, 98), (0.5, 50), (0.001, 1), (0.999, 100), (0.29, 29)])
def test_exact_is_the_order_statistic(level, expected):
    shuffled = np.random.default_rng(SEED).permutation(np.arange(1.0, 101.0))
    assert exact(shuffled, level) == expected


def test_exact_keeps_at_most_its_share_above():
    draw = np.random.default_rng(SEED)
    for _ in range(200):
        values = draw.integers(0, 10, draw.integers(10, 300)).astype(float)
        level = draw.uniform(0.5, 0.999)
        t = exact(values, level)
        assert t in values and (values > t).mean() <= 1 - level + 1e-9
        assert (values >= t).mean() > 1 - level - 1e-9


@pytest.mark.parametrize("level", [0.02, 0.5, 0.98])
def test_p2_comes_close_to_the_quantile(level):
    values = np.random.default_rng(SEED).standard_normal(20_000)
    assert p2(values, level) == pytest.approx(np.quantile(values, level), abs=0.05)


def test_p2_needs_five_values():
    assert p2(np.array([3.0, 1.0, 2.0, 5.0, 4.0]), 0.5) == 3.0
    with pytest.raises(ValueError, match="5 values"):
        p2(np.arange(4.0), 0.5)


@pytest.mark.parametrize("gamma", [-2.0, -0.3, -1e-7, -1e-12, 0.0, 1e-12, 1e-7, 0.3, 2.0])
@pytest.mark.parametrize("p", [1e-12, 1e-4, 0.3, 1.0])
def test_quantile_inverts_survival(gamma, p):
    law = gpd.Law(gamma, 2.5)
    assert gpd.survival(law, gpd.quantile(law, p)) == pytest.approx(p, rel=1e-3 if gamma == -2 else 1e-6)


def test_survival_at_its_ends():
    assert gpd.survival(gpd.Law(-0.5, 1.0), 2.0) == gpd.survival(gpd.Law(-0.5, 1.0), 1e300) == 0
    assert gpd.survival(gpd.Law(0.5, 1.0), -1.0) == gpd.survival(gpd.Law(0.0, 1.0), 0.0) == 1
    assert gpd.survival(gpd.Law(0.0, 0.0), 1.0) == 0
    assert gpd.survival(gpd.Law(0.3, 1e-300), 1e300) == 0


@pytest.mark.parametrize("estimator", gpd.ESTIMATORS)
@pytest.mark.parametrize("gamma", [-0.4, 0.0, 0.3])
@pytest.mark.parametrize("sigma", [1e-9, 1.0, 1e9])
def test_fits_find_the_law_again(estimator, gamma, sigma):
    law = gpd.ESTIMATORS[estimator](sample(gamma, sigma, 20_000))
    assert law.gamma == pytest.approx(gamma, abs=0.06) and law.sigma == pytest.approx(sigma, rel=0.06)


@pytest.mark.parametrize("estimator", gpd.ESTIMATORS)
@pytest.mark.parametrize(
    "excesses",
    [[1.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1e-12], [1e-300, 1e300], [5e-324, 5e-324], [1.0, 2.0], list(range(1, 6))],
    ids=str,
)
def test_fits_end_on_anything(estimator, excesses):
    law = gpd.ESTIMATORS[estimator](np.array(excesses, np.float64))
    assert math.isfinite(law.gamma) and law.sigma > 0


@pytest.mark.parametrize("gamma", [-0.3, 0.5])
def test_grimshaw_is_where_the_likelihood_peaks(gamma):
    excesses = sample(gamma, 1.0, 500)
    best = gpd.grimshaw(excesses)
    for dg, ds in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        near = gpd.Law(best.gamma + dg, best.sigma + ds)
        assert gpd.log_likelihood(excesses, near) < gpd.log_likelihood(excesses, best)


@pytest.mark.parametrize("gamma", [-0.4, 0.0, 0.3, 0.8])
def test_zhang_stephens_is_nearly_unbiased_on_few_excesses(gamma):
    fits = [gpd.zhang_stephens(sample(gamma, 1.0, 50, seed)).gamma for seed in range(300)]
    assert np.mean(fits) == pytest.approx(gamma, abs=0.06)


def test_the_law_is_drawn_to_the_prior_and_keeps_its_mean():
    for law in (gpd.Law(-2.0, 3.0), gpd.Law(-0.2, 1.0), gpd.Law(0.7, 1.0)):
        drawn = shrunk(law, 20)
        assert abs(drawn.gamma - 0.1) < abs(law.gamma - 0.1)
        assert drawn.sigma / (1 - drawn.gamma) == pytest.approx(law.sigma / (1 - law.gamma))
    assert shrunk(gpd.Law(5.0, 1.0), 10_000).gamma <= 1


def test_root_finds_a_change_of_sign_only():
    assert gpd.root(lambda x: x**3 - 5, 0.0, 10.0) == pytest.approx(5 ** (1 / 3), abs=1e-7)
    assert gpd.root(lambda x: x - 1, 1.0, 2.0) == 1.0
    assert gpd.root(lambda x: x * x + 1, -1.0, 1.0) is None
    assert gpd.root(lambda x: math.nan, 0.0, 1.0) is None
