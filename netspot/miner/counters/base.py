"""The kinds of counters, and the bank that drives the ones in use.

A counter is a declaration; what it has counted so far lives in an *accumulator* that a bank makes from it. Each kind
adds up a whole batch in a few numpy calls, so that the cost hardly depends on how many counters there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from netspot.miner.distinct import KeySample, firsts, pair, tally
from netspot.miner.evidence import HeaderSample
from netspot.miner.headers import indices
from netspot.packets import Bools, PacketBatch
from netspot.record import Record

ADDRESSES = 32_768  # distinct keys counted exactly in one window; beyond it an estimate, standard error 0.7 %
PAIRS = 4_096  # distinct pairs held for a fan-out; beyond it an estimate, told less its error
FEW = 8192  # pairs that are kept as they came
HANDFUL = 64  # numbers that are counted sooner one by one than by arrays
SLOTS = 1_024  # groups of a balance: those that share the low bits of their keys count as one
GROUPS = 1024  # groups whose packets are told apart; of more, the smallest are forgotten now and then

# The keys of the given rows of a batch, shape (len(rows),): what is costly is not computed for the other rows.
KeysOf = Callable[[PacketBatch, NDArray[np.intp]], NDArray[np.uint64]]


class Accumulator(ABC):
    """What one counter has seen in the window that is open."""

    @abstractmethod
    def add(self, batch: PacketBatch) -> None: ...

    @abstractmethod
    def value(self) -> float: ...

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in the same counter's accumulator of another window."""

    @abstractmethod
    def clear(self) -> None: ...

    def top(self) -> int | None:
        """The key that made the last ``value`` what it is, where the counter knows; None where it does not."""
        return None


class Counter(Record):
    """A name, what it means to a person, its unit, and how to make an accumulator for it."""

    name: str
    help: str
    unit: str
    accumulator: Callable[[], Accumulator]


def packets(name: str, help: str, mask: Callable[[PacketBatch], Bools]) -> Counter:
    """Counts the packets in ``mask(batch)``."""
    return Counter(name, help, "packet", lambda: _Total(lambda batch: int(np.count_nonzero(mask(batch)))))


def frames(name: str, help: str) -> Counter:
    """Counts all there are."""
    return Counter(name, help, "packet", lambda: _Total(len))


def volume(name: str, help: str, values: Callable[[PacketBatch], NDArray[np.unsignedinteger[Any]]]) -> Counter:
    """Adds up ``values(batch)`` [byte]."""
    return Counter(name, help, "byte", lambda: _Total(lambda batch: int(values(batch).sum(dtype=np.uint64))))


def distinct(
    name: str,
    help: str,
    unit: str,
    keys: Callable[[PacketBatch], NDArray[np.uint64]],
    mask: Callable[[PacketBatch], Bools],
    limit: int = ADDRESSES,
) -> Counter:
    """Counts the distinct ``keys(batch)`` among the packets in ``mask(batch)``."""
    return Counter(name, help, unit, lambda: _Distinct(keys, mask, limit))


def distinct_ports(
    name: str, help: str, ports: Callable[[PacketBatch], NDArray[np.uint16]], mask: Callable[[PacketBatch], Bools]
) -> Counter:
    """Counts the distinct ``ports(batch)`` among the packets in ``mask(batch)``, always exactly."""
    return Counter(name, help, "port", lambda: _Ports(ports, mask))


def fan_out(
    name: str,
    help: str,
    unit: str,
    group: KeysOf,
    item: KeysOf,
    mask: Callable[[PacketBatch], Bools],
) -> Counter:
    """The most distinct ``item(batch, rows)`` of one ``group(batch, rows)``, among the packets in ``mask(batch)``."""
    return Counter(name, help, unit, lambda: _FanOut(group, item, mask))


def heaviest(
    name: str,
    help: str,
    unit: str,
    group: KeysOf,
    mask: Callable[[PacketBatch], Bools],
) -> Counter:
    """The most packets that one ``group(batch, rows)`` has, among those in ``mask(batch)``."""
    return Counter(name, help, unit, lambda: _Heaviest(group, mask))


def balance(
    name: str,
    help: str,
    unit: str,
    group: Callable[[PacketBatch], NDArray[np.uint64]],
    amount: Callable[[PacketBatch], NDArray[np.integer[Any]]],
) -> Counter:
    """The greatest sum of the signed ``amount(batch)`` that one ``group(batch)`` has; 0 where all are negative."""
    return Counter(name, help, unit, lambda: _Balance(group, amount))


class _Total(Accumulator):
    def __init__(self, amount: Callable[[PacketBatch], int]) -> None:
        self._amount = amount
        self._total = 0

    def add(self, batch: PacketBatch) -> None:
        self._total += self._amount(batch)

    def value(self) -> float:
        return self._total

    def merge(self, other: Self) -> None:
        self._total += other._total

    def clear(self) -> None:
        self._total = 0


class _Distinct(Accumulator):
    def __init__(
        self, keys: Callable[[PacketBatch], NDArray[np.uint64]], mask: Callable[[PacketBatch], Bools], limit: int
    ) -> None:
        self._keys, self._mask = keys, mask
        self._sample = KeySample(limit)

    def add(self, batch: PacketBatch) -> None:
        self._sample.add(selected(self._mask(batch), self._keys(batch)))

    def value(self) -> float:
        return self._sample.count()

    def merge(self, other: Self) -> None:
        self._sample.merge(other._sample)

    def clear(self) -> None:
        self._sample.clear()


class _Ports(Accumulator):
    """A bitmap of one byte a port: 64 KiB, whatever comes."""

    def __init__(
        self, ports: Callable[[PacketBatch], NDArray[np.uint16]], mask: Callable[[PacketBatch], Bools]
    ) -> None:
        self._ports, self._mask = ports, mask
        self._seen = np.zeros(65_536, np.bool_)

    def add(self, batch: PacketBatch) -> None:
        self._seen[self._ports(batch)[indices(self._mask(batch))]] = True

    def value(self) -> float:
        return int(np.count_nonzero(self._seen))

    def merge(self, other: Self) -> None:
        self._seen |= other._seen

    def clear(self) -> None:
        self._seen.fill(False)


class _Selective(Accumulator):
    """Looks at the rows in a mask alone; those that share it are given the rows at once."""

    def __init__(self, mask: Callable[[PacketBatch], Bools]) -> None:
        self.mask = mask
        self._top = 0

    def add(self, batch: PacketBatch) -> None:
        rows = indices(self.mask(batch))
        if len(rows):
            self.look(batch, rows)

    @abstractmethod
    def look(self, batch: PacketBatch, rows: NDArray[np.intp]) -> None:
        """Add those ``rows``, at least one."""

    def top(self) -> int:
        return self._top

    def _greatest(self, counts: Iterable[tuple[int, int]]) -> int:
        """The greatest sum of a group; of equal ones the smallest group is the top, as where arrays are counted."""
        sums: dict[int, int] = {}
        for group, count in counts:
            sums[group] = sums.get(group, 0) + count
        most = max(sums.values())
        self._top = min([group for group, total in sums.items() if total == most])
        return most


class _FanOut(_Selective):
    """Pairs as they came while they are few, which is nearly always; a flood of them goes into a bounded sample."""

    def __init__(self, group: KeysOf, item: KeysOf, mask: Callable[[PacketBatch], Bools]) -> None:
        super().__init__(mask)
        self._group, self._item = group, item
        self._sample = KeySample(PAIRS, grouped=True)
        self._parts: list[tuple[NDArray[np.uint64], NDArray[np.uint64]]] = []  # groups and their items
        self._held = 0

    def look(self, batch: PacketBatch, rows: NDArray[np.intp]) -> None:
        self._take(self._group(batch, rows), self._item(batch, rows))

    def _take(self, groups: NDArray[np.uint64], items: NDArray[np.uint64]) -> None:
        self._parts.append((groups, items))
        self._held += len(groups)
        if self._held > FEW:
            self._pour()

    def _pour(self) -> None:
        for groups, items in self._parts:
            self._sample.add(pair(groups, items), groups)
        self._parts, self._held = [], 0

    def value(self) -> float:
        if self._sample.count():
            self._pour()
            self._top, most = self._sample.largest()
            return most
        if not self._held:
            return 0
        if self._held <= HANDFUL:
            pairs = {
                each for groups, items in self._parts for each in zip(groups.tolist(), items.tolist(), strict=True)
            }
            return self._greatest((group, 1) for group, _ in pairs)
        groups = np.concatenate([part[0] for part in self._parts])
        items = np.concatenate([part[1] for part in self._parts])
        first = firsts(pair(groups, items))
        groups = groups[first]
        self._parts, self._held = [(groups, items[first])], len(groups)
        found, counts = tally(groups)
        most = int(counts.argmax())
        self._top = int(found[most])
        return int(counts[most])

    def merge(self, other: Self) -> None:
        if other._sample.count():
            self._pour()
            self._sample.merge(other._sample)
        for groups, items in other._parts:
            self._take(groups, items)

    def clear(self) -> None:
        self._sample.clear()
        self._parts, self._held, self._top = [], 0, 0


class _Heaviest(_Selective):
    """Packets by group as (groups, counts) parts, put together when they become many."""

    def __init__(self, group: KeysOf, mask: Callable[[PacketBatch], Bools]) -> None:
        super().__init__(mask)
        self._group = group
        self._parts: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []
        self._held = 0

    def look(self, batch: PacketBatch, rows: NDArray[np.intp]) -> None:
        self._take(self._group(batch, rows), np.ones(len(rows), np.int64))

    def _take(self, groups: NDArray[np.uint64], counts: NDArray[np.int64]) -> None:
        self._parts.append((groups, counts))
        self._held += len(groups)
        if self._held > 4 * GROUPS:
            self._compact()

    def _compact(self) -> None:
        """One row a group; of more than GROUPS only the heaviest stay, and a flood of small ones is forgotten."""
        groups, inverse = np.unique(np.concatenate([part[0] for part in self._parts]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([part[1] for part in self._parts])).astype(np.int64)
        if len(groups) > GROUPS:
            most = np.argsort(-counts, kind="stable")[:GROUPS]
            groups, counts = groups[most], counts[most]
        self._parts, self._held = [(groups, counts)], len(groups)

    def value(self) -> float:
        if not self._held:
            return 0
        if self._held <= HANDFUL:
            parts = (zip(groups.tolist(), counts.tolist(), strict=True) for groups, counts in self._parts)
            return self._greatest(chain.from_iterable(parts))
        self._compact()
        groups, counts = self._parts[0]
        most = int(np.argmax(counts))
        self._top = int(groups[most])
        return int(counts[most])

    def merge(self, other: Self) -> None:
        for groups, counts in other._parts:
            self._take(groups, counts)

    def clear(self) -> None:
        self._parts, self._held, self._top = [], 0, 0


class _Balance(Accumulator):
    """A sum for each value of the groups' low bits: 8 KiB, whatever comes."""

    def __init__(
        self,
        group: Callable[[PacketBatch], NDArray[np.uint64]],
        amount: Callable[[PacketBatch], NDArray[np.integer[Any]]],
    ) -> None:
        self._group, self._amount = group, amount
        self._sums = np.zeros(SLOTS)

    def add(self, batch: PacketBatch) -> None:
        slots = (self._group(batch) & np.uint64(SLOTS - 1)).view(np.int64)
        self._sums += np.bincount(slots, self._amount(batch), minlength=SLOTS)

    def value(self) -> float:
        return max(0, int(self._sums.max()))

    def merge(self, other: Self) -> None:
        self._sums += other._sums

    def clear(self) -> None:
        self._sums.fill(0)


def selected(mask: Bools, values: NDArray[Any]) -> NDArray[Any]:
    """``values[mask]``; without a copy where the mask holds for all, as it nearly always does for addresses."""
    return values if mask.all() else values[mask]


class CounterBank:
    """The accumulators of the counters in use, for windows of one period and for longer spans.

    Packets are counted once: a span's accumulators are merged from those of the next shorter span that divides it.
    """

    def __init__(
        self,
        counters: Iterable[Counter],
        spans: Mapping[int, Iterable[str]] | None = None,
        sample: HeaderSample | None = None,
    ) -> None:
        """``spans``: length [period] -> names of the counters that are wanted over it; ``sample`` keeps headers."""
        self.counters = {counter.name: counter for counter in counters}
        self._open = {name: counter.accumulator() for name, counter in self.counters.items()}
        self._selective: dict[Callable[[PacketBatch], Bools], list[_Selective]] = {}
        self._others: list[Accumulator] = []
        for accumulator in self._open.values():
            if isinstance(accumulator, _Selective):
                self._selective.setdefault(accumulator.mask, []).append(accumulator)
            else:
                self._others.append(accumulator)
        self._sample = sample
        self._evidence: dict[str, Any] = {}
        self._spans = {
            span: {name: self.counters[name].accumulator() for name in names}
            for span, names in sorted((spans or {}).items())
        }
        self._topped = [name for name, each in self._open.items() if type(each).top is not Accumulator.top]
        self._feeds: dict[int, list[tuple[str, Accumulator]]] = {span: [] for span in (1, *self._spans)}
        for span, accumulators in self._spans.items():
            for name, accumulator in accumulators.items():
                shorter = [s for s, names in self._spans.items() if s < span and span % s == 0 and name in names]
                self._feeds[max(shorter, default=1)].append((name, accumulator))

    @property
    def spans(self) -> tuple[int, ...]:
        """Ascending: those that end together must be closed in this order."""
        return tuple(self._spans)

    def add(self, batch: PacketBatch) -> None:
        for accumulator in self._others:
            accumulator.add(batch)
        for mask, selective in self._selective.items():
            rows = indices(mask(batch))
            if len(rows):
                for each in selective:
                    each.look(batch, rows)
        if self._sample is not None:
            self._sample.add(batch)

    def evidence(self) -> dict[str, Any]:
        """Of the window or span that was closed last: ``top``, who made a counter's value what it is, by counter; and
        ``headers``, the sample of a window of one period.
        """
        return self._evidence

    def close(self) -> dict[str, float]:
        """The counts of the window that ends, by counter name; the next one starts at 0."""
        counts = self._closed(1, self._open)
        if self._sample is not None:
            self._evidence["headers"] = self._sample.close()
        return counts

    def close_span(self, span: int) -> dict[str, float]:
        """The counts of the span that ends, of those counters that are wanted over it."""
        return self._closed(span, self._spans[span])

    def clear_span(self, span: int) -> None:
        for accumulator in self._spans[span].values():
            accumulator.clear()

    def _closed(self, span: int, accumulators: dict[str, Accumulator]) -> dict[str, float]:
        counts = {name: accumulator.value() for name, accumulator in accumulators.items()}
        tops = {name: accumulators[name].top() for name in self._topped if name in accumulators}
        self._evidence = {"top": {name: key for name, key in tops.items() if key}}
        for name, longer in self._feeds[span]:
            if counts[name]:
                longer.merge(accumulators[name])
        for accumulator in accumulators.values():
            accumulator.clear()
        return counts
