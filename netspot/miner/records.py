"""Where the records of a capture begin: the costly step, because each record tells only where the next one is.

One record after the other in a Python loop costs some 150 ns each. Here many chains start at once, at places that look
like a record, and all advance together, a few numpy calls a step. The places are guesses; the result is not:

    ``found`` may be any list of offsets. ``_one_chain`` returns p_0 = begin and p_{i+1} = p_i + size(p_i), the size
    read from the record at p_i itself: it takes over a run of ``found`` only from the offset reached so far, and only
    as far as each offset equals the one before it plus that one's size, which is checked for every single one; any
    other record is stepped over alone. So by induction the result is the one sequence that a record-by-record reader
    sees, whatever the guesses were. Wrong guesses, as when a payload holds a capture, cost time only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import Bytes, Offsets, field, gather

MAX_RECORD = 1 << 18  # the longest packet that tcpdump and Wireshark write [byte]
RECORDS_A_CHAIN = 32  # aimed at: more chains cost more guesses, longer ones more steps
STEPS = 48  # of all chains, before those that have arrived are dropped
FEW = 16  # chains that are not worth a numpy call a step
WINDOW = 1664  # of a chain's stretch, the bytes that are searched for a header: a full Ethernet frame


class Places(NamedTuple):
    """Evenly spaced windows of the data."""

    first: int  # offset [byte]
    distance: int  # at least ``width`` [byte]
    number: int
    width: int  # [byte]

    def slabs(self) -> Iterator[Places]:
        """Some windows at a time: larger temporaries would cost more in fresh pages than in comparisons."""
        for begin in range(0, self.number, 64):
            number = min(64, self.number - begin)
            yield self._replace(first=self.first + begin * self.distance, number=number)

    def view(self, data: Bytes, dtype: str, shift: int = 0) -> NDArray[Any]:
        """The windows as rows of items of ``dtype``, ``shift`` bytes later."""
        size = np.dtype(dtype).itemsize
        return np.ndarray((self.number, self.width // size), dtype, data, self.first + shift, (self.distance, size))

    def first_hits(self, hit: NDArray[np.bool_], size: int) -> Offsets:
        """The offset of the first hit in each window that has one; ``size`` is that of an item [byte]."""
        column = hit.argmax(axis=1)
        row = np.arange(self.number)
        offsets: Offsets = (self.first + row * self.distance + column * size)[hit[row, column]]
        return offsets


class Layout(Protocol):
    """How a record tells its size, which is ``extra`` plus the length that it holds."""

    @property
    def length(self) -> str: ...  # dtype

    @property
    def length_at(self) -> int: ...  # offset in the record [byte]

    @property
    def head(self) -> int: ...  # bytes of a record that are wanted in ``Found.heads``

    @property
    def extra(self) -> int: ...  # [byte]

    @property
    def shortest(self) -> int: ...  # accepted length [byte]

    @property
    def longest(self) -> int: ...

    def guess(self, data: Bytes, begin: int, end: int, places: Places) -> Offsets:
        """Offsets, increasing, that look like records: at most one in each window. ``begin`` is one for certain."""


class Found(NamedTuple):
    starts: Offsets  # of whole records, in order
    heads: Bytes  # the first ``head`` bytes of each
    stop: int  # offset of the first record that is not among them: incomplete, broken, or one too many


def find(data: Bytes, begin: int, end: int, layout: Layout, most: int, mean: int) -> Found:
    """The first whole records in ``data[begin:end]``, at most ``most``; ``begin`` is where one begins.

    ``mean`` is the expected size of a record [byte]; a wrong one costs time. ``PAD`` bytes behind ``end`` are readable.
    Time goes into the steps of the chains (half), the search of the windows and the check (a quarter each).
    """
    end = min(end, begin + max(most * mean, 4 * MAX_RECORD))
    lengths = np.ndarray((len(data) - layout.length_at - 3,), layout.length, data, layout.length_at, (1,))
    distance = max(RECORDS_A_CHAIN * mean, 256) & ~7
    places = Places(begin + distance, distance, (end - begin) // distance - 1, min(distance, WINDOW))
    if places.number < FEW:
        found = np.array([begin])
    else:
        starts = np.concatenate(([begin], layout.guess(data, begin, end, places)))
        found = _chains(lengths, starts, end, layout.extra, 2 * most)
    return _one_chain(data, found, begin, end, layout, most)


def _chains(lengths: NDArray[np.unsignedinteger], starts: Offsets, end: int, extra: int, most: int) -> Offsets:
    """Offsets reached from each of ``starts`` before the next of them, in order; about ``most`` at most."""
    limits = np.append(starts[1:], end)
    pieces, total = [], 0
    while len(starts) >= FEW and total < most:
        try:
            steps = _steps(lengths, starts, extra)
        except IndexError:  # a length that leads out of the buffer: a wrong guess, or a broken file
            steps = _steps(lengths, starts, extra, end)
        reached = np.ascontiguousarray(steps[:-1].T)
        pieces.append(reached[reached < limits[:, None]])
        total += len(pieces[-1])
        left = steps[-1] < limits
        starts, limits = steps[-1][left], limits[left]
    found = np.concatenate(pieces)
    if len(pieces) > 1:
        found.sort(kind="stable")  # merges runs
    return found


def _steps(lengths: NDArray[np.unsignedinteger], starts: Offsets, extra: int, end: int | None = None) -> Offsets:
    """``STEPS`` steps from each start, shape ``(STEPS + 1, n)``, not beyond ``end``.

    The loop adds the lengths alone; ``extra`` comes into the k-th step through a view that begins k times later.
    """
    steps = np.empty((STEPS + 1, len(starts)), np.int64)
    steps[0] = starts
    for k in range(STEPS):
        np.add(steps[k], lengths[k * extra :][steps[k]], out=steps[k + 1])
        if end is not None:
            np.minimum(steps[k + 1], end - (k + 1) * extra, out=steps[k + 1])
    steps += extra * np.arange(STEPS + 1)[:, None]
    return steps


def _one_chain(data: Bytes, found: Offsets, begin: int, end: int, layout: Layout, most: int) -> Found:
    """The chain of records from ``begin``, with ``found`` as far as it proves to be part of it."""
    heads = gather(data, found, layout.head)
    size = field(heads, layout.length_at, layout.length)
    after = found + layout.extra + size
    whole = (size >= layout.shortest) & (size <= layout.longest) & (after <= end)
    last = np.flatnonzero(np.append(~whole[:-1] | (after[:-1] != found[1:]), True))  # of each unbroken run
    pieces: list[tuple[Offsets, Bytes]] = []
    position, count, more = begin, 0, True
    while more and count < most:
        k = int(np.searchsorted(found, position))
        if k < len(found) and found[k] == position:
            m = int(last[np.searchsorted(last, k)])
            more = bool(whole[m])
            pieces.append((found[k : m + more], heads[k : m + more]))
            position = int(after[m]) if more else int(found[m])
        else:
            until = int(found[k]) if k < len(found) else end
            starts, position, more = _walk(data, position, until, end, layout, most - count)
            pieces.append((starts, gather(data, starts, layout.head)))
        count += len(pieces[-1][0])
    starts, heads = (
        pieces[0] if len(pieces) == 1 else (np.concatenate(columns) for columns in zip(*pieces, strict=True))
    )
    return Found(starts[:most], heads[:most], int(starts[most]) if count > most else position)


def _walk(data: Bytes, position: int, until: int, end: int, layout: Layout, most: int) -> tuple[Offsets, int, bool]:
    """Record by record, up to the first one at or behind ``until``; the last value says whether that may be whole."""
    order = ">" if layout.length[0] == ">" else "<"
    unpack, buffer = struct.Struct(order + "I").unpack_from, data.data
    starts: list[int] = []
    more = True
    while more and position < until and len(starts) < most:
        more = position + layout.length_at + 4 <= end
        length = unpack(buffer, position + layout.length_at)[0] if more else 0
        after = position + layout.extra + length
        more = more and layout.shortest <= length <= layout.longest and after <= end
        if more:
            starts.append(position)
            position = after
    return np.array(starts, np.int64), position, more and position < end
