"""The pcap format: a header of 24 bytes, then records of 16 bytes and the packet (draft-ietf-opsawg-pcap)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import Bytes, Offsets, field, gather
from netspot.miner.links import parser
from netspot.miner.records import MAX_RECORD, Places, find

HEADER = 24  # [byte]
MAGICS: dict[bytes, tuple[str, int, int]] = {  # byte order, nanoseconds a unit, bytes of a record's header
    b"\xd4\xc3\xb2\xa1": ("<", 1000, 16),
    b"\xa1\xb2\xc3\xd4": (">", 1000, 16),
    b"\x4d\x3c\xb2\xa1": ("<", 1, 16),
    b"\xa1\xb2\x3c\x4d": (">", 1, 16),
    b"\x34\xcd\xb2\xa1": ("<", 1000, 24),  # with interface and protocol in each record
    b"\xa1\xb2\xcd\x34": (">", 1000, 24),
}


class Rows(NamedTuple):
    """What the records tell of their packets; shape ``(n,)``."""

    start: Offsets
    captured: NDArray[np.uint32]
    wire_len: NDArray[np.uint32]
    ts_ns: NDArray[np.int64]
    link_type: int


class Records(NamedTuple):
    """Where records begin, and their first bytes."""

    starts: Offsets
    heads: Bytes


class Index(NamedTuple):
    """The whole packets that a stretch of the file holds."""

    packets: list[Records]  # in pieces of one link type
    stop: int  # offset of what comes behind them
    fault: str = ""  # what is wrong at ``stop``, if it is
    skip: int = 0  # from ``stop``, bytes to pass over without looking at them


class Pcap:
    """A record's length stands at byte 8; it does not count the record's own header."""

    head, length_at, shortest, longest = 16, 8, 0, MAX_RECORD

    def __init__(self, header: bytes) -> None:
        """``header``: the first 24 bytes of the file. SourceError where nobody decodes the link type."""
        self.order, self._unit_ns, self.extra = MAGICS[header[:4]]
        self.length = self.order + "u4"
        number = int.from_bytes(header[20:24], "little" if self.order == "<" else "big")
        self.link_type = number & 0xFFFF  # the upper bits tell of a frame check sequence
        parser(self.link_type)
        self._mean = 512

    def index(self, data: Bytes, begin: int, end: int, most: int) -> Index:
        starts, heads, stop = find(data, begin, end, self, most, self._mean)
        if len(starts):
            self._mean = max((stop - begin) // len(starts), self.extra)
        return Index([Records(starts, heads)] if len(starts) else [], stop, self._fault(data, stop, end))

    def _fault(self, data: Bytes, stop: int, end: int) -> str:
        if stop + self.extra > end:
            return ""
        length = int(data[stop + 8 : stop + 12].view(self.length)[0])
        return "" if length <= MAX_RECORD else f"a packet of {length} bytes, more than {MAX_RECORD}"

    def rows(self, records: Records) -> Rows:
        seconds, fraction, captured, wire_len = (field(records.heads, at, self.length) for at in (0, 4, 8, 12))
        ts_ns = seconds.astype(np.int64) * 1_000_000_000 + fraction.astype(np.int64) * self._unit_ns
        return Rows(records.starts + self.extra, captured, wire_len, ts_ns, self.link_type)

    def guess(self, data: Bytes, begin: int, end: int, places: Places) -> Offsets:
        """Where the upper half of the time is the same as at ``begin`` (it changes every 18 hours)."""
        upper = 2 if self.order == "<" else 0
        found = []
        for some in places.slabs():
            hit = some.view(data, "u1", upper) == data[begin + upper]
            hit &= some.view(data, "u1", upper + 1) == data[begin + upper + 1]
            found.append(some.first_hits(hit, 1))
        offset: Offsets = np.concatenate(found)
        offset = offset[self._plausible(gather(data, offset, 16))]
        behind = offset + self.extra + gather(data, offset + 8, 4).view(self.length)[:, 0]
        inside = behind + 16 <= end
        good = self._plausible(gather(data, np.where(inside, behind, begin), 16))
        sure: Offsets = offset[good & inside]
        return sure

    def _plausible(self, header: Bytes) -> NDArray[np.bool_]:
        fraction, captured, wire_len = (field(header, at, self.length) for at in (4, 8, 12))
        return (fraction < 1_000_000_000 // self._unit_ns) & (captured <= wire_len) & (wire_len <= MAX_RECORD)
