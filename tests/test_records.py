"""The boundaries that many chains find together are those that one record after the other gives."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netspot.miner import records
from netspot.miner.pcap import HEADER, Pcap
from netspot.miner.pcapng import Pcapng
from netspot.miner.records import find
from tests.frames import START_NS, interface, pcap, pcapng, section

PAD = bytes(1 << 17)


def one_by_one(raw: bytes, begin: int, extra: int, at: int, order: str = "<") -> tuple[list[int], int]:
    """What a reader sees that knows only one record at a time."""
    starts, position = [], begin
    while position + at + 4 <= len(raw):
        after = position + extra + struct.unpack_from(order + "I", raw, position + at)[0]
        if after > len(raw) or after - position - extra > 2 * records.MAX_RECORD:
            break
        starts.append(position)
        position = after
    return starts, position


def payloads(seed: int, count: int, trap: bytes = b"") -> list[bytes]:
    """Payloads of very different sizes; ``trap`` is repeated in a third of them, from varying offsets."""
    rng = random.Random(seed)
    sizes = rng.choices([0, 1, 40, 60, 600, 1514, 9000], [2, 1, 8, 4, 2, 4, 0.2], k=count)
    return [(trap * 80)[rng.randrange(48) :][:size] if rng.random() < 0.3 else rng.randbytes(size) for size in sizes]


TRAPS = {
    "noise": b"",
    "headers": struct.pack("<IIII", START_NS // 10**9, 5, 60, 60) + bytes(60),  # a plausible record, again and again
    "endless": struct.pack("<IIII", START_NS // 10**9, 5, 0, 0),
    "far": struct.pack("<IIII", START_NS // 10**9, 5, 262_000, 262_000),
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_pcap_boundaries_are_exact(trap: str, order: str) -> None:
    whole = pcap(payloads(1, 6000, TRAPS[trap]), order=order)
    layout = Pcap(whole[:HEADER])
    for mean in (64, 470, 5000):
        found = find(bytearray(whole + PAD), HEADER, len(whole), layout, 1 << 20, mean)
        assert (found.starts.tolist(), found.stop) == one_by_one(whole, HEADER, 16, 8, order)


def test_an_odd_size_among_even_ones_does_not_hide_the_records_behind_it() -> None:
    whole = pcap([bytes(61)] + [bytes(60)] * 5000)
    raw, distance = bytearray(whole + PAD), 32 * 76
    guesses = records._guesses(
        raw, np.frombuffer(raw, np.uint8), HEADER, len(whole), Pcap(whole[:HEADER]), distance
    ).tolist()
    assert len(guesses) > 0.9 * len(whole) / distance
    assert set(guesses) <= set(one_by_one(whole, HEADER, 16, 8, "<")[0])


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_boundaries_are_exact(order: str) -> None:
    trap = struct.pack(order + "II", 6, 32) + bytes(20) + struct.pack(order + "I", 32)
    whole = pcapng(payloads(2, 6000, trap), order=order)
    begin = len(section(order)) + len(interface(order=order))
    layout = Pcapng()
    layout.index(bytearray(whole + PAD), 0, len(whole), 1)
    found = find(bytearray(whole + PAD), begin, len(whole), layout, 1 << 20, 470)
    assert (found.starts.tolist(), found.stop) == one_by_one(whole, begin, 0, 4, order)


@pytest.mark.parametrize("most", [1, 100, 5000])
def test_at_most_so_many(most: int) -> None:
    whole = pcap(payloads(3, 6000))
    found = find(bytearray(whole + PAD), HEADER, len(whole), Pcap(whole[:HEADER]), most, 470)
    starts, _ = one_by_one(whole, HEADER, 16, 8)
    assert found.starts.tolist() == starts[:most]
    assert found.stop == starts[most]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 1 << 30), st.integers(0, 1 << 30), st.sampled_from(list(TRAPS)), st.integers(0, 3))
def test_whatever_is_broken_the_chain_before_it_stands(seed: int, place: int, trap: str, pad: int) -> None:
    """A few bytes of the file are overwritten, also in the headers of records; the file is cut somewhere."""
    whole = bytearray(pcap(payloads(seed, 1500, TRAPS[trap])))
    rng = random.Random(place)
    for _ in range(3):
        at = rng.randrange(HEADER, len(whole))
        whole[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x10\x27\0\0", rng.randbytes(4)])
    del whole[rng.randrange(HEADER, len(whole)) :]
    padding = [PAD, b"\xff" * 4096, bytes(whole[24:])[:8192].ljust(4096), bytes(4096)][
        pad
    ]  # what an earlier chunk left
    found = find(bytearray(whole + padding), HEADER, len(whole), Pcap(bytes(whole[:HEADER])), 1 << 20, 300)
    starts, stop = one_by_one(bytes(whole), HEADER, 16, 8)
    limit = records.MAX_RECORD
    for k, start in enumerate(starts):  # the naive reader above accepts longer records than a pcap file may hold
        if struct.unpack_from("<I", whole, start + 8)[0] > limit:
            starts, stop = starts[:k], start
            break
    assert (found.starts.tolist(), found.stop) == (starts, stop)
    assert found.heads.tobytes() == b"".join(bytes(whole[start : start + 16]) for start in starts)
