"""Any bytes as a capture file, any bytes as frames: nothing but NetspotError, and columns that keep their promises.

For a long run by coverage, with the package atheris: ``python -m tests.fuzz_captures -max_total_time=600``.
"""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netspot.errors import NetspotError
from netspot.miner import capfile
from netspot.miner.capfile import CaptureFile
from netspot.miner.links import LINKS
from netspot.packets import COLUMNS, SYN, PacketBatch
from tests import frames as f

SEEDS = [
    f.eth(f.ip4(f.tcp(SYN, b"x" * 9))),
    f.eth(f.vlan(f.vlan(f.ip6(f.ext6(f.frag6(f.udp()), 43, 2)), 7), tpid=0x88A8)),
    f.eth(f.mpls(f.ip4(f.ah(f.icmp()), options=bytes(8)), [1, 2, 3])),
    f.eth(f.pppoe(f.ip6(f.ext6(f.icmp6(135), 60)))),
    f.eth(f.snap(f.arp(2))),
    f.sll(f.ip4(f.udp(b"q" * 20, dport=5353), dst="224.0.0.251"), kind=2),
    f.sll2(f.ip6(f.tcp())),
    bytes.fromhex("000020000e000000")
    + bytes(24)
    + bytes.fromhex("8801")
    + bytes(26)
    + b"\xaa\xaa\3\0\0\0\x08\0"
    + f.ip4(f.tcp()),
    bytes.fromhex("0000080001000000") + f.eth(f.ip4(f.udp())),
    bytes.fromhex("020000000800010000000000240009004500") + f.ip4(f.udp())[2:],
    f.ip4(f.udp(), frag=3),
]


def check(batch: PacketBatch) -> None:
    """What holds for every batch, whatever the bytes were."""
    n = len(batch)
    assert 0 < n <= capfile.MOST
    assert all(len(getattr(batch, name)) == n for name in COLUMNS)
    assert not (batch.is_ipv4 & batch.is_ipv6).any()
    assert not (batch.is_arp & (batch.is_ipv4 | batch.is_ipv6)).any()
    assert not ((batch.is_tcp.astype(int) + batch.is_udp + batch.is_icmp + batch.is_icmp6) > 1).any()
    assert not ((batch.is_tcp | batch.is_udp | batch.is_icmp | batch.is_icmp6) & ~batch.has_addr).any()
    assert not (batch.has_ports & ~(batch.is_tcp | batch.is_udp)).any()
    assert not batch.src_port[~batch.has_ports].any()
    assert not batch.tcp_flags[~batch.is_tcp].any()
    assert not batch.src_key[~batch.has_addr].any()
    assert not ((batch.src_home | batch.dst_home | batch.dst_multicast) & ~batch.has_addr).any()
    assert not batch.ip_len[~(batch.is_ipv4 | batch.is_ipv6)].any()
    assert batch.until_ns >= int(batch.ts_ns.max()) >= int(batch.ts_ns.min()) >= 0
    ends = batch.frames.start + batch.frames.captured
    assert int(ends.max()) <= len(batch.frames.data) - f.PAD


def read_whole(path: Path, data: bytes) -> int:
    """The number of packets that any bytes give; only NetspotError ends the reading early."""
    path.write_bytes(data)
    count = 0
    try:
        source = CaptureFile(str(path))
        while (batch := source.read(1.0)) is not None:
            check(batch)
            count += len(batch)
    except NetspotError as error:
        assert "\n" not in str(error)
    return count


def captures(rng: random.Random) -> bytes:
    """A capture file of hand-built packets, some of its bytes changed."""
    frames = [mutated(rng, rng.choice(SEEDS)) for _ in range(rng.randrange(1, 400))]
    link_type = rng.choice([*LINKS, 1, 1, 1])
    order = rng.choice("<>")
    whole = (
        f.pcapng(frames, link_type=link_type, order=order)
        if rng.random() < 0.5
        else f.pcap(frames, None, link_type, order)
    )
    whole = mutated(rng, whole) if rng.random() < 0.5 else whole
    return gzip.compress(whole, 1) if rng.random() < 0.2 else whole


def mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"?")
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(changed))
        changed[at : at + rng.choice([1, 1, 2, 4])] = rng.choice(
            [rng.randbytes(1), b"\0", b"\xff\xff", rng.randbytes(4)]
        )
    return bytes(changed[: rng.randrange(len(changed) + 1)] if rng.random() < 0.2 else changed)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 1 << 60))
def test_changed_captures(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    read_whole(tmp_path_factory.getbasetemp() / "fuzz", captures(random.Random(seed)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from([f.pcap([])[:24], f.pcap([], order=">"), f.section() + f.interface(), b"", b"\x1f\x8b"]),
    st.binary(),
)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, head: bytes, data: bytes) -> None:
    read_whole(tmp_path_factory.getbasetemp() / "fuzz", head + data)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(LINKS)), st.integers(0, 1 << 60))
def test_a_row_does_not_depend_on_its_neighbours(link_type: int, seed: int) -> None:
    """Decoded alone or among others, with other bytes behind it: the same columns."""
    rng = random.Random(seed)
    frames = [mutated(rng, rng.choice(SEEDS)) for _ in range(8)]
    together = f.batch(frames, link_type=link_type)
    for k, frame in enumerate(frames):
        alone = f.batch([frame], [f.START_NS + k * 1_000_000], link_type)
        for name in COLUMNS:
            assert np.array_equal(getattr(alone, name), getattr(together, name)[k : k + 1]), name
