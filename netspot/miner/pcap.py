"""The pcap format: a header of 24 bytes, then records of 16 bytes and the packet (draft-ietf-opsawg-pcap)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import Buffer, Bytes, Offsets, constant, field, gather
from netspot.miner.links import parser
from netspot.miner.records import MAX_RECORD, find
from netspot.packets import Bools

HEADER = 24  # [byte]
_LONGEST, _SECOND_NS = constant(np.uint32, MAX_RECORD), constant(np.int64, 1_000_000_000)
MAGICS: dict[bytes, tuple[Literal["little", "big"], int, int]] = {  # order, nanoseconds a unit, bytes of a header
    b"\xd4\xc3\xb2\xa1": ("little", 1000, 16),
    b"\xa1\xb2\xc3\xd4": ("big", 1000, 16),
    b"\x4d\x3c\xb2\xa1": ("little", 1, 16),
    b"\xa1\xb2\x3c\x4d": ("big", 1, 16),
    b"\x34\xcd\xb2\xa1": ("little", 1000, 24),  # with interface and protocol in each record
    b"\xa1\xb2\xcd\x34": ("big", 1000, 24),
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
        self._order, self._unit_ns, self.extra = MAGICS[header[:4]]
        self.length = "<u4" if self._order == "little" else ">u4"
        self.link_type = int.from_bytes(header[20:24], self._order) & 0xFFFF  # above: of a frame check sequence
        parser(self.link_type)
        self._second = constant(np.uint32, 1_000_000_000 // self._unit_ns)
        self._mean = 512

    def index(self, raw: Buffer, begin: int, end: int, most: int) -> Index:
        starts, heads, stop = find(raw, begin, end, self, most, self._mean)
        if len(starts):
            self._mean = max((stop - begin) // len(starts), self.extra)
        return Index([Records(starts, heads)] if len(starts) else [], stop, self._fault(raw, stop, end))

    def _fault(self, raw: Buffer, stop: int, end: int) -> str:
        if stop + self.extra > end:
            return ""
        length = int.from_bytes(raw[stop + 8 : stop + 12], self._order)
        return "" if length <= MAX_RECORD else f"a packet of {length} bytes, more than {MAX_RECORD}"

    def rows(self, records: Records) -> Rows:
        seconds, fraction, captured, wire_len = (field(records.heads, at, self.length) for at in (0, 4, 8, 12))
        ts_ns = seconds.astype(np.int64) * _SECOND_NS + fraction.astype(np.int64) * self._unit_ns
        return Rows(records.starts + self.extra, captured, wire_len, ts_ns, self.link_type)

    def pattern(self, raw: Buffer, begin: int) -> tuple[NDArray[np.unsignedinteger], int]:
        """The upper half of the seconds, which changes every 18 hours."""
        upper = 2 if self._order == "little" else 0
        return np.ndarray((), np.uint16, raw[begin + upper : begin + upper + 2]), upper

    def plausible(self, data: Bytes, offsets: Offsets, end: int) -> Bools:
        """Whether the fields there have values that a header has."""
        heads = gather(data, offsets, 16)
        fraction, captured, wire_len = (field(heads, at, self.length) for at in (4, 8, 12))
        sane: Bools = (fraction < self._second) & (captured <= wire_len) & (wire_len <= _LONGEST)
        return sane
