"""How many distinct keys: exact up to a bound, then an estimate, in memory that no flood can grow.

``KeySample`` is a hash set of 64-bit keys as one numpy table. When it would hold more than ``limit`` it keeps only
those whose hash ends in one more zero bit, and counts each remaining key twice: adaptive sampling (Wegman; P. Flajolet,
"On adaptive sampling", Computing 43, 1990). The estimate is unbiased, with a standard error of 1.20 / sqrt(limit):
0.7 % for 32,768. A flood of new keys makes it cheaper, not dearer: most fail the test on the low bits before the table
is looked at. Because what it keeps are keys and not registers, one mechanism also answers
"how many distinct items by group" (fan-out) and merges over longer spans.

Two hashes: which keys stay in the sample is decided by a fixed one, so that the same packets give the same numbers on
every machine; where a key lies in the table, by one that is drawn anew by every process, so that nobody can send keys
that all lie in one place. Whoever knows the fixed one can bend an estimate beyond ``limit``, but not cost time.
"""

from __future__ import annotations

import math
import os
from functools import cache
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Final

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import constant, indices

U64 = NDArray[np.uint64]

# Odd constants of two finalizers that spread every input bit over the whole word (both maps are bijective on 64 bits,
# so that distinct keys never become one): S. Vigna's splitmix64.
_M1: Final = constant(np.uint64, 0xBF58476D1CE4E5B9)
_M2: Final = constant(np.uint64, 0x94D049BB133111EB)
_S: Final = constant(np.uint64, 31)
_PAIR: Final = constant(np.uint64, 0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_SALT: Final = constant(np.uint64, 0x632BE59BD9B4E019)  # moves the one key whose hash is 0, which means "empty", out
_EMPTY: Final = constant(np.uint64, 0)  # of IPv4
_SECRET: Final = [
    constant(np.uint64, int.from_bytes(os.urandom(8), "little") | 1) for _ in range(2)
]  # of the hash for places
STEPS = 64  # places that a key tries: a third of them is empty, so that chances are below 1e-11 that none is


def mix(keys: U64) -> U64:
    """A bijective 64-bit hash of ``keys`` in which every bit depends on every bit; shape is kept."""
    return _spread(keys + _SALT)


def _spread(held: U64) -> U64:
    """``mix`` of keys that carry the salt already, as they are held."""
    h: U64 = held >> _S
    h ^= held
    h *= _M1
    h ^= h >> _S
    h *= _M2
    h ^= h >> _S
    return h


def _scatter(held: U64) -> U64:
    """The hash that nobody can foresee: its upper bits are the place, those below them the stride."""
    h: U64 = held >> _S
    h ^= held
    h *= _SECRET[0]
    h ^= h >> _S
    h *= _SECRET[1]
    return h


def pair(group: U64, item: U64) -> U64:
    """One key for (group, item): equal pairs are equal, different ones collide with a chance of 2^-64."""
    paired: U64 = mix(group) + item * _PAIR
    return paired


def firsts(keys: U64) -> NDArray[np.intp]:
    """One row of each distinct key, in the order of keys; shape ``(distinct,)``."""
    order = keys.argsort()
    rows: NDArray[np.intp] = order[_begins(keys[order])[:-1]]
    return rows


def tally(keys: U64) -> tuple[U64, NDArray[np.intp]]:
    """The distinct keys, in order, and how many there are of each; both have shape ``(distinct,)``.

    As ``np.unique``, in half the time for some hundred keys.
    """
    ordered = np.sort(keys)
    begins = indices(_begins(ordered))
    return ordered[begins[:-1]], begins[1:] - begins[:-1]


def _begins(ordered: U64) -> NDArray[np.bool_]:
    """Where another key begins, shape ``(len(ordered) + 1,)``: the end counts as one."""
    begins = np.ones(len(ordered) + 1, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], begins[1:-1])
    return begins


def _zeros(places: int) -> U64:
    """A table that takes no memory where nothing is written."""
    return np.frombuffer(mmap(-1, 8 * places, MAP_PRIVATE | MAP_ANONYMOUS), np.uint64)


@cache
def _scratch(places: int) -> NDArray[np.int32]:
    """What ``_place`` writes before it reads, for all tables of that size: they are filled by one thread."""
    return np.empty(places, np.int32)


class KeySample:
    """Distinct 64-bit keys, each with the group it belongs to.

    ``limit`` keys are held exactly; the table has twice as many places: 8 bytes each, 16 with groups.
    """

    def __init__(self, limit: int, grouped: bool = False) -> None:
        bits = (2 * limit - 1).bit_length()
        self._limit = limit
        self._shift = constant(np.uint64, 64 - bits)
        self._stride_shift = constant(np.uint64, max(0, 64 - 2 * bits))
        self._wrap = constant(np.int64, (1 << bits) - 1)
        self._table = _zeros(1 << bits)  # keys plus _SALT
        self._groups = _zeros(1 << bits) if grouped else None
        self._row = _scratch(1 << bits)
        self._slots = np.empty(0, np.int32)  # the places in use, at most ``limit``
        self._level = 0  # each key held stands for 2^level

    def add(self, keys: U64, groups: U64 | None = None) -> None:
        """Add ``keys``, shape (n,); with ``groups``, shape (n,), where the sample is grouped."""
        held = keys + _SALT
        if self._level:
            keep = indices(self._passes(held))
            held = held[keep]
            groups = None if groups is None else groups[keep]
        # Nearly all keys of quiet traffic are known already and sit in their first place: two passes settle them.
        h = _scatter(held)
        elsewhere = indices(self._table[(h >> self._shift).view(np.int64)] != held)
        if 0 < len(elsewhere) < len(held) // 8:  # most of these sit in a later place; in a flood they are new
            elsewhere = elsewhere[self._missing(held[elsewhere], h[elsewhere])]
        if len(elsewhere):
            self._insert(held[elsewhere], None if groups is None else groups[elsewhere])

    def count(self) -> int:
        """Distinct keys: exact while no more than ``limit`` were seen, else the estimate."""
        return len(self._slots) << self._level

    def largest(self) -> tuple[int, int]:
        """(group with the most distinct keys, how many); (0, 0) when empty. Ties go to the smallest group.

        Of a sample it is two standard errors less than the estimate: the greatest of many estimates is mostly one that
        came out too high, and with a flood of others each ordinary group would seem to have dozens.
        """
        if self._groups is None or not len(self._slots):
            return 0, 0
        groups, counts = tally(self._groups[self._slots])
        top = int(counts.argmax())
        most = int(counts[top])
        if self._level:
            most = max(1, round((most - 2 * math.sqrt(most)) * (1 << self._level)))
        return int(groups[top]), most

    def merge(self, other: KeySample) -> None:
        """Add all that ``other`` holds; the union of two samples is the sample of the union."""
        while self._level < other._level:
            self._thin()
        held = other._table[other._slots]
        groups = None if other._groups is None else other._groups[other._slots]
        if self._level:
            keep = indices(self._passes(held))
            held, groups = held[keep], None if groups is None else groups[keep]
        self._insert(held, groups)

    def clear(self) -> None:
        if len(self._slots):
            self._table[self._slots] = _EMPTY
            self._slots = np.empty(0, np.int32)
        self._level = 0

    def _places(self, h: U64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First place and stride of each key, of which ``h`` is the hash.

        Each has a stride of its own (odd, so that it comes to every place): with a common one the last of many keys
        would take hundreds of steps, each of them a handful of numpy calls. What has no place after STEPS is not
        counted.
        """
        return (h >> self._shift).view(np.int64), (h >> self._stride_shift).view(np.int64) & self._wrap | 1

    def _missing(self, held: U64, h: U64) -> NDArray[np.intp]:
        """Which of ``held`` the table does not hold; ``h`` is their hash."""
        slot, stride = self._places(h)
        rows = np.arange(len(held))
        missing = []
        for _ in range(STEPS):
            occupant = self._table[slot]
            empty = occupant == _EMPTY
            missing.append(rows[empty])
            on = indices(~empty & (occupant != held))
            if not len(on):
                break
            held, rows, slot, stride = held[on], rows[on], (slot[on] + stride[on]) & self._wrap, stride[on]
        return np.concatenate(missing)

    def _passes(self, held: U64) -> NDArray[np.bool_]:
        passes: NDArray[np.bool_] = (_spread(held) & np.uint64((1 << self._level) - 1)) == 0
        return passes

    def _insert(self, held: U64, groups: U64 | None) -> None:
        """Add keys of which the table may hold some, and which may be equal."""
        while not self._place(held, groups):
            self._thin()
            keep = self._passes(held)
            held, groups = held[keep], None if groups is None else groups[keep]
        if len(self._slots) > self._limit:
            self._thin()

    def _place(self, held: U64, groups: U64 | None) -> bool:
        """Put ``held`` into the table; false, and nothing is done, where it would certainly hold more than ``limit``.

        What that cannot tell, because several keys want one place, may be too many by a third. Double hashing, all
        keys a step at a time; a key that is there already goes no further.
        """
        slot, stride = self._places(_scatter(held))
        taken = [self._slots]
        for _ in range(STEPS):
            empty = indices(self._table[slot] == _EMPTY)
            free, rows = slot[empty], np.arange(len(empty), dtype=np.int32)
            self._row[free] = rows  # of several for one place one wins; the others see its key and go on, or are done
            won = indices(self._row[free] == rows)
            if len(taken) == 1 and len(self._slots) + len(won) > self._limit:
                return False
            free, won = free[won], empty[won]
            self._table[free] = held[won]
            if self._groups is not None and groups is not None:
                self._groups[free] = groups[won]
            taken.append(free.astype(np.int32))
            on = indices(self._table[slot] != held)
            if not len(on):
                break
            held, slot, stride = held[on], (slot[on] + stride[on]) & self._wrap, stride[on]
            groups = None if groups is None else groups[on]
        self._slots = np.concatenate(taken)
        return True

    def _thin(self) -> None:
        """Keep the keys whose hash ends in one more zero bit, or in so many that no more than ``limit`` are left."""
        held = self._table[self._slots]
        self._level += 1
        while np.count_nonzero(keep := self._passes(held)) > self._limit:
            self._level += 1
        if not keep.all():
            groups = None if self._groups is None else self._groups[self._slots][keep]
            level = self._level
            self.clear()
            self._level = level
            self._place(held[keep], groups)
