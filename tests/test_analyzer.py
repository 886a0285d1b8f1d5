"""Statistics under watch: values, floors, spans, the budget, and what a detector's verdict becomes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from netspot import pipeline
from netspot.analyzer import Analyzer, Watch, rules, watches
from netspot.analyzer.stats import PROFILES, STATS, Stat, known
from netspot.analyzer.stats.base import number
from netspot.config import AnalyzerConfig, Config, SpotConfig
from netspot.errors import ConfigError
from netspot.events import Alarm, Event, Incident, Relearn, Sample, Window
from netspot.miner.counters import COUNTERS, WINDOW_COUNTERS
from netspot.record import replace
from netspot.spot import Spot

S = 10**9
T0 = 1_700_000_000 * S
COUNT = Stat("X", "port", "a number", ("X",), number, least=10, margin=2)


def window(second: int, value: float, span: int = 1, **more: float) -> Window:
    return Window(T0 + (second - span) * S, T0 + second * S, {"X": value, **more}, 0, float(span), span)


def spot(**options: object) -> Spot:
    return Spot(**{"q": 1e-3, "n_init": 100, "level": 0.9, **options})  # type: ignore[arg-type]


def fed(watch: Watch, values: list[float], start: int = 0) -> tuple[list[Sample], list[Event]]:
    samples, events = [], []
    for i, value in enumerate(values, start + 1):
        sample, happened = watch.step(window(i, value, watch.span))
        samples.append(sample)
        events += happened
    return samples, events


def quiet(n: int = 200) -> list[float]:
    return np.random.default_rng(1).poisson(2, n).astype(float).tolist()


@pytest.mark.parametrize("stat", STATS.values(), ids=lambda stat: stat.name)
def test_every_statistic(stat: Stat) -> None:
    """Documented, made of counters that exist, silent about an empty window or at least within its range."""
    assert stat.help and stat.unit
    assert set(stat.needs) <= {*COUNTERS, *WINDOW_COUNTERS}
    value = stat.compute(*(S if need.endswith("_TIME") else 0 for need in stat.needs))
    assert math.isnan(value) or stat.range[0] <= value <= stat.range[1]
    assert stat.watched is False or stat.compute(*range(1, len(stat.needs) + 1)) >= 0


def test_profiles_name_what_there_is() -> None:
    for profile in PROFILES.values():
        assert len(set(profile)) == len(profile)
        assert {name.partition("@")[0] for name in profile} <= set(STATS)


def test_an_alarm_is_told_once_and_cleared_after_quiet_windows() -> None:
    watch = Watch("X", COUNT, 1, spot(), clear_after=3)
    fed(watch, quiet())
    samples, events = fed(watch, [50, 60, 2, 2, 50, 2, 2, 2, 2], 200)
    assert [(e.event_type, e.value) for e in events if isinstance(e, Alarm)] == [("up", 50), ("cleared", 2)]
    assert events[0].time_ns == T0 + 201 * S and events[1].time_ns == T0 + 208 * S
    assert events[0].threshold < 50 and 0 < events[0].probability < 1e-3
    assert [s.state for s in samples] == ["alarm"] * 7 + ["watching"] * 2


def test_what_nobody_cares_for_and_what_was_nearly_seen_before_is_no_alarm() -> None:
    rare = Watch("X", COUNT, 1, spot())
    assert fed(rare, [0.0] * 200 + [9.0])[1] == []  # the law says impossible; fewer than ten are nobody's business
    assert [e.value for e in fed(rare, [19.0], 300)[1]] == [19.0]
    busy = Watch("X", COUNT, 1, spot())
    fed(busy, [*quiet(), 9.0, 2.0])
    samples, events = fed(busy, [17.0, 2.0], 300)
    assert events == [] and samples[1].up == pytest.approx(34, abs=1e-3)  # twice the greatest of late
    assert [e.threshold for e in fed(busy, [70.0], 302)[1]] == pytest.approx([34.0], abs=0.01)


@pytest.mark.parametrize("value", [0.0, 7.0, 1e-12, 1e15])
@pytest.mark.parametrize("log", [False, True])
def test_what_is_always_the_same_is_not_too_low(value: float, log: bool) -> None:
    stat = replace(COUNT, least=2 * value, log=log)
    assert fed(Watch("X", stat, 1, spot(down=True)), [value] * 300 + [1.01 * value] + [value] * 300)[1] == []


def test_a_number_below_zero_may_be_too_high() -> None:
    watch = Watch("X", known({"X": {"value": "A - B"}}, ("A", "B"))["X"], 1, spot())
    for i, value in enumerate([*(x - 50 for x in quiet()), -20.0]):
        sample, events = watch.step(replace(window(i, 0), counts={"A": 0, "B": -value}))
    assert [(e.event_type, e.value) for e in events if isinstance(e, Alarm)] == [("up", -20.0)]
    assert sample.up is not None and -50 < sample.up < -20


def test_an_attack_that_begins_within_a_window_does_not_hide_the_next_one() -> None:
    watch = Watch("X", COUNT, 60, spot(learn="discard"), clear_after=1)
    fed(watch, [*quiet(), 9.0, 2.0])
    begun = [17.0, 30.0, 30.0]  # a part of a minute, then whole ones: more than twice nine, not than twice seventeen
    events = fed(watch, begun, 300)[1]
    assert [(e.event_type, e.value) for e in events if isinstance(e, Alarm)] == [("up", 30.0)]


def test_an_incident_moves_the_floor_only_a_little() -> None:
    watch = Watch("X", COUNT, 60, spot(learn="discard"), clear_after=1)
    fed(watch, quiet())
    before = watch.floor
    fed(watch, [500.0, 2.0], 300)
    assert before < watch.floor <= 1.1 * before


def test_a_longer_span_learns_a_new_level_after_long_alarms_only() -> None:
    watch = Watch("X", COUNT, 10, spot(relearn_after=0), clear_after=1, relearn_after=5)
    fed(watch, quiet())
    _, events = fed(watch, [900.0] * 6, 300)
    assert [type(e) for e in events] == [Alarm, Alarm, Relearn]
    assert events[1].event_type == "cleared" and watch.spot is not None and watch.spot.learned == 1


def test_a_range_that_is_not_kept_to_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch("X", replace(COUNT, range=(0.0, 1.0)), 1, spot(range=(0, 1)))
    fed(watch, [0.0, 1.0, math.nan])
    assert caplog.messages == []
    fed(watch, [50.0, 60.0])
    assert caplog.messages == ["X: its value 50 is out of its range [0, 1], so that its thresholds mean nothing"]


def test_partial_windows_and_silence_teach_nothing() -> None:
    watch = Watch("X", replace(COUNT, compute=lambda count: count or math.nan), 1, spot())
    watch.step(replace(window(1, 5), seconds=0.5))
    fed(watch, [0.0] * 5)
    assert watch.spot is not None and watch.spot.learned == 0
    watch.step(window(10, 5))
    assert watch.spot.learned == 1


def test_what_was_learned_outlives_a_restart_unless_parameters_changed() -> None:
    one, same, other = (Watch("X", COUNT, 1, spot(q=q)) for q in (1e-3, 1e-3, 1e-4))
    fed(one, [*quiet(), 9.0])
    assert same.restore(one.state()) and same.floor == one.floor
    assert fed(same, [30.0], 300)[1] == fed(one, [30.0], 300)[1] != []
    assert not other.restore(one.state()) and not other.restore({})


def test_another_expression_under_the_same_name_learns_anew() -> None:
    def watch(counter: str, **given: str) -> Watch:
        config = Config(counters={"MQTT": counter}, stats={"R": given}, spot=SpotConfig(n_init=100))
        return watches(config, pipeline.known(config)[0], ["R"])[0]

    one = watch("dport == 1883", value="MQTT / IP")
    for i in range(60):
        one.step(Window(T0 + i * S, T0 + (i + 1) * S, {"MQTT": 1.0, "IP": 2.0 + i % 3}, 0, 1.0))
    assert one.state()["meaning"] == "MQTT / IP; MQTT = dport == 1883"
    assert watch("dport == 1883", value="MQTT / IP", unit="%", help="what it is").restore(one.state())
    assert not watch("dport == 8883", value="MQTT / IP").restore(one.state())
    assert not watch("dport == 1883", value="IP / MQTT").restore(one.state())
    assert not watch("dport == 1883", value="MQTT / IP", transform="log1p").restore(one.state())


def test_the_budget_is_shared() -> None:
    config = Config(analyzer=AnalyzerConfig(false_alarms_per_day=2))
    chosen = watches(config, STATS, ["RST", "R_SYN@10", "R_ACK@60", "PERF"])
    q = {watch.name: watch.spot.parameters["q"] for watch in chosen if watch.spot}
    assert q == pytest.approx({"RST": 2 / 86400 / 3, "R_SYN@10": 20 / 86400 / 3, "R_ACK@60": 120 / 86400 / 3})
    assert sum(q[w.name] * 86400 / w.span for w in chosen if w.spot) == pytest.approx(2)


def test_a_law_of_few_windows_is_not_asked_for_what_it_cannot_tell() -> None:
    """A threshold that an extrapolated law puts at a thousand times all that was ever seen is none."""
    watch = watches(Config(), STATS, ["UP_BYTES@60"])[0]
    rates = np.random.default_rng(3).lognormal(10, 0.7, 40)
    for i, value in enumerate(rates, 1):
        counts = {"UP_BYTES": 60 * value, "SOURCE_TIME": 60 * S}
        sample, _ = watch.step(Window(T0 + 60 * (i - 1) * S, T0 + 60 * i * S, counts, 0, 60.0, 60))
    assert sample.up is not None and rates.max() < sample.up < 5 * rates.max()


def test_an_explicit_q_wins_and_a_span_may_have_its_own_section() -> None:
    config = Config(spot_stats={"RST": SpotConfig(q=1e-3), "RST@10": SpotConfig(q=2e-3, down=True)})
    by_name = {watch.name: watch.spot for watch in watches(config, STATS, ["RST", "RST@10", "RST@60"])}
    assert [spot.parameters["q"] for spot in by_name.values() if spot] == [1e-3, 2e-3, 1e-3]
    assert by_name["RST@10"] is not None and by_name["RST@10"].parameters["down"]


def test_longer_spans_learn_in_the_same_time() -> None:
    config = Config(spot=SpotConfig(n_init=1000, level=0.98, depth=50))
    spots = [watch.spot for watch in watches(config, STATS, ["RST", "RST@10", "RST@60"])]
    assert [(s.parameters["n_init"], s.parameters["depth"]) for s in spots if s] == [(1000, 50), (100, 5), (20, 0)]
    assert [s.parameters["level"] for s in spots if s] == pytest.approx([0.98, 0.9, 0.7])


def test_classic_leaves_it_to_the_detector() -> None:
    for watch in watches(Config(analyzer=AnalyzerConfig(profile="classic")), STATS, PROFILES["classic"]):
        assert watch.floor == -math.inf


def test_only_statistics_of_the_windows_span_are_stepped() -> None:
    analyzer = Analyzer([Watch("X", COUNT, 1, spot()), Watch("X@10", COUNT, 10, spot())], "pi")
    assert [sample.stat for sample in analyzer.step(window(1, 1))[0]] == ["X"]
    assert [sample.stat for sample in analyzer.step(window(10, 1, 10))[0]] == ["X@10"]
    assert analyzer.progress == (1, 100)


def test_muted_alarms_are_counted_and_begin_no_incident() -> None:
    analyzer = Analyzer([Watch("X", COUNT, 1, spot())], "pi", mute=rules([{"stat": "X"}]))
    for i, value in enumerate([*quiet(), 50.0], 1):
        _, events = analyzer.step(window(i, value))
    assert [(type(e), e.muted, e.id) for e in events if isinstance(e, Alarm)] == [(Alarm, True, "")] and len(
        events
    ) == 1
    assert analyzer.alarms == 1


def test_a_statistic_muted_by_command_says_so() -> None:
    analyzer = Analyzer([Watch("X", COUNT, 1, spot())], "pi")
    for i, value in enumerate(quiet(), 1):
        analyzer.step(window(i, value))
    analyzer.mute(["X"], T0 + 250 * S)
    samples, events = analyzer.step(window(201, 2))
    assert samples[0].state == "muted"
    _, events = analyzer.step(window(202, 90))
    assert [e.muted for e in events if isinstance(e, Alarm)] == [True]
    analyzer.mute(["X"], 0)
    for i in range(203, 220):
        analyzer.step(window(i, 2))
    _, events = analyzer.step(window(220, 900))
    assert [type(e).__name__ for e in events] == ["Alarm", "Incident"] and not events[0].muted


def test_relearning_by_command_ends_an_open_alarm() -> None:
    analyzer = Analyzer([Watch("X", COUNT, 1, spot())], "pi")
    for i, value in enumerate([*quiet(), 90.0], 1):
        analyzer.step(window(i, value))
    id = analyzer.incidents.id
    alarm, begun = analyzer.relearn(["X"], T0 + 300 * S, "somebody asked for it")
    assert isinstance(alarm, Alarm) and (alarm.event_type, alarm.id, alarm.seq) == ("cleared", id, 3)
    assert begun == Relearn("X", T0 + 300 * S, "somebody asked for it")


def told(events: list[Event]) -> list[tuple[str, bool | None, bool]]:
    """(what happened, muted, whether it is part of an incident)."""
    return [(e.event_type, getattr(e, "muted", None), bool(e.id)) for e in events if isinstance(e, Alarm | Incident)]


def alarmed(**options: Any) -> Analyzer:
    """With an alarm in window 201."""
    analyzer = Analyzer([Watch("X", COUNT, 1, spot(), clear_after=3)], "pi", **options)
    for i, value in enumerate([*quiet(), 900.0], 1):
        analyzer.step(window(i, value))
    return analyzer


def run(analyzer: Analyzer, start: int, values: list[float]) -> list[Event]:
    return [event for i, value in enumerate(values, start) for event in analyzer.step(window(i, value))[1]]


def test_muting_by_command_reaches_an_open_alarm() -> None:
    analyzer = alarmed()
    id = analyzer.incidents.id
    analyzer.mute(["X"], T0 + 1000 * S)
    events = run(analyzer, 202, [900.0])
    assert told(events) == [("cleared", False, True)] and events[0].id == id  # type: ignore[union-attr]
    later = run(analyzer, 203, [900.0] * 60)
    assert told(later) == [("closed", None, True)] and analyzer.incidents.id == ""
    assert later[0].end_ns == T0 + 201 * S  # type: ignore[union-attr]
    assert told(run(analyzer, 263, [2.0] * 5)) == [("cleared", True, False)]
    assert analyzer.alarms == 1


def test_unmuting_tells_an_alarm_that_is_still_outside() -> None:
    analyzer = alarmed(mute=rules([{"stat": "X", "until": "2023-11-14T22:17:10Z"}]))  # window 230
    assert run(analyzer, 202, [900.0] * 28) == []
    events = run(analyzer, 230, [800.0, 900.0, 900.0])
    assert told(events) == [("up", False, True), ("opened", None, True)]
    assert (events[0].value, events[0].time_ns) == (800.0, T0 + 230 * S)  # type: ignore[union-attr]
    assert [e.seq for e in events] == [2, 3]  # type: ignore[union-attr]
    assert told(run(analyzer, 233, [2.0] * 3)) == [("cleared", False, True)]
    assert analyzer.alarms == 1


def test_what_is_nearly_back_when_it_is_unmuted_is_not_told() -> None:
    analyzer = alarmed()
    analyzer.mute(["X"], T0 + 205 * S)
    run(analyzer, 202, [900.0] * 2)
    assert told(run(analyzer, 204, [2.0] * 20)) == [("cleared", True, False)]


def test_muting_again_and_again_tells_pairs() -> None:
    analyzer = alarmed()
    kinds = []
    for i in range(202, 272):
        if i % 20 == 0:
            analyzer.mute(["X"], T0 + (i + 5) * S)
        kinds += [e.event_type for e in run(analyzer, i, [900.0]) if isinstance(e, Alarm)]
    assert kinds == ["cleared", "up"] * 3


def test_relearning_ends_a_muted_alarm_as_muted() -> None:
    analyzer = alarmed(mute=rules([{"stat": "X"}]))
    events = analyzer.relearn(["X"], T0 + 300 * S, "somebody asked for it")
    assert told(events) == [("cleared", True, False)] and events[0].seq == 2  # type: ignore[union-attr]


def test_closing_ends_everything_once() -> None:
    analyzer = alarmed()
    id = analyzer.incidents.id
    events = analyzer.close(T0 + 300 * S)
    assert [(e.event_type, e.id, e.seq) for e in events if isinstance(e, Alarm | Incident)] == [
        ("cleared", id, 3),
        ("closed", id, 4),
    ]
    assert analyzer.close(T0 + 301 * S) == [] and analyzer.incidents.id == ""
    assert alarmed(mute=rules([{"stat": "X"}])).close(T0)[0].muted  # type: ignore[union-attr]


def test_a_logarithm_is_of_what_is_above_minus_one() -> None:
    watch = Watch("X", replace(COUNT, log=True, range=(0.0, math.inf)), 1, spot())
    samples, events = fed(watch, [-1.0, -5.0, math.inf, math.nan])
    assert events == [] and watch.spot is not None and watch.spot.skipped == 4 and samples[0].value == -1


@pytest.mark.parametrize("ends", [(-5.0, None), (-1.0, 3.0), (None, -1.0), (None, 0.0)])
def test_ranges_that_have_no_logarithm(ends: tuple[float | None, float | None]) -> None:
    with pytest.raises(ConfigError, match=r"stats\.A\.range = .*above -1.*\[0, null\]"):
        known({"A": {"value": "SYN - ACK", "transform": "log1p", "range": ends}}, COUNTERS)


def test_what_the_detector_refuses_names_the_statistic_and_the_option() -> None:
    odd = {"A": replace(COUNT, name="A", range=(-5.0, math.inf), log=True), "B": replace(COUNT, range=(3.0, 1.0))}
    for name in odd:
        with pytest.raises(ConfigError, match=f"statistic {name}, .*: range = "):
            watches(Config(), odd, [name])


def test_nothing_watched_shares_no_budget() -> None:
    assert watches(Config(spot=SpotConfig(up=False)), STATS, ["RST"])[0].spot is None
    assert watches(Config(), STATS, ["PERF"])[0].spot is None


def test_own_statistics_join() -> None:
    stats = known({"R_X": {"value": "SYN / (TCP + 1)", "range": (0, 1)}}, COUNTERS)
    assert stats["R_X"].needs == ("SYN", "TCP") and stats["R_X"].compute(1, 3) == 0.25
