"""What each counter counts; and that batches, spans and floods make no difference to it."""

from __future__ import annotations

import numpy as np
import pytest

from netspot.miner.counters import COUNTERS, CounterBank
from netspot.miner.counters.base import FEW, GROUPS, heaviest
from netspot.packets import ACK, FIN, RST, SYN, PacketBatch, nothing
from tests.frames import BROADCAST, arp, batch, eth, icmp, ip4, ip6, tcp, udp

INSIDE, OTHER, OUTSIDE = "192.168.1.5", "192.168.1.6", "8.8.8.8"


def syn(src: str = OUTSIDE, dst: str = INSIDE, sport: int = 40_000, dport: int = 22, flags: int = SYN) -> bytes:
    return eth(ip4(tcp(flags, sport=sport, dport=dport), src=src, dst=dst))


def query(src: str = INSIDE) -> bytes:
    return eth(ip4(udp(sport=5000, dport=53), src=src, dst=OUTSIDE))


def pushed(src: str, dst: str) -> bytes:
    """An IP packet of 128 bytes."""
    return eth(ip4(udp(b"x" * 100), src=src, dst=dst))


def count(name: str, batches: list[PacketBatch]) -> float:
    accumulator = COUNTERS[name].accumulator()
    for packets in batches:
        accumulator.add(packets)
    return accumulator.value()


@pytest.mark.parametrize(
    ("name", "frames", "expected"),
    [
        ("PKTS", [syn(), query(), eth(arp())], 3),
        ("SYN_ONLY", [syn(), syn(flags=SYN | ACK), syn(flags=ACK)], 1),
        ("SYN_ACK", [syn(), syn(flags=SYN | ACK)], 1),
        ("RST", [syn(flags=RST | ACK), syn(flags=FIN)], 1),
        ("SYN_IN", [syn(), syn(src=INSIDE, dst=OUTSIDE), syn(src=OTHER), syn(flags=SYN | ACK)], 1),
        ("BROADCAST", [eth(arp(), dst=BROADCAST), eth(arp())], 1),
        ("ARP_REPLY", [eth(arp(op=2)), eth(arp(op=1))], 1),
        ("ICMP", [eth(ip4(icmp())), query()], 1),
        ("DNS", [query(), eth(ip4(udp(sport=53, dport=5000))), syn(dport=53)], 2),
        (
            "UP_BYTES",
            [eth(ip4(udp(b"x" * 100), src=INSIDE, dst=OUTSIDE)), eth(ip4(udp(), src=OUTSIDE, dst=INSIDE))],
            128,
        ),
        ("UP_BYTES", [eth(ip4(udp(), src=INSIDE, dst="224.0.0.251")), eth(ip4(udp(), src=INSIDE, dst=OTHER))], 0),
        ("DOWN_BYTES", [eth(ip4(udp(b"x" * 100), src=OUTSIDE, dst=INSIDE))], 128),
        ("UPLOAD", [pushed(INSIDE, OUTSIDE)] * 3 + [pushed(OUTSIDE, INSIDE)] + [pushed(OTHER, OUTSIDE)], 256),
        ("UPLOAD", [pushed(INSIDE, OUTSIDE)] + [pushed(OUTSIDE, INSIDE)] * 2, 0),
        ("UPLOAD", [pushed(INSIDE, OTHER), pushed(INSIDE, "224.0.0.251"), pushed(OUTSIDE, "1.1.1.1")], 0),
        ("FANOUT_PORTS", [syn(dport=p) for p in (1, 2, 3, 3)] + [syn(src=OTHER)], 3),
        ("FANOUT_PORTS", [syn(dport=p, flags=ACK) for p in (1, 2, 3)], 0),
        ("FANOUT_HOSTS", [syn(src=INSIDE, dst=f"8.8.8.{i % 5}") for i in range(9)], 5),
        ("SERVICE_CONNS", [syn(sport=p) for p in (1, 2, 2, 3)] + [syn(dport=80, sport=p) for p in (1, 2)], 3),
        ("DNS_CLIENT", [query(), query(), query(OTHER), syn()], 2),
        ("NB_UNIQ_UDP_PORT", [eth(ip4(udp(dport=p))) for p in (1, 2, 2)] + [syn(dport=9)], 2),
        ("FLOWS", [syn(sport=1), syn(sport=1), syn(sport=2), query()], 3),
        ("NB_UNIQ_SRC_ADDR", [syn(), query(), eth(ip6(tcp(SYN)))], 3),
    ],
)
def test_counter(name: str, frames: list[bytes], expected: float) -> None:
    assert count(name, [batch(frames)]) == expected


@pytest.mark.parametrize("name", COUNTERS)
def test_every_counter(name: str) -> None:
    """Documented; 0 on an empty batch; splitting and merging change nothing; clear begins anew."""
    counter = COUNTERS[name]
    assert counter.help and counter.unit
    assert count(name, [nothing(0)]) == 0
    frames = [syn(sport=p, dport=p % 3) for p in range(5)] + [query(), eth(arp(op=2), dst=BROADCAST), eth(ip6(udp()))]
    packets = batch(frames)
    whole = count(name, [packets])
    assert count(name, [packets.rows(0, 3), packets.rows(3, len(packets))]) == whole
    first, second = counter.accumulator(), counter.accumulator()
    first.add(packets.rows(0, 3))
    second.add(packets.rows(3, len(packets)))
    first.merge(second)
    assert first.value() == whole
    first.clear()
    assert first.value() == 0


def test_the_culprit_is_named() -> None:
    accumulator = COUNTERS["FANOUT_PORTS"].accumulator()
    accumulator.add(batch([syn(dport=p) for p in (1, 2, 3)] + [syn(src=OTHER, dport=p) for p in (1, 2)]))
    assert accumulator.value() == 3 and accumulator.top() == 0x08080808


def columns(rows: int, **given: np.ndarray) -> PacketBatch:
    packets = batch([syn()] * rows)
    return PacketBatch(**{name: given.get(name, getattr(packets, name)) for name in PacketBatch.fields})


def test_a_flood_of_pairs_is_estimated_in_bounded_memory() -> None:
    accumulator = COUNTERS["FANOUT_HOSTS"].accumulator()
    rng = np.random.default_rng(1)
    for _ in range(10):
        accumulator.add(columns(20_000, dst_key=rng.integers(0, 1 << 32, 20_000, np.uint64)))
    assert accumulator.value() == pytest.approx(200_000, rel=0.05)
    assert accumulator._held <= FEW  # type: ignore[attr-defined]


def test_the_heaviest_of_many_groups_is_not_forgotten() -> None:
    counter = heaviest("X", "", "", lambda b, rows: b.src_key[rows], lambda b: b.is_tcp)
    accumulator = counter.accumulator()
    rng = np.random.default_rng(2)
    for _ in range(20):
        keys = np.concatenate([rng.integers(100, 1 << 60, 1000, np.uint64), np.full(5, 7, np.uint64)])
        accumulator.add(columns(1005, src_key=keys))
    assert accumulator.value() == 100 and accumulator.top() == 7
    assert accumulator._held <= 4 * GROUPS  # type: ignore[attr-defined]


def test_spans_add_up_and_a_longer_one_is_fed_by_a_shorter() -> None:
    names = ["PKTS", "FANOUT_PORTS", "NB_UNIQ_SRC_ADDR"]
    bank = CounterBank([COUNTERS[name] for name in names], {6: ["PKTS", "FANOUT_PORTS"], 2: names})
    assert bank.spans == (2, 6)
    spans: dict[int, list[dict[str, float]]] = {2: [], 6: []}
    for second in range(6):
        bank.add(batch([syn(dport=second), syn(dport=100)]))
        bank.close()
        for span in bank.spans:
            if (second + 1) % span == 0:
                spans[span].append(bank.close_span(span))
    assert [counts["PKTS"] for counts in spans[2]] == [4, 4, 4]
    assert [counts["FANOUT_PORTS"] for counts in spans[2]] == [3, 3, 3]
    assert [counts["NB_UNIQ_SRC_ADDR"] for counts in spans[2]] == [1, 1, 1]
    assert spans[6] == [{"PKTS": 12, "FANOUT_PORTS": 7}]
    assert bank.evidence()["top"] == {"FANOUT_PORTS": 0x08080808}
