"""The owner's own counters and statistics: what may be said, what it means, and how mistakes are told."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netspot import plugins
from netspot.analyzer.stats import Stat, known, own
from netspot.config import parse
from netspot.errors import ConfigError
from netspot.expressions import COLUMNS, COMPLAINTS, CONDITIONS, arithmetic, condition
from netspot.miner import counters
from netspot.miner.counters import Counter
from netspot.packets import ACK, RST, SYN, PacketBatch
from netspot.pipeline import mistakes
from tests.frames import arp, batch, eth, icmp, icmp6, ip4, ip6, tcp, udp

FRAMES = [
    eth(ip4(tcp(SYN, dport=1883), src="192.168.1.5", dst="10.0.0.9")),
    eth(ip4(tcp(SYN | ACK, sport=1883, dport=5000), src="10.0.0.9", dst="192.168.1.5")),
    eth(ip4(udp(b"x" * 900, dport=53), src="192.168.2.5", dst="8.8.8.8")),
    eth(ip6(udp(dport=0))),
    eth(arp(op=2)),
    eth(ip4(icmp(8))),
    eth(ip6(icmp6(135))),
]
PACKETS = batch(FRAMES)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("tcp", [0, 1]),
        ("tcp and dport == 1883", [0]),
        ("tcp and port == 1883", [0, 1]),
        ("not tcp", [2, 3, 4, 5, 6]),
        ("syn and not ack", [0]),
        ("udp or icmp and ip4", [2, 3, 5]),
        ("(udp or icmp) and ip6", [3]),
        ("src in 192.168.1.0/24", [0, 5]),
        ("src in [192.168.1.5, 10.0.0.0/8]", [0, 1]),
        ("host == 8.8.8.8", [2]),
        ("src != 192.168.1.5", [1, 2, 5]),
        ("dport in [53, 1000-2000]", [0, 2]),
        ("dport not in [53, 1883]", [1, 3]),
        ("dport == 0", [3]),
        ("dport < 100", [2, 3]),
        ("len > 0x200", [2]),
        ("proto == 58", [6]),
        ("icmp_type == 8", [5]),
        ("ethertype == 0x806 and arp_op == 2", [4]),
        ("src_home and not dst_home", [2]),
        ("dport == 1000-2000", [0]),
    ],
)
def test_conditions(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(condition(text, "counters.X")(PACKETS)).tolist() == rows


@pytest.mark.parametrize(
    ("text", "column", "complaint"),
    [
        ("tcp and dprot == 1", 9, "did you mean"),
        ("tcp and dport", 14, "compare it with"),
        ("dport == ", 9, "the end stands where a number is wanted"),
        ("dport in [1, 2", 15, "']' is missing"),
        ("tcp udp", 5, "one thing too many"),
        ("src == 5", 8, "an IPv4 address or prefix is wanted"),
        ("src in 10.0.0.0/99", 8, "no IPv4 address or prefix"),
        ("dport == 10.0.0.1", 10, "dport is no address"),
        ("dport == 99999999999", 10, "larger than any header field"),
        ("dport in 9-3", 10, "the range is empty"),
        ("dport < 1-3", 7, "only == and !="),
        ("tcp @ udp", 5, "has no meaning here"),
        ("__import__('os')", 12, "has no meaning here"),
        ("", 1, "the end is no header column"),
        ("(" * 60 + "tcp" + ")" * 60, 51, "levels inside one another"),
        ("tcp" + " or tcp" * 300, 0, "longer than"),
    ],
)
def test_mistakes_point_at_the_column(text: str, column: int, complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        condition(text, "counters.X")
    assert str(error.value).startswith("counters.X: ") and complaint in str(error.value)
    assert not column or f"column {column}:" in str(error.value)
    assert "\n" not in str(error.value)


def test_arithmetic() -> None:
    needs, compute = arithmetic("-A * (B - 3.5e2) / 2 + 0x10", "stats.X", ["A", "B"])
    assert needs == ("A", "B") and compute(1, 0) == 191.0
    assert math.isnan(arithmetic("A / B", "stats.X", ["A", "B"])[1](1, 0))
    assert math.isnan(arithmetic("A * 1e308 * 1e308", "stats.X", ["A"])[1](1))


@pytest.mark.parametrize(
    "text", ["1 + 2", "A /", "A / C", "A B", "A(1)", "A ** 2", "((A)", "A.real", "A * 1e400", "A * 0x" + "f" * 300]
)
def test_arithmetic_mistakes(text: str) -> None:
    with pytest.raises(ConfigError, match=r"stats\.X: .*column \d+: "):
        arithmetic(text, "stats.X", ["A", "B"])


def test_what_a_window_knows_of_itself_has_names_that_are_taken() -> None:
    config = parse("counters:\n  DROPPED: tcp\n  seconds: udp\n  MINE: udp\nstats: {A: {value: MINE / seconds}}", "f")
    assert mistakes(config) == [
        "f:2: counters.DROPPED: netspot has one of that name; take another",
        "f:3: counters.seconds: netspot has one of that name; take another",
    ]


WORDS = [
    *CONDITIONS,
    *COLUMNS,
    "and",
    "or",
    "not",
    "in",
    "(",
    ")",
    "[",
    "]",
    ",",
    "==",
    "<",
    "-",
    "1",
    "80",
    "10.0.0.0/8",
    "A",
]


@settings(max_examples=400, derandomize=True)
@given(st.lists(st.sampled_from(WORDS), max_size=14), st.text(max_size=6))
def test_any_text_is_a_condition_or_one_clear_error(words: list[str], noise: str) -> None:
    for text in (" ".join(words), noise, " ".join(words) + noise):
        try:
            found = condition(text, "counters.X")(PACKETS)
            assert found.dtype == np.bool_ and len(found) == len(PACKETS)
        except ConfigError as error:
            assert "column" in str(error)
        try:
            assert isinstance(arithmetic(text, "stats.X", ["A"])[1](3.0), float)
        except ConfigError as error:
            assert "column" in str(error)


def test_own_counters_and_statistics() -> None:
    mqtt = counters.known({"MQTT": "tcp and port == 1883"})["MQTT"]
    accumulator = mqtt.accumulator()
    accumulator.add(PACKETS)
    assert accumulator.value() == 2
    stats = known(
        {
            "R_MQTT": {"value": "MQTT / TCP", "unit": "1", "range": (0, 1)},
            "MQTT_RATE": {"value": "MQTT / seconds", "unit": "packet/s", "transform": "log1p", "help": "MQTT a second"},
        },
        {"MQTT", "TCP"},
    )
    assert (stats["R_MQTT"].range, stats["R_MQTT"].help) == ((0, 1), "MQTT / TCP")
    rate = stats["MQTT_RATE"]
    assert (rate.needs, rate.compute(6, 2e9), rate.log, rate.range) == (
        ("MQTT", "SOURCE_TIME"),
        3.0,
        True,
        (0, math.inf),
    )


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What installed packages offer, by group: entry points to objects."""
    offers: dict[str, Any] = {}

    class Found(EntryPoint):
        def load(self) -> Any:
            if isinstance(offers[self.group], Exception):
                raise offers[self.group]
            return offers[self.group]

    monkeypatch.setattr(plugins, "entries", lambda group: [Found("x", "x:y", group)] if group in offers else [])
    yield offers


def test_other_packages_bring_counters_and_statistics(
    offered: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    broken = counters.base.packets("BROKEN", "fails", lambda b: 1 / 0)  # type: ignore[arg-type, return-value]
    offered["netspot.counters"] = (counters.base.packets("RSTS", "resets", lambda b: b.tcp_flags & RST != 0), broken)
    offered["netspot.stats"] = Stat("FAILS", "1", "fails", ("RSTS",), lambda count: 1 / 0)
    found = counters.known({})
    accumulator, good = found["BROKEN"].accumulator(), found["RSTS"].accumulator()
    for one in (accumulator, good):
        one.add(PACKETS)
        one.merge(found["BROKEN"].accumulator() if one is accumulator else found["RSTS"].accumulator())
    assert accumulator.value() == 0 and good.value() == 0
    assert math.isnan(own.plugged({})["FAILS"].compute(1))
    assert len([record for record in caplog.records if "BROKEN" in record.getMessage()]) == 1


class Odd(counters.base.Accumulator):
    """Everything that may go wrong in somebody else's accumulator."""

    def __init__(self, value: Any = 1) -> None:
        self.odd = value

    def add(self, batch: PacketBatch) -> None: ...
    def merge(self, other: Any) -> None: ...
    def clear(self) -> None: ...

    def value(self) -> float:
        return self.odd  # type: ignore[no-any-return]

    def top(self) -> int:
        raise RuntimeError("a bug of somebody else's")


@pytest.mark.parametrize("value", [None, "many", [1]])
def test_a_counter_of_others_that_says_no_number_is_0(
    offered: dict[str, Any], value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    offered["netspot.counters"] = Counter("ODD", "odd", "packet", lambda: Odd(value))
    bank = counters.CounterBank([counters.known({})["ODD"]], {10: ["ODD"]})
    for _ in range(3):
        bank.add(PACKETS)
        assert bank.close() == {"ODD": 0.0} and bank.evidence() == {"top": {}}
    assert len(caplog.records) == 2


def test_a_counter_of_others_without_an_accumulator_is_left_out(
    offered: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = iter([Odd()])
    offered["netspot.counters"] = (
        Counter("NEVER", "odd", "packet", lambda: 1 / 0),  # type: ignore[arg-type, return-value]
        Counter("NONE", "odd", "packet", lambda: None),  # type: ignore[arg-type, return-value]
        Counter("ONCE", "odd", "packet", lambda: next(made)),
    )
    found = counters.known({})
    assert found.keys() - counters.COUNTERS.keys() == {"ONCE"} and len(caplog.records) == 2
    accumulator = found["ONCE"].accumulator()  # fails from now on
    accumulator.add(PACKETS)
    assert accumulator.value() == 0 and accumulator.top() is None


@pytest.mark.parametrize("value", [None, "many", [1]])
def test_a_statistic_of_others_that_says_no_number_is_nan(offered: dict[str, Any], value: Any) -> None:
    offered["netspot.stats"] = Stat("ODD", "1", "odd", ("TCP",), lambda count: value)
    assert math.isnan(own.plugged({})["ODD"].compute(1))


@pytest.mark.parametrize("offer", [ImportError("no"), 7, (7,), counters.COUNTERS["TCP"], Counter([], "", "", Odd)])
def test_a_bad_extension_is_left_out(offered: dict[str, Any], offer: Any, caplog: pytest.LogCaptureFixture) -> None:
    offered["netspot.counters"] = offer
    assert counters.known({}) == counters.COUNTERS and len(caplog.records) == 1
    assert isinstance(counters.known({})["TCP"], Counter)


def test_a_flood_of_wrong_names_is_told_in_part() -> None:
    with pytest.raises(ConfigError) as caught:
        arithmetic(" + ".join(f"N{i}" for i in range(150)), "stats.S.value", {"SYN"})
    assert len(str(caught.value).splitlines()) == COMPLAINTS + 1
