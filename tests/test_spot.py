"""The detector's promises to whoever feeds it: verdicts, learning, changes of regime, memory, bad input."""

import json
import math
import sys

import numpy as np
import pytest

from netspot.spot import Spot, Verdict

SEED = 20261


def stream(seed: int, count: int, law: str = "standard_normal") -> list[float]:
    return getattr(np.random.default_rng(seed), law)(count).tolist()


def watching(values: list[float], **options: object) -> Spot:
    """A detector that has learnt from `values`."""
    spot = Spot(n_init=len(values) - int(options.get("depth", 0)), **options)
    for x in values:
        assert spot.update(x) == Verdict("learning")
    return spot


def kinds(spot: Spot, values: list[float]) -> list[str]:
    return [spot.update(x).kind for x in values]


def test_learns_then_watches():
    spot = Spot(n_init=100)
    values = stream(SEED, 200)
    for i, x in enumerate(values[:100]):
        assert (spot.learned, spot.needed, spot.up, spot.down) == (i, 100, None, None)
        assert spot.update(x).kind == "learning"
    assert spot.learned == spot.needed == 100
    assert spot.up is not None and spot.down is None
    assert spot.update(0.0) == Verdict("normal")


def test_an_excess_lies_between_the_thresholds_and_is_learnt():
    spot = watching(stream(SEED, 1000))
    t = np.sort(stream(SEED, 1000))[979]
    before = spot.up
    assert spot.update((t + before) / 2) == Verdict("excess", "up")
    assert spot.up != before


def test_an_alarm_tells_side_threshold_and_probability():
    spot = watching(stream(SEED, 1000), down=True)
    up, down = spot.up, spot.down
    verdict = spot.update(up + 1)
    assert (verdict.kind, verdict.side, verdict.relearning) == ("alarm", "up", False)
    assert verdict.threshold == pytest.approx(up) and 0 < verdict.probability < 1e-4
    verdict = spot.update(down - 1)
    assert (verdict.kind, verdict.side) == ("alarm", "down")
    assert verdict.threshold == pytest.approx(down) and 0 < verdict.probability < 1e-4


def test_probability_of_the_threshold_is_q():
    spot = watching(stream(SEED, 2000), q=1e-3)
    assert spot.update(math.nextafter(spot.up, math.inf)).probability == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize("values", [[2.0] * 100, stream(SEED, 1000, "random"), stream(SEED, 1000)])
@pytest.mark.parametrize("extreme", [1e3, 1e30, 1e299])
def test_probability_is_finite_and_positive(values, extreme):
    verdict = watching(values).update(extreme)
    assert verdict.kind == "alarm" and sys.float_info.min <= verdict.probability <= 1


def test_an_isolated_alarm_is_learnt_late_and_capped():
    values = stream(SEED, 1000)
    hit, spared = watching(values), watching(values)
    hit.update(1e6)
    kinds(hit, [0.0] * 19)
    assert hit.up == spared.up, "not before it is known to be alone"
    kinds(hit, [0.0])
    assert spared.up < hit.up < 2 * spared.up


def test_an_incident_teaches_nothing():
    values = stream(SEED, 1000)
    spot = watching(values)
    t, z = np.sort(values)[979], spot.up
    assert kinds(spot, [100.0, 0.0, (t + z) / 2, 100.0, (t + z) / 2, *[0.0] * 20]).count("excess") == 2
    assert spot.up == z


def test_alarms_close_together_can_be_discarded_one_by_one():
    spot = watching(stream(SEED, 1000), learn="discard")
    z = spot.up
    kinds(spot, [100.0, *[0.0] * 30])
    assert spot.up <= z


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.7e308, -1.7e308])
@pytest.mark.parametrize("depth", [0, 5])
def test_what_is_not_a_finite_number_is_skipped_and_counted(bad, depth):
    values = stream(SEED, 400)
    clean, dirty = Spot(n_init=100, down=True, depth=depth), Spot(n_init=100, down=True, depth=depth)
    for i, x in enumerate(values):
        if i % 7 == 0:
            assert dirty.update(bad) == Verdict("skipped")
        assert dirty.update(x) == clean.update(x)
    assert dirty.skipped == 58 and (dirty.up, dirty.down) == (clean.up, clean.down)


@pytest.mark.parametrize("level", [(-1e300, 1e300), (1e-300, 2e-300), (0.0, 5e-324)])
def test_extreme_values_raise_nothing(level):
    draw = np.random.default_rng(SEED)
    for options in ({}, {"depth": 10}, {"learn": "discard", "estimator": "likeliest"}, {"estimator": "moments"}):
        spot = Spot(n_init=50, down=True, **options)
        for x in draw.choice(level, 300).tolist():
            spot.update(x)
        assert math.isfinite(spot.up) and math.isfinite(spot.down)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("q", 0.0), ("q", 0.03), ("q", math.nan), ("level", 1.0), ("n_init", 9), ("up", False), ("depth", -1),
        ("max_excess", 0), ("range", (1, 0)), ("estimator", "x"), ("quantile", "x"), ("learn", "x"),
        ("relearn_after", -1), ("compat", "x"),
    ],
)  # fmt: skip
def test_parameters_that_cannot_work_are_refused(key, value):
    with pytest.raises(ValueError, match=key):
        Spot(**{key: value})


def test_t_is_a_value_that_was_seen_and_z_not_below_it():
    for seed in range(20):
        values = np.random.default_rng(seed).integers(0, 4, 60).astype(float).tolist()
        spot = watching(values)
        assert spot.state()["up"]["t"] in values
        for x in np.random.default_rng(seed).exponential(3, 500).tolist():
            spot.update(x)
            assert spot.up is None or spot.up >= spot.state()["up"]["t"]


# Equivariance and symmetry


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 7.0, 1e6, 1e12])
@pytest.mark.parametrize("options", [{}, {"depth": 20}, {"estimator": "likeliest"}, {"quantile": "p2"}], ids=str)
def test_the_unit_does_not_matter(scale, options):
    plain, scaled = Spot(q=1e-3, down=True, **options), Spot(q=1e-3, down=True, **options)
    for x in stream(SEED, 4000, "standard_exponential"):
        one, other = plain.update(x), scaled.update(x * scale + 3 * scale)
        assert (one.kind, one.side) == (other.kind, other.side)
    assert scaled.up == pytest.approx((plain.up + 3) * scale, rel=1e-6)
    assert scaled.down == pytest.approx((plain.down + 3) * scale, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"depth": 20}, {"quantile": "p2"}, {"range": (0, 30)}], ids=str)
def test_the_lower_tail_is_the_upper_tail_of_the_negated_stream(options):
    mirrored = {**options, "range": (-30, 0)} if "range" in options else options
    above, below = Spot(q=1e-3, **options), Spot(q=1e-3, up=False, down=True, **mirrored)
    for x in stream(SEED, 5000, "standard_exponential"):
        one, other = above.update(x), below.update(-x)
        assert (one.kind, one.probability) == (other.kind, other.probability)
    assert above.up == -below.down


# The range of a statistic


def test_a_threshold_stays_within_the_range():
    values = (np.random.default_rng(SEED).pareto(1.0, 5000) * 0.002).clip(0, 1).tolist()
    spot = watching(values[:1000], q=1e-5, range=(0, 1))
    assert spot.up < 1
    assert watching(values[:1000], q=1e-5).up > 1
    kinds(spot, values[1000:])
    assert spot.up <= 1 and spot.update(1.0).kind in ("excess", "alarm")


def test_a_bound_that_is_often_reached_is_no_alarm():
    spot = watching([1.0] * 730 + [0.5] * 270, range=(0, 1))
    assert kinds(spot, [1.0, 0.5] * 100) == ["normal"] * 200


def test_with_drift_the_range_is_that_of_the_input():
    spot = watching(stream(SEED, 1050, "random"), depth=50, range=(0, 1), down=True)
    assert 0.9 < spot.up <= 1 and 0 <= spot.down < 0.1


# Drift


def test_drift_is_followed_and_added_back():
    ramp = (np.arange(6000) * 0.01 + np.random.default_rng(SEED).standard_normal(6000)).tolist()
    spot = watching(ramp[:1050], depth=50, down=True)
    assert kinds(spot, ramp[1050:]).count("alarm") <= 3
    assert spot.down < ramp[-1] < spot.up and spot.up - ramp[-1] < 10


def test_alarms_cannot_poison_the_drift():
    values = stream(SEED, 3000)
    hit, spared = watching(values[:1050], depth=50), watching(values[:1050], depth=50)
    for i, x in enumerate(values[1050:]):
        if i % 100 < 5:
            assert hit.update(1000.0).kind == "alarm"
        hit.update(x)
        spared.update(x)
    assert hit.up == pytest.approx(spared.up, rel=0.1)


# Changes of regime


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_level_shift_is_learnt_anew_once(seed):
    spot = watching(stream(seed, 1000))
    fresh = watching(stream(seed + 100, 2000))
    verdicts = [spot.update(x + 6) for x in stream(seed + 100, 3200)]
    alarms = [i for i, v in enumerate(verdicts) if v.kind == "alarm"]
    assert [v.relearning for v in verdicts].count(True) == 1
    assert (np.diff(alarms) > 20).sum() + 1 <= 5
    assert alarms[119] < 200 and len(alarms) <= 125
    assert spot.up - 6 == pytest.approx(fresh.up, rel=0.1)


def test_relearning_begins_after_exactly_so_many_alarms():
    spot = watching(stream(SEED, 1000), relearn_after=30)
    verdicts = [spot.update(50.0) for _ in range(31)]
    assert [v.relearning for v in verdicts] == [False] * 29 + [True, False]
    assert [v.kind for v in verdicts[-2:]] == ["alarm", "learning"]
    assert spot.up is None and spot.learned == 1


def test_relearning_can_be_switched_off():
    assert kinds(watching(stream(SEED, 1000), relearn_after=0), [50.0] * 500) == ["alarm"] * 500


def test_a_shift_that_raises_no_alarm_is_learnt_anew_too():
    values = stream(SEED, 1000)
    spot = watching(values, q=1e-6)
    above = (np.sort(values)[979] + spot.up) / 2
    verdicts = [spot.update(above) for _ in range(1000)]
    assert verdicts[-1] == Verdict("excess", "up", relearning=True)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("down", [False, True])
def test_a_stream_that_has_not_changed_is_not_learnt_anew(level, down):
    spot = Spot(q=1e-3, n_init=200, level=level, down=down)
    assert not any(spot.update(x).relearning for x in stream(SEED, 10_000))


def test_an_episode_does_not_erase_what_was_learnt():
    values = stream(SEED, 3000)
    spot = watching(values[:1000])
    z = spot.up
    kinds(spot, [50.0] * 500)
    assert spot.up is None
    kinds(spot, values[1000:1200])
    assert spot.up == pytest.approx(z, rel=0.05) and spot.update(50.0).kind == "alarm"


def test_a_command_to_relearn_forgets_all():
    spot = watching(stream(SEED, 1000), depth=10, down=True)
    spot.relearn()
    assert (spot.up, spot.down, spot.learned) == (None, None, 0)
    values = stream(SEED + 1, 2000)
    fresh = Spot(n_init=1000, depth=10, down=True)
    fresh._parameters["n_init"] = spot._parameters["n_init"]
    assert [spot.update(x) for x in values] == [fresh.update(x) for x in values]


# Memory across restarts


@pytest.mark.parametrize(
    "options",
    [{}, {"depth": 7}, {"down": True}, {"learn": "discard"}, {"compat": "libspot"}, {"bounded": False}, {"level": 0.9}],
    ids=str,
)
def test_a_restored_detector_goes_on_as_if_it_had_never_stopped(options):
    draw = np.random.default_rng(SEED)
    values = draw.standard_t(3, 3000)
    values[1500:1800] += 40  # long enough to be learnt anew, and gone before it is
    stayed = went = Spot(n_init=500, q=1e-3, max_excess=50, range=(-1e4, 1e4), **options)
    for i, x in enumerate(values.tolist()):
        if i % 13 == 0:
            went = Spot.restore(plain(stayed.state()))
        else:
            assert went is not stayed
            assert went.update(x) == stayed.update(x)
            assert (went.up, went.down, went.learned) == (stayed.up, stayed.down, stayed.learned)
            continue
        stayed.update(x)
        went.update(x)


def plain(state: dict[str, object]) -> dict[str, object]:
    """`state` after a trip through strict JSON, arrays as lists."""
    return json.loads(json.dumps(state, default=lambda a: a.tolist(), allow_nan=False))


def test_a_state_fits_parameters():
    spot = watching(stream(SEED, 500), q=1e-3)
    assert Spot.restore(spot.state()).parameters == spot.parameters
    assert spot.parameters == Spot(q=1e-3, n_init=500).parameters != Spot(q=1e-3).parameters
    json.dumps(spot.parameters, allow_nan=False)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": None},
        {"parameters": {}},
        {"parameters": {"q": 1}},
        {"n": "many"},
        {"learning": {}},
        {"up": None},
        {"up": []},
        {"up": {"t": 1.0}},
        {"waiting": [1]},
        {"waiting": None},
        {"past": {}},
    ],
    ids=str,
)
def test_nonsense_is_no_state(change):
    state = watching(stream(SEED, 100)).state()
    with pytest.raises(ValueError):
        Spot.restore({**state, **change})
    with pytest.raises(ValueError):
        Spot.restore(change)


def test_memory_is_bounded():
    spot = watching(stream(SEED, 1000), max_excess=50, down=True)
    for x in stream(SEED, 20000, "standard_cauchy"):
        spot.update(x)
    sizes = [len(spot.state()[side]["excesses"]) for side in ("up", "down")]
    assert sizes == [50, 50]
    for side in ("up", "down"):
        tail = spot.state()[side]
        assert tail["n_t"] == 50


def test_one_burst_on_a_quiet_stream_does_not_blind():
    spot = Spot(q=1e-7, n_init=200)
    for i in range(400):
        spot.update(2.0 if i % 7 else 2.3)
    assert spot.update(8.0).kind == "alarm"
    for i in range(100):
        spot.update(2.0 if i % 7 else 2.3)
    assert spot.up < 3.0
    assert [spot.update(8.0).kind for _ in range(3)] == ["alarm"] * 3
