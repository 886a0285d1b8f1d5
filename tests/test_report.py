"""A run as one page."""

import io
import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netspot.events import Alarm, Incident, Sample, Window
from netspot.exporters.base import StatInfo
from netspot.record import replace
from netspot.report import ALARMS, INCIDENTS, POINTS, Condensed, Report
from netspot.snapshot import OUTSIDE, Cells, Info
from tests.test_web_page import missing
from tests.web.feed import MADE, Feed

S = 1_000_000_000
INFO = Info("node", "home.pcap", "3.0.0", 0, S, (StatInfo("R_SYN", "1", "share <b>of</b> SYN"),))


def window(end_ns):
    return Window(end_ns - S, end_ns, {"PKTS": 10, "BYTES": 1000}, 1, 1.0)


def sample(end_ns, value, up=None, state="watching"):
    return Sample("R_SYN", end_ns, value, "1", up, None, state, 5, 5)


def page(report):
    file = io.StringIO()
    report.write(file)
    return file.getvalue()


def data(text):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)[1])


def test_it_holds_everything_and_needs_nothing():
    report = Report(INFO, {"spot": {"q": 1e-4}})
    alarm = Alarm("R_SYN", 3 * S, 0.9, "up", 0.5, 1e-7)
    incident = Incident(
        "n-1", 3 * S, "opened", 1, "port scan", ("R_SYN",), 3 * S, None, {"stat": "R_SYN", "value": 0.9}
    )
    incident = replace(incident, evidence={"top_src": [["192.168.1.23", 0.94]]})
    report.step(window(S), [sample(S, 0.1, state="learning")], [], {})
    report.step(window(2 * S), [sample(2 * S, math.nan, 0.5)], [], {})
    report.step(window(3 * S), [sample(3 * S, 0.9, 0.5, "alarm")], [alarm, incident], {})
    text = page(report)
    assert data(text) == {
        "t0": 1000,
        "t": [0, 1000, 1000],
        "stats": {"R_SYN": {"v": [0.1, None, 0.9], "u": [[0, None], [1, 0.5]], "a": [2]}},
    }
    for words in (
        "home.pcap",
        "port scan",
        "192.168.1.23 94 %",
        "above 0.5",
        "probability 1e-07",
        "3.0.0",
        "&quot;q&quot;",
    ):
        assert words in text
    assert "<dt>Packets</dt><dd>30</dd>" in text and "<dt>Dropped</dt><dd>3</dd>" in text
    assert not re.search(r"""(src|href)=|url\(|https?://|@import""", text)


def test_hostile_text_stays_text():
    report = Report(replace(INFO, series="</title><script>alert(1)</script>"), {"node": "</pre><script>"})
    title = "</script><img src=x onerror=alert(1)>"
    incident = Incident("n", S, "opened", 1, title, ("R_SYN",), S, None, {}, {"top_src": [["<b>", 0.5]]})
    report.step(window(S), [sample(S, 0.1)], [incident], {})
    text = page(report)
    assert text.count("<script") == 3 and "<img" not in text and "<b>" not in text


def test_a_run_without_packets():
    text = page(Report(INFO, {}))
    assert data(text)["t"] == [] and "no packets" in text


def test_a_capture_whose_clock_was_set_back_is_in_the_order_of_time():
    report = Report(INFO, {})
    for end, value in ((9, 0.1), (10, 0.9), (3, 0.3), (4, 0.4)):
        report.step(window(end * S), [sample(end * S, value, 0.5)], [], {})
    text = page(report)
    columns = {"v": [0.3, 0.4, 0.1, 0.9], "u": [[0, 0.5]], "a": [3]}
    assert data(text) == {"t0": 3000, "t": [0, 1000, 5000, 1000], "stats": {"R_SYN": columns}}
    assert "1970-01-01T00:00:02.000Z to 1970-01-01T00:00:10.000Z" in text


def test_lists_are_bounded_and_say_so():
    report = Report(INFO, {})
    for i in range(1, ALARMS + 100):
        alarm = Alarm("R_SYN", i * S, 0.9, "up", 0.5, 1e-7)
        incident = Incident(f"n-{i}", i * S, "opened", 1, "scan", ("R_SYN",), i * S, None, {})
        report.step(window(i * S), [sample(i * S, 0.9, 0.5)], [alarm, incident], {})
    text = page(report)
    assert "and 99 more" in text and f"<dt>Alarms</dt><dd>{ALARMS + 99:,}</dd>" in text
    assert text.count("<h3>scan</h3>") == INCIDENTS


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5 * POINTS), st.integers(0, 2**32 - 1))
def test_however_long_the_run_extremes_anomalies_and_time_stay(windows, seed):
    random = np.random.default_rng(seed)
    values = random.normal(size=windows).astype(np.float32)
    values[random.random(windows) < 0.1] = np.nan
    past = Condensed(1)
    for i, value in enumerate(values.tolist()):
        past.write((i + 1) * S, Cells.of([replace(sample((i + 1) * S, value, 2.5))], {"R_SYN": 0}, {}))
    rows = past.of(0)
    assert 1 <= len(rows.time_ns) <= 2 * POINTS
    assert (np.diff(rows.time_ns) > 0).all() and rows.time_ns[-1] == windows * S
    if not np.isnan(values).all():
        assert np.nanmin(rows.low) == np.nanmin(values) and np.nanmax(rows.high) == np.nanmax(values)
    assert bool((rows.bits & OUTSIDE).any()) == bool((values > 2.5).any())
    assert (rows.up == 2.5).all()


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_report_in_a_browser(tmp_path):
    info = Info("pi-kitchen", f"{'a' * 200}.pcap", "3.0.0", 0, S, MADE)
    report = Report(info, {"analyzer": {"period": "1s"}})

    class Reported:
        def __init__(self):
            self.info = info

        def step(self, *what):
            report.step(*what)

    feed = Feed(Reported(), seed=1)
    for i in range(1, 4000):
        if i in (900, 2500):
            feed.attacked = dict.fromkeys(["R_SYN", "FANOUT_PORTS", "R_IP"], 8)
        feed.step(1_795_514_400 * S + i * S)
    file = tmp_path / "report.html"
    with file.open("w", encoding="utf-8") as out:
        report.write(out)
    script = Path(__file__).parent / "web" / "report.mjs"
    done = subprocess.run(
        ["node", str(script), str(file), str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
