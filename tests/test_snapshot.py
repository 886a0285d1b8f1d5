"""The board between the main loop and the web threads."""

import math
import threading
import time

import numpy as np
import pytest

from netspot.events import Alarm, Incident, Sample, Window
from netspot.exporters.base import StatInfo
from netspot.record import replace
from netspot.snapshot import ALARMS, INCIDENTS, LEARNING, MARGIN, OUTSIDE, Board, History, Info, ring_rows

S = 1_000_000_000
STATS = (StatInfo("A", "1", "first"), StatInfo("B", "byte", "second"))


def board(period_ns=S, stats=STATS):
    return Board(Info("node", "eth0", "3", 0, period_ns, stats))


def window(end_ns):
    return Window(end_ns - S, end_ns, {"PKTS": 5}, 0, 1.0)


def sample(stat, end_ns, value, up=None, down=None, state="watching"):
    return Sample(stat, end_ns, value, "1", up, down, state, 1, 1)


def test_a_step_publishes_one_consistent_picture():
    b = board()
    before = b.current
    b.step(window(S), [sample("A", S, 0.5, up=0.9), sample("UNKNOWN", S, 1.0)], [], {"phase": "watching"})
    assert before.seq == 0 and before.samples == {}
    assert b.current.seq == 1
    assert b.current.time_ns == S
    assert list(b.current.samples) == ["A"]
    assert b.current.health == {"phase": "watching"}


def test_history_holds_values_thresholds_and_what_was_outside():
    b = board()
    b.step(window(S), [sample("A", S, 0.5, state="learning"), sample("B", S, math.nan)], [], {})
    b.step(window(2 * S), [sample("A", 2 * S, 0.95, up=0.9, state="alarm")], [], {})
    b.step(window(3 * S), [sample("A", 3 * S, 0.05, up=0.9, down=0.1)], [], {})
    rows = b.history.windows(0, b.current.seq, b.columns["A"])
    assert rows.time_ns.tolist() == [S, 2 * S, 3 * S]
    assert rows.high.tolist() == pytest.approx([0.5, 0.95, 0.05])
    assert np.isnan(rows.up[0]) and rows.up[1] == pytest.approx(0.9)
    assert (rows.bits & OUTSIDE).astype(bool).tolist() == [False, True, True]
    assert rows.bits[0] & LEARNING
    assert np.isnan(b.history.windows(0, 3, b.columns["B"]).high).all()


def test_a_minute_keeps_the_extremes_and_the_last_thresholds():
    b = board()
    for i, value in enumerate([3.0, 1.0, math.nan, 7.0]):
        end_ns = 61 * S + i * S
        b.step(window(end_ns), [sample("A", end_ns, value, up=8.0 + i)], [], {})
    b.step(window(121 * S), [sample("A", 121 * S, 2.0, up=5.0)], [], {})
    rows = b.history.minutes(0)
    assert rows.time_ns.tolist() == [120 * S, 180 * S]
    assert (rows.low.tolist(), rows.high.tolist()) == ([1.0, 2.0], [7.0, 2.0])
    assert rows.up.tolist() == [11.0, 5.0]


def test_a_clock_that_was_set_back_leaves_out_what_seems_later():
    b = board()
    for end in (100, 101, 102, 40, 41, 42, 41, 42):
        b.step(window(end * S), [sample("A", end * S, end)], [], {})
    rows = b.history.windows(0, b.current.seq, 0)
    assert rows.time_ns.tolist() == [40 * S, 41 * S, 41 * S, 42 * S] and rows.high.tolist() == [40, 41, 41, 42]
    assert b.history.minutes(0).time_ns.tolist() == [60 * S]
    assert b.history.set_back == 7


def test_only_the_newest_rows_stay_and_in_order():
    b = board(period_ns=60 * S)  # an hour is 60 rows
    rows = b.history.full.rows
    for i in range(1, 3 * rows):
        b.step(window(i * S), [sample("A", i * S, i)], [], {})
    kept = b.history.windows(0, b.current.seq, 0).high.tolist()
    assert kept == list(range(3 * rows - (rows - MARGIN), 3 * rows))


@pytest.mark.parametrize("stats", [1, 10, 30, 60, 200])
@pytest.mark.parametrize("period_ns", [S // 100, S // 10, S, 60 * S])
def test_history_stays_under_4_mib(stats, period_ns):
    assert History(stats, period_ns).nbytes < 4 << 20


def test_an_hour_and_a_day_of_30_statistics_fit():
    history = History(30, S)
    assert history.full.rows >= 3600 and history.day.rows >= 1440
    assert ring_rows(3600, 30, 3, 10**9) == 3600 + MARGIN


def test_alarms_and_incidents_are_bounded_and_an_incident_is_replaced():
    b = board()
    incident = Incident("x-1", S, "opened", 1, "scan", ("A",), S, None, {"stat": "A"})
    b.step(window(S), [], [Alarm("A", S, 1.0, "up", 0.5, 1e-5), incident], {})
    b.step(window(2 * S), [], [Alarm("A", 2 * S, 0.1, "cleared", 0.5, 1.0)], {})
    closed = replace(incident, event_type="closed", end_ns=2 * S, time_ns=2 * S)
    b.step(window(3 * S), [], [closed], {})
    assert b.current.alarm_counts == {"A": 1}
    assert [(seq, alarm["event_type"]) for seq, alarm in b.current.alarms] == [(1, "up"), (2, "cleared")]
    assert [(seq, incident["event_type"]) for seq, incident in b.current.incidents] == [(3, "closed")]
    for i in range(4, 700):
        b.step(window(i * S), [], [Alarm("A", i * S, 1.0, "up", 0.5, 1e-5), replace(incident, id=f"x-{i}")], {})
    assert len(b.current.alarms) == ALARMS and len(b.current.incidents) == INCIDENTS
    assert b.current.alarm_counts == {"A": 697}


def test_a_reader_on_another_thread_never_sees_a_torn_row():
    b = board()
    ended = threading.Event()

    def write():
        i = 0
        while not ended.is_set():
            i += 1
            b.step(window(i * S), [sample("A", i * S, i, up=i), sample("B", i * S, i, up=i)], [], {})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            end = b.current.seq
            rows = b.history.windows(end - 40, end, slice(None))
            if b.current.seq - end > b.history.full.rows - 60:
                continue  # the reader had no processor for so long that the writer, who never waits here, lapped it
            expected = np.arange(end - len(rows.time_ns) + 1, end + 1)
            assert (rows.time_ns // S == expected).all()
            assert (rows.high == expected[:, None].astype(np.float32)).all()
            assert (rows.up == rows.high).all()
    finally:
        ended.set()
        writer.join()


def test_a_step_of_30_statistics_costs_little():
    stats = tuple(StatInfo(f"S{i}", "1", "") for i in range(30))
    b = board(stats=stats)
    times = []
    for i in range(1, 400):
        samples = [sample(info.name, i * S, 0.5, up=0.9) for info in stats]
        start = time.thread_time()
        b.step(window(i * S), samples, [], {})
        times.append(time.thread_time() - start)
    assert sorted(times)[200] < 0.3e-3
