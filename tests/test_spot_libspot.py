"""`compat="libspot"` against the package libspot, which is not our code."""

import numpy as np
import pytest

from netspot.spot import Spot

libspot = pytest.importorskip("libspot", reason="the package libspot is the oracle here: pip install libspot==3.1.0")

LAWS = {
    "gaussian": lambda g, n: g.standard_normal(n),
    "pareto": lambda g, n: g.pareto(1.5, n),
    "log-normal": lambda g, n: 100 * np.exp(g.standard_normal(n)),
    "student": lambda g, n: g.standard_t(3, n) - 20,
    "beta": lambda g, n: g.beta(2, 5, n),
    "gamma": lambda g, n: 1e-3 * g.gamma(2.0, size=n),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("low", [False, True], ids=["up", "down"])
@pytest.mark.parametrize(("q", "n_init", "level", "max_excess"), [(1e-3, 500, 0.95, 40), (1e-4, 2000, 0.98, 200)])
def test_same_thresholds_and_verdicts_as_libspot(law, low, q, n_init, level, max_excess):
    values = LAWS[law](np.random.default_rng([7, n_init, low]), n_init + 2500)
    oracle = libspot.Spot(q, low=low, level=level, max_excess=max_excess)
    oracle.fit(values[:n_init])
    spot = Spot(q=q, n_init=n_init, level=level, up=not low, down=low, max_excess=max_excess, compat="libspot")
    for x in values[:n_init].tolist():
        spot.update(x)
    names = {libspot.NORMAL: "normal", libspot.EXCESS: "excess", libspot.ANOMALY: "alarm"}
    t = spot.state()["down" if low else "up"]["t"]
    assert (-t if low else t) == pytest.approx(oracle.excess_threshold, rel=1e-9)
    spread = values.std()
    for x in values[n_init:].tolist():
        expected = names[oracle.step(x)]
        verdict = spot.update(x)
        z = spot.down if low else spot.up
        assert verdict.kind == expected
        assert z == pytest.approx(oracle.anomaly_threshold, rel=1e-6, abs=1e-6 * spread)
        if expected == "alarm" and oracle.probability(x) > 1e-300:
            assert verdict.probability == pytest.approx(oracle.probability(x), rel=1e-3)
