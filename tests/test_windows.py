"""The stream is cut at period boundaries, whatever the clock, the batches and the order of packets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netspot.events import Window
from netspot.miner.counters import COUNTERS, CounterBank
from netspot.miner.windows import JUMP, Windows
from netspot.packets import COLUMNS, DTYPES, Frames, PacketBatch, nothing

S = 10**9
T0 = 1_700_000_000 * S


def batch(ts_ns: list[int], until_ns: int = 0, dropped: int = 0) -> PacketBatch:
    """A packet, of whatever kind, at each of ``ts_ns``."""
    n = len(ts_ns)
    columns = {name: np.zeros(n, DTYPES.get(name, np.bool_)) for name in COLUMNS}
    columns["ts_ns"] = np.array(ts_ns, np.int64)
    frames = Frames(np.zeros(1, np.uint8), np.zeros(n, np.int64), np.zeros(n, np.uint32), 1)
    return PacketBatch(until_ns, dropped, **columns, frames=frames)


def cut(batches: list[PacketBatch], period_ns: int = S, start_ns: int | None = None, **spans: int) -> list[Window]:
    windows = Windows(CounterBank([COUNTERS["PKTS"]], {n: ["PKTS"] for n in spans.values()}), period_ns, start_ns)
    closed = [window for one in batches for many in windows.push(one) for window in many]
    if start_ns is None:
        closed += [window for many in windows.finish() for window in many]
    return closed


def told(windows: list[Window]) -> list[tuple[int, int]]:
    """(start since T0 [s], packets)."""
    return [((window.start_ns - T0) // S, int(window.counts["PKTS"])) for window in windows]


def test_windows_lie_on_the_epochs_grid_and_silent_ones_are_told() -> None:
    packets = [T0 + 900_000_000, T0 + S, T0 + 4 * S - 1, T0 + 4 * S]
    assert told(cut([batch(packets)])) == [(0, 1), (1, 1), (2, 0), (3, 1), (4, 1)]


@settings(max_examples=200, derandomize=True)
@given(
    st.lists(st.integers(-3 * S, 200 * S), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_batches_make_no_difference(steps_ns: list[int], cuts: list[int]) -> None:
    """Late packets, holes and clock steps included."""
    packets = (T0 + np.cumsum(steps_ns)).tolist()
    edges = [0, *sorted(min(cut, len(packets)) for cut in cuts), len(packets)]
    pieces = [batch(packets[a:b]) for a, b in pairwise(edges)]
    assert told(cut(pieces)) == told(cut([batch(packets)]))
    assert sum(count for _, count in told(cut(pieces))) == len(packets)


def test_a_late_packet_counts_in_the_open_window() -> None:
    assert told(cut([batch([T0, T0 + S, T0 + 10, T0 + S + 5])])) == [(0, 1), (1, 3)]


@pytest.mark.parametrize("years", [-20, 20])
def test_a_step_of_the_clock_restarts_the_grid_without_empty_windows(years: int) -> None:
    there = T0 + years * 365 * 86_400 * S
    windows = cut([batch([T0, there, there + S])])
    assert [int(w.counts["PKTS"]) for w in windows] == [1, 1, 1]
    assert windows[1].start_ns == there // S * S


def test_a_hole_up_to_the_limit_is_silence() -> None:
    assert len(cut([batch([T0, T0 + JUMP * S])])) == JUMP + 1
    assert len(cut([batch([T0, T0 + (JUMP + 1) * S])])) == 2


def test_live_the_watermark_closes_silent_windows_and_the_first_is_partial(monkeypatch: pytest.MonkeyPatch) -> None:
    start = T0 + 400_000_000
    monkeypatch.setattr("time.monotonic_ns", itertools.count(0, 3 * S).__next__)
    windows = cut([nothing(T0 + 3 * S + 5)], start_ns=start)
    assert [window.partial for window in windows] == [True, False, False]
    assert [window.seconds for window in windows] == [pytest.approx(0.6), 1.0, 1.0]


def test_live_the_clock_is_set_back() -> None:
    windows = cut([batch([T0], T0), nothing(T0 - 10 * S), batch([T0 - 10 * S], T0 - 8 * S)], start_ns=T0)
    assert told(windows) == [(0, 1), (-10, 1), (-9, 0)]


@pytest.mark.parametrize(("passed_s", "told_s"), [(40, range(41)), (38, range(41)), (37, (0, 40)), (1, (0, 40))])
def test_live_the_clock_is_set_forward_by_less_than_a_minute(
    passed_s: int, told_s: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a Pi's boot, when it hears what time it is: nothing was seen, and no silence is told."""
    times = iter([0, passed_s * S])
    monkeypatch.setattr("time.monotonic_ns", lambda: next(times, (passed_s + 1) * S))
    there = T0 + 40 * S + 700_000_000
    windows = cut([nothing(there), nothing(there + S)], start_ns=T0)
    assert [(window.start_ns - T0) // S for window in windows] == list(told_s)
    assert [window.partial for window in windows] == [len(told_s) == 2] * len(told_s)


def test_losses_belong_to_the_window_in_which_they_happened() -> None:
    windows = cut([batch([T0], T0, 3), nothing(T0 + S, 4), nothing(T0 + 2 * S, 5)], start_ns=T0)
    assert [(window.dropped, window.counts["DROPPED"]) for window in windows] == [(7, 7), (5, 5)]


def test_longer_spans_end_with_the_window_they_end_with() -> None:
    packets = [T0 + i * S // 2 for i in range(50)]
    windows = cut([batch(packets)], ten=10)
    longer = [(w.start_ns - T0, w.span, w.counts["PKTS"]) for w in windows if w.span > 1]
    assert longer == [(0, 10, 20), (10 * S, 10, 20)]


def test_a_span_that_a_jump_broke_is_not_told() -> None:
    packets = [T0 + 3 * S, T0 + 1005 * S, T0 + 1010 * S]
    windows = cut([batch(packets)], ten=10)
    assert [(w.start_ns - T0) // S for w in windows if w.span == 10] == [1000]
    assert [w.partial for w in windows if w.span == 10] == [True]


def test_replacing_the_period_moves_the_grid() -> None:
    windows = cut([batch([T0 + 200_000_000, T0 + 700_000_000])], period_ns=S // 2)
    assert [window.start_ns - T0 for window in windows] == [0, S // 2]


def test_what_the_source_could_not_see_is_no_silence() -> None:
    windows = Windows(CounterBank([COUNTERS["PKTS"]], {2: ["PKTS"]}), S, T0)
    told: list[Window] = []
    for until_s, blind in ((1, False), (2, True), (3, False), (4, False), (5, False), (6, False)):
        told += [window for many in windows.push(nothing(T0 + until_s * S), blind) for window in many]
    assert [window.partial for window in told if window.span == 1] == [False, True, True, False, False, False]
    assert [window.partial for window in told if window.span == 2] == [True, True, False]


def test_live_a_window_that_a_step_of_the_clock_cut_is_partial_and_so_is_the_next() -> None:
    there = T0 + 10**6 * S + 700_000_000
    windows = cut([nothing(T0 + S), nothing(there), nothing(there + 2 * S)], start_ns=T0)
    assert [window.partial for window in windows] == [False, True, True, False]
    assert windows[2].seconds == pytest.approx(0.3)


def test_the_time_that_a_span_took_is_that_of_all_its_windows() -> None:
    spans = cut([batch([T0 + i * S for i in range(11)])], ten=10)
    assert spans[10].counts["REAL_TIME"] == pytest.approx(sum(w.counts["REAL_TIME"] for w in spans[:10]))
