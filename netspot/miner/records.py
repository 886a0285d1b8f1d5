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
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import Buffer, Bytes, Offsets, field, gather, indices
from netspot.packets import Bools

MAX_RECORD = 1 << 18  # the longest packet that tcpdump and Wireshark write [byte]
RECORDS_A_CHAIN = 32  # aimed at: more chains cost more guesses, longer ones more steps
SEARCHED = 8  # of a stretch this part is searched for the first record in it
FEW = 16  # chains that are not worth a numpy call a step
MORE_STEPS = 16  # of the chains that have not arrived after the first round


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

    def pattern(self, raw: Buffer, begin: int) -> tuple[NDArray[np.unsignedinteger], int]:
        """A word that most records have in common, shape ``()``, and where it stands in one; one is at ``begin``."""

    def plausible(self, data: Bytes, offsets: Offsets, end: int) -> Bools:
        """Where in ``data[:end]`` a record may well begin."""


class Found(NamedTuple):
    starts: Offsets  # of whole records, in order
    heads: Bytes  # the first ``head`` bytes of each
    stop: int  # offset of the first record that is not among them: incomplete, broken, or one too many


def find(raw: Buffer, begin: int, end: int, layout: Layout, most: int, mean: int) -> Found:
    """The first whole records in ``raw[begin:end]``, at most ``most``; ``begin`` is where one begins.

    ``mean`` is the expected size of a record [byte]; a wrong one costs time. ``PAD`` bytes behind ``end`` are readable;
    some 100 KiB, of zeros, save a second try of the last chains. Half of the time goes into the steps of chains,
    a fifth into the guesses, the rest into the check.
    """
    data = np.frombuffer(raw, np.uint8)
    first = _walk(data, begin, begin + 1, end, layout, 1)[0]
    if not len(first):  # as at the end of each piece of a file: guesses would be for nothing
        return Found(first, gather(data, first, layout.head), begin)
    parts = -(-(end - begin) // max(most * mean, 4 * MAX_RECORD))  # of about the same size
    end = min(end, begin + (end - begin) // parts + mean)
    starts = _guesses(raw, data, begin, end, layout, max(RECORDS_A_CHAIN * mean, 256))
    lengths = np.ndarray((len(data) - layout.length_at - 3,), layout.length, data, layout.length_at, (1,))
    found = _chains(lengths, starts, end, layout.extra, 2 * most) if len(starts) >= FEW else starts[:1]
    return _one_chain(data, found, begin, end, layout, most)


def _guesses(raw: Buffer, data: Bytes, begin: int, end: int, layout: Layout, distance: int) -> Offsets:
    """``begin``, and what looks like a record first in the beginning of each further stretch of ``distance`` bytes.

    Words are compared where words are aligned, which takes half the time of comparing bytes and finds one record in
    two, nearly always enough. Where it is not, as where all sizes but a few are even, the others are looked at too.
    """
    pattern, shift = layout.pattern(raw, begin)
    word = pattern.itemsize
    distance, first = distance & -word, begin + distance + shift & -word
    number = max((end - distance - first) // distance + 1, 0)
    shape, strides = (number, distance // (SEARCHED * word)), (distance, word)
    offsets = np.full(number, -1, np.int64)
    for lane in (0, 1):
        words = np.ndarray(shape, pattern.dtype, data, min(first, end & -word) + lane, strides)
        hits = words == pattern
        at = hits.argmax(axis=1)
        found = indices(hits[np.arange(number), at] & (offsets < 0))
        offsets[found] = found * distance + at[found] * word + (first + lane - shift)
        if 4 * np.count_nonzero(offsets >= 0) >= 3 * number:
            break
    offsets = offsets[offsets >= 0]
    return np.concatenate(([begin], offsets[layout.plausible(data, offsets, end)]))


def _chains(lengths: NDArray[np.unsignedinteger], starts: Offsets, end: int, extra: int, most: int) -> Offsets:
    """Offsets reached from each of ``starts`` before the next of them, in order; about ``most`` at most."""
    limits = np.concatenate((starts[1:], [end]))
    pieces, total, number = [], 0, RECORDS_A_CHAIN * 5 // 4
    while len(starts) >= FEW and total < most:
        try:
            steps = _steps(lengths, starts, extra, number)
        except IndexError:  # a length that leads out of the buffer: a wrong guess, or a broken file
            steps = _steps(lengths, starts, extra, number, end)
        reached = np.ascontiguousarray(steps[:-1].T)
        pieces.append(reached[reached < limits[:, None]])
        total += len(pieces[-1])
        left = steps[-1] < limits
        starts, limits, number = steps[-1][left], limits[left], MORE_STEPS
    found = np.concatenate(pieces)
    if len(pieces) > 1:
        found.sort(kind="stable")  # merges runs
    return found


def _steps(
    lengths: NDArray[np.unsignedinteger], starts: Offsets, extra: int, number: int, end: int | None = None
) -> Offsets:
    """``number`` steps from each start, shape ``(number + 1, n)``, not beyond ``end``.

    The loop adds the lengths alone; ``extra`` comes into the k-th step through a view that begins k times later.
    """
    steps = np.empty((number + 1, len(starts)), np.int64)
    steps[0] = starts
    for k, (before, after) in enumerate(pairwise(steps)):
        after[:] = lengths[k * extra :][before]  # an addition of two dtypes takes longer than this and one of the same
        after += before
        if end is not None:
            np.minimum(after, end - (k + 1) * extra, out=after)
    steps += extra * np.arange(number + 1)[:, None]
    return steps


def _one_chain(data: Bytes, found: Offsets, begin: int, end: int, layout: Layout, most: int) -> Found:
    """The chain of records from ``begin``, with ``found`` as far as it proves to be part of it."""
    heads = gather(data, found, layout.head)
    size = field(heads, layout.length_at, layout.length)
    after = found + layout.extra + size
    whole = (size >= layout.shortest) & (size <= layout.longest) & (after <= end)
    ends = ~whole  # of unbroken runs
    ends[:-1] |= after[:-1] != found[1:]
    ends[-1] = True
    last = indices(ends)
    pieces: list[tuple[Offsets, Bytes]] = []
    position, count, more = begin, 0, True
    while more and count < most:
        k = int(found.searchsorted(position))
        if k < len(found) and found[k] == position:
            m = int(last[last.searchsorted(k)])
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
