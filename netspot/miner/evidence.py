"""A bounded sample of the headers of each window: who was there, should somebody ask.

While a window holds few packets all of them are in the sample. In a busier one the packets fall into strata, so that a
flood of one kind does not hide the few of another, and of each a k-th is kept, k doubling as the stratum fills.
Nothing is decoded before an alarm asks for it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from netspot.miner.decode import PAD, PRIVATE, decode
from netspot.miner.headers import constant, gather, indices
from netspot.miner.links import locate
from netspot.packets import ACK, SYN, Bools, Frames, PacketBatch
from netspot.record import Record

WIDTH = 192  # bytes of a frame that are kept: all headers, and the name in a DNS query
STRATA = (256, 128, 128, 512)  # frames a window at most: connections begun; ARP and ICMP; DNS queries; the rest
LOOKED_AT = 8192  # frames that an alarm looks at most: some milliseconds
QUIET = 512  # windows of no more frames than this are kept whole
WHOLE, NUMBER = len(STRATA), 28  # stratum of the frames until then; bits of a frame's number in its stratum

MOST = 2 * (sum(STRATA) + QUIET)  # rows that are held before they are thinned
_GOLDEN = 0x9E3779B1  # 2^32 / golden ratio, and prime
_UNUSED, _NUMBERS = constant(np.uint32, 32 - NUMBER), constant(np.uint32, (1 << NUMBER) - 1)
_SYN, _SYN_ACK, _DNS = constant(np.uint8, SYN), constant(np.uint8, SYN | ACK), constant(np.uint16, 53)

Rows = NDArray[np.intp]


class Headers(Record):
    """Sampled frames, shape ``(n, WIDTH)``, in order of time, those of a quiet window as they came; a row stands for
    ``weight`` packets.
    """

    data: NDArray[np.uint8]
    ts_ns: NDArray[np.int64]
    wire_len: NDArray[np.uint32]
    captured: NDArray[np.uint32]  # bytes that are the frame's own
    weight: NDArray[np.uint32]
    link_type: int

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + 20 * len(self.ts_ns)

    def thinner(self, step: int = 2) -> Headers:
        """A ``step``-th of the rows, standing for so many times more; a copy, so that the others' memory is freed."""
        headers = _picked(self, indices(_scattered(0, len(self.ts_ns)) < np.uint32((1 << 32) // step)))
        headers.weight[:] *= np.uint32(step)
        return headers

    def seen(self, earlier: Sequence[Headers] = ()) -> Seen:
        """The decoded packets of this window and of ``earlier`` ones, at most about ``LOOKED_AT`` of them."""
        headers = _joined([*(each for each in earlier if each.link_type == self.link_type), self])
        step = -(-len(headers.ts_ns) // LOOKED_AT)
        return Seen(headers.thinner(step) if step > 1 else headers)


class Seen:
    """Decoded headers, for whoever wants to tell what happened."""

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.weight = headers.weight.astype(np.float64)

    @cached_property
    def frames(self) -> Frames:
        rows = len(self.headers.ts_ns)
        data = np.concatenate([self.headers.data.reshape(-1), np.zeros(PAD, np.uint8)])
        return Frames(data, np.arange(rows, dtype=np.int64) * WIDTH, self.headers.captured, self.headers.link_type)

    @cached_property
    def packets(self) -> PacketBatch:
        headers = self.headers
        return decode(self.frames, headers.ts_ns, headers.wire_len, PRIVATE, int(headers.ts_ns.max(initial=0)))

    @cached_property
    def network(self) -> NDArray[np.int64]:
        """Where the network header of each row begins in ``frames.data``."""
        return self.frames.start + locate(self.frames).network

    def address(self, key: int) -> str | None:
        """The address that has ``key``; None for one of IPv6 that is not in the sample."""
        if key < 1 << 32:
            return str(ipaddress.IPv4Address(key))
        for column, offset in ((self.packets.src_key, 8), (self.packets.dst_key, 24)):
            rows = np.flatnonzero(column == np.uint64(key))
            if len(rows):
                at = int(self.network[rows[0]]) + offset
                return str(ipaddress.IPv6Address(self.frames.data[at : at + 16].tobytes()))
        return None

    def query_names(self, rows: Rows) -> list[str]:
        """The names that DNS queries over UDP in ``rows`` ask for, as far as they were captured (RFC 1035 4.1.2)."""
        at = self.network[rows] + np.where(self.packets.is_ipv4[rows], 20, 40) + 8 + 12  # IP, UDP and DNS headers
        ends = self.frames.start[rows] + self.frames.captured[rows]
        return [
            _name(self.frames.data[begin:end].tobytes()) for begin, end in zip(at.tolist(), ends.tolist(), strict=True)
        ]


def _name(message: bytes) -> str:
    labels, at = [], 0
    while at < len(message) and 0 < message[at] < 64:
        labels.append(message[at + 1 : at + 1 + message[at]].decode("ascii", "replace"))
        at += 1 + message[at]
    return ".".join(labels)


class HeaderSample:
    """The sample of the open window.

    Until that closes, the weight of a row is the number of its stratum and, below, its own number in the window,
    scattered: those below a k-th of the range are kept, whatever power of two k has become meanwhile.
    """

    def __init__(self) -> None:
        self._link_type = 1
        self._clear()

    def add(self, batch: PacketBatch) -> None:
        """Keep what is to be kept of ``batch``; its frames are copied."""
        if not len(batch):
            return
        if batch.frames.link_type != self._link_type:  # only a pcapng file has several: the last one stays
            self._link_type = batch.frames.link_type
            self._clear()
        begin = self._frames
        self._frames += len(batch)
        if self._frames <= QUIET:
            self._take(batch, np.arange(len(batch)), np.full(len(batch), WHOLE << NUMBER, np.uint32))
            return
        numbers = _scattered(begin, len(batch)) >> _UNUSED
        strata = _strata(batch)
        keep = np.zeros(len(batch), np.bool_)
        for stratum, mask in enumerate(strata):
            keep |= mask & (numbers < self._limit(stratum, mask))
        rows = indices(keep)
        if len(rows):
            weight = numbers[rows]
            for stratum, mask in enumerate(strata):
                weight |= mask[rows] * constant(np.uint32, stratum << NUMBER)
            self._take(batch, rows, weight)

    def close(self) -> Headers:
        """The sample of the window that ends; the next one starts empty."""
        headers = _joined(self._parts) if self._parts else _nothing(self._link_type)
        if self._frames > QUIET:
            rows = indices(self._stays(headers))
            headers = _picked(headers, rows[np.argsort(headers.ts_ns[rows], kind="stable")])
            headers.weight[:] = self._every[headers.weight >> NUMBER]
        else:
            headers.weight[:] = 1
        self._clear()
        return headers

    def _clear(self) -> None:
        self._parts: list[Headers] = []
        self._frames = self._rows = 0  # seen and, as yet, kept
        self._seen = [0] * len(STRATA)
        self._every = np.ones(len(STRATA) + 1, np.uint32)  # of a stratum that is kept; the last is what is kept whole

    def _limit(self, stratum: int, mask: Bools) -> NDArray[np.uint32]:
        """Below it are the numbers of every k-th row, k so large that the whole stratum is within its limit when
        those in ``mask`` are added; shape ``()``.
        """
        every = int(self._every[stratum])
        self._seen[stratum] += int(np.count_nonzero(mask))
        while self._seen[stratum] > every * STRATA[stratum]:
            every *= 2
        self._every[stratum] = every
        return constant(np.uint32, (1 << NUMBER) // every)

    def _take(self, batch: PacketBatch, rows: Rows, weight: NDArray[np.uint32]) -> None:
        self._parts.append(_copied(batch, rows, weight))
        self._rows += len(rows)
        while self._rows > MOST:
            headers = _joined(self._parts)
            self._parts = [_picked(headers, indices(self._stays(headers)))]  # copied: the others' memory is freed
            self._rows = len(self._parts[0].ts_ns)
            if self._rows > MOST:  # packets in such an order that all of them fell to one side
                self._every[:WHOLE] *= 2

    def _stays(self, headers: Headers) -> Bools:
        """Which rows are still among every k-th."""
        stays: Bools = headers.weight & _NUMBERS < ((1 << NUMBER) // self._every)[headers.weight >> NUMBER]
        return stays


def _strata(batch: PacketBatch) -> tuple[Bools, ...]:
    """The rows of each stratum, in the order of ``STRATA``."""
    begun: Bools = batch.tcp_flags & _SYN_ACK == _SYN
    control, query = batch.is_arp | batch.is_icmp | batch.is_icmp6, batch.is_udp & (batch.dst_port == _DNS)
    return begun, control, query, ~(begun | control | query)


def _copied(batch: PacketBatch, rows: Rows, weight: NDArray[np.uint32]) -> Headers:
    frames = batch.frames
    captured = np.minimum(frames.captured[rows], WIDTH).astype(np.uint32)
    return Headers(
        gather(frames.data, frames.start[rows], WIDTH),
        batch.ts_ns[rows],
        batch.wire_len[rows],
        captured,
        weight,
        frames.link_type,
    )


def _scattered(begin: int, number: int) -> NDArray[np.uint32]:
    """Multiples of the golden ratio, which fill a range evenly, and so do every second of them, or every third: of
    packets that alternate, such as requests and replies, both sorts are kept.
    """
    first = constant(np.uint32, begin * _GOLDEN & 0xFFFF_FFFF)
    scattered: NDArray[np.uint32] = np.arange(number, dtype=np.uint32) * constant(np.uint32, _GOLDEN) + first
    return scattered


def _picked(h: Headers, rows: Rows) -> Headers:
    return Headers(h.data[rows], h.ts_ns[rows], h.wire_len[rows], h.captured[rows], h.weight[rows], h.link_type)


def _joined(parts: Sequence[Headers]) -> Headers:
    if len(parts) == 1:
        return parts[0]
    return Headers(
        np.concatenate([part.data for part in parts]),
        np.concatenate([part.ts_ns for part in parts]),
        np.concatenate([part.wire_len for part in parts]),
        np.concatenate([part.captured for part in parts]),
        np.concatenate([part.weight for part in parts]),
        parts[-1].link_type,
    )


def _nothing(link_type: int) -> Headers:
    empty = np.empty(0, np.uint32)
    return Headers(np.empty((0, WIDTH), np.uint8), np.empty(0, np.int64), empty, empty, empty, link_type)
