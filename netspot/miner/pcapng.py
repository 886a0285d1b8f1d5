"""The pcapng format: blocks in sections, each with its byte order and interfaces (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import Buffer, Bytes, Offsets, field, gather
from netspot.miner.pcap import Index, Records, Rows
from netspot.miner.records import MAX_RECORD, find
from netspot.packets import Bools

MAGIC = b"\x0a\x0d\x0d\x0a"
SECTION, INTERFACE, OLD_PACKET, SIMPLE, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6  # block types
MAX_BLOCK = 2 * MAX_RECORD  # of a packet with its options; blocks of other types are passed over [byte]
MAX_INTERFACES = 1024  # of a section
MAX_SECONDS = 9_000_000_000  # the year 2255: nanoseconds, the end of the window too, still fit into 64 bits


class Interface(NamedTuple):
    link_type: int
    snap: int  # [byte]; 0: none
    per_second: int  # units of a timestamp
    offset_s: int  # added to timestamps [s]


class Pcapng:
    """A block's length stands at byte 4 and counts the whole block."""

    length_at, extra, shortest, longest, head = 4, 0, 12, MAX_BLOCK, 28

    def __init__(self) -> None:
        self._order: Literal["little", "big"] = "little"
        self.length = "<u4"
        self._interfaces: list[Interface] = []
        self._mean = 512
        self._last_ns = 0  # simple packet blocks have no time: that of the packet before

    def index(self, raw: Buffer, begin: int, end: int, most: int) -> Index:
        if raw[begin : begin + 4] == MAGIC:
            return self._section(raw, begin, end)
        starts, heads, stop = find(raw, begin, end, self, most, self._mean)
        if len(starts):
            self._mean = max((stop - begin) // len(starts), self.shortest)
        sections = np.flatnonzero(field(heads, 0, self.length) == SECTION)
        if len(sections):  # what follows may be in another byte order
            stop = int(starts[sections[0]])
            starts, heads = starts[: sections[0]], heads[: sections[0]]
        return self._packets(np.frombuffer(raw, np.uint8), Records(starts, heads), self._at_stop(raw, stop, end))

    def _section(self, raw: Buffer, begin: int, end: int) -> Index:
        """Begin a section: its byte-order magic tells how to read the length that stands before it."""
        if end - begin < 12:
            return Index([], begin)
        magic = int.from_bytes(raw[begin + 8 : begin + 12], "little")
        if magic not in (0x1A2B3C4D, 0x4D3C2B1A):
            return Index([], begin, "a section header without byte-order magic")
        self._order, self.length = ("little", "<u4") if magic == 0x1A2B3C4D else ("big", ">u4")
        length = self._word(raw, begin + 4)
        if length < 28 or length % 4:
            return Index([], begin, f"a section header of {length} bytes")
        self._interfaces = []
        return Index([], begin, skip=length)

    def _at_stop(self, raw: Buffer, stop: int, end: int) -> Index:
        """What to do with the block at ``stop``: it is incomplete, too long to be kept, or broken."""
        if stop + 12 > end or raw[stop : stop + 4] == MAGIC:
            return Index([], stop)
        kind, length = self._word(raw, stop), self._word(raw, stop + 4)
        if length < self.shortest or (length > MAX_BLOCK and kind in (INTERFACE, OLD_PACKET, SIMPLE, ENHANCED)):
            return Index([], stop, f"a block of type {kind} with {length} bytes")
        return Index([], stop, skip=length if length > MAX_BLOCK else 0)

    def _packets(self, data: Bytes, blocks: Records, behind: Index) -> Index:
        """Note the interfaces and find the packets among blocks; ``behind`` is what comes after the last of them."""
        starts, heads = blocks
        kind, length, captured = (field(heads, at, self.length) for at in (0, 4, 20))
        is_interface, simple = kind == INTERFACE, kind == SIMPLE
        packet = simple | (kind == ENHANCED) | (kind == OLD_PACKET)
        known = len(self._interfaces) + np.cumsum(is_interface)
        interface = self._interface_of(heads)
        shortest = np.where(simple, 16, 32)
        broken = (length % 4 != 0) | (self._words(data, starts + length - 4) != length)
        broken |= is_interface & ((length < 20) | (known > MAX_INTERFACES))
        broken |= packet & ((length < shortest) | (interface >= known) | (captured + 32 > length) & ~simple)
        if broken.any():
            first = int(broken.argmax())
            text = f"a block of type {kind[first]} with {length[first]} bytes whose fields contradict each other"
            behind = Index([], int(starts[first]), text)
            packet[first:] = is_interface[first:] = False
        for k in np.flatnonzero(is_interface):
            self._interfaces.append(self._interface(data[int(starts[k]) :][: int(length[k])].tobytes()))
        rows = np.flatnonzero(packet)
        link_types = np.array([each.link_type for each in self._interfaces], np.int64)[interface[rows]]
        pieces = np.split(rows, np.flatnonzero(np.diff(link_types)) + 1) if len(rows) else []
        if len(rows) == len(starts) and len(pieces) == 1:
            return behind._replace(packets=[blocks])
        return behind._replace(packets=[Records(starts[some], heads[some]) for some in pieces])

    def _interface(self, block: bytes) -> Interface:
        order = self.length[0]
        link_type, _, snap = struct.unpack_from(order + "HHI", block, 8)
        resolution, offset, at = 6, 0, 16
        while at + 4 <= len(block) - 4:
            code, size = struct.unpack_from(order + "HH", block, at)
            value = block[at + 4 : min(at + 4 + size, len(block) - 4)]
            if code == 9 and len(value) == 1:
                resolution = value[0]
            elif code == 14 and len(value) == 8:
                offset = struct.unpack(order + "q", value)[0]
            at += 4 + (size + 3 & ~3)
        # Finer units than 64 bits can count up to a second don't exist: the finest that they can.
        per_second = 1 << min(resolution & 0x7F, 63) if resolution & 0x80 else 10 ** min(resolution, 19)
        return Interface(link_type, snap, per_second, max(-MAX_SECONDS, min(offset, MAX_SECONDS)))

    def rows(self, records: Records) -> Rows:
        starts, heads = records
        kind, length, captured, wire_len = (field(heads, at, self.length) for at in (0, 4, 20, 24))
        interface = self._interface_of(heads)
        units = field(heads, 12, self.length).astype(np.uint64) << np.uint64(32) | field(heads, 16, self.length)
        ts_ns = self._times(units, interface)
        start = starts + 28
        simple = kind == SIMPLE
        if simple.any():
            start = np.where(simple, starts + 12, start)
            wire_len = np.where(simple, field(heads, 8, self.length), wire_len)
            snap = np.uint32(self._interfaces[0].snap or MAX_RECORD)
            captured = np.where(simple, np.minimum(np.minimum(wire_len, length - 16), snap), captured)
            before = np.maximum.accumulate(np.where(simple, 0, np.arange(1, len(starts) + 1)))
            ts_ns = np.concatenate(([self._last_ns], ts_ns))[before]
        self._last_ns = int(ts_ns[-1])
        return Rows(start, captured, wire_len, ts_ns, self._interfaces[int(interface[0])].link_type)

    def _interface_of(self, heads: Bytes) -> NDArray[np.int64]:
        number, kind = field(heads, 8, self.length), field(heads, 0, self.length)
        if (kind != ENHANCED).any():
            old = field(heads, 8, self.length[0] + "u2")
            number = np.where(kind == ENHANCED, number, np.where(kind == OLD_PACKET, old, 0))
        return number.astype(np.int64)

    def _times(self, units: NDArray[np.uint64], interface: NDArray[np.int64]) -> NDArray[np.int64]:
        """Timestamps [ns since epoch] from units of the interfaces' clocks."""
        clocks = sorted({each[2:] for each in self._interfaces})
        if len(clocks) == 1:
            return _nanoseconds(units, *clocks[0])
        ts_ns = np.zeros(len(units), np.int64)
        clock = np.array([clocks.index(each[2:]) for each in self._interfaces])[interface]
        for k in np.unique(clock):
            ts_ns[clock == k] = _nanoseconds(units[clock == k], *clocks[k])
        return ts_ns

    def _words(self, data: Bytes, offsets: Offsets) -> NDArray[np.uint32]:
        """The 32-bit word at each offset."""
        return field(gather(data, offsets, 4), 0, self.length)

    def _word(self, raw: Buffer, at: int) -> int:
        return int.from_bytes(raw[at : at + 4], self._order)

    def pattern(self, raw: Buffer, begin: int) -> tuple[NDArray[np.unsignedinteger], int]:
        """The type of an enhanced packet block."""
        return np.ndarray((), np.uint32, ENHANCED.to_bytes(4, self._order)), 0

    def plausible(self, data: Bytes, offsets: Offsets, end: int) -> Bools:
        """Whether a block's end tells the same length as its beginning."""
        length = self._words(data, offsets + 4)
        inside: Bools = (length >= 32) & (offsets + length <= end)
        inside &= self._words(data, np.where(inside, offsets + length - 4, offsets)) == length
        return inside


def _nanoseconds(units: NDArray[np.uint64], per_second: int, offset_s: int) -> NDArray[np.int64]:
    """Clock units to nanoseconds, rounded down; times beyond `MAX_SECONDS` become that."""
    if 1_000_000_000 % per_second == 0:
        scale = np.uint64(1_000_000_000 // per_second)
        ts_ns = np.minimum(units, np.uint64(MAX_SECONDS * per_second)) * scale
    else:
        seconds, rest = units // np.uint64(per_second), units % np.uint64(per_second)
        if per_second % 1_000_000_000 == 0:
            part = rest // np.uint64(per_second // 1_000_000_000)
        else:  # a power of two: no more than 30 bits of it, so that the product fits
            spare = max(per_second >> 30, 1)
            part = rest // np.uint64(spare) * np.uint64(1_000_000_000) // np.uint64(per_second // spare)
        ts_ns = np.minimum(seconds, np.uint64(MAX_SECONDS)) * np.uint64(1_000_000_000) + part
    signed = ts_ns.astype(np.int64)
    offset_ns = offset_s * 1_000_000_000
    last_ns = MAX_SECONDS * 1_000_000_000
    shifted: NDArray[np.int64] = np.minimum(signed, last_ns - max(offset_ns, 0)) + offset_ns
    return np.maximum(shifted, 0)
