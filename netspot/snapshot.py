"""What the web threads may see: frozen, replaced as a whole after each window, so that nobody locks.

The main loop calls ``Board.step`` after each window; every other thread only reads ``Board.current`` and the
history. There is one writer. A row is written before the snapshot that counts it is published, and readers keep away
from the oldest rows, which are the next to be overwritten.
"""

from __future__ import annotations

import math
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from netspot.events import Alarm, Event, Incident, Sample, Window, message
from netspot.record import Record, replace

ALARMS = 200  # kept for the page and the API; older ones are in the exporters' files
INCIDENTS = 100
HOUR_BYTES = 2_700_000  # both histories together stay under 4 MiB, whatever the period and the number of statistics
DAY_BYTES = 1_300_000
MARGIN = 16  # rows that a reader leaves alone: the writer comes there next
FLOAT32_MAX = float(np.finfo(np.float32).max)
MINUTE_NS = 60_000_000_000

OUTSIDE, ALARM, MUTED, LEARNING = 1, 2, 4, 8  # bits of a history cell: beyond a threshold; state of the statistic


class Described(Protocol):
    """A statistic as far as a reader of its numbers must know it."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def help(self) -> str: ...


class Info(Record):
    """What stays the same while the service runs with one configuration."""

    node: str
    series: str  # the interface, or the base name of a capture file
    version: str
    started_ns: int  # [ns since epoch]
    period_ns: int  # length of a window
    stats: tuple[Described, ...]


class Snapshot(Record):
    """One consistent picture; ``seq`` counts the windows seen and is the cursor for "what is new since"."""

    seq: int
    time_ns: int  # end of the newest window [ns since epoch]; 0 before the first
    samples: Mapping[str, Sample]  # the newest of each statistic
    alarms: tuple[tuple[int, Mapping[str, Any]], ...]  # (seq at which it came, message), oldest first
    incidents: tuple[tuple[int, Mapping[str, Any]], ...]  # (seq of the last change, message), oldest first
    alarm_counts: Mapping[str, int]  # since the start, by statistic
    health: Mapping[str, Any]


EMPTY = Snapshot(0, 0, {}, (), (), {}, {})


class Rows(NamedTuple):
    """Consecutive windows (or minutes), oldest first."""

    time_ns: NDArray[np.int64]  # end of the window [ns since epoch]
    low: NDArray[np.float32]  # smallest value; in full-rate rows the same as ``high``
    high: NDArray[np.float32]
    up: NDArray[np.float32]  # thresholds; NaN: none
    down: NDArray[np.float32]
    bits: NDArray[np.uint8]

    def of(self, column: int) -> Rows:
        """One statistic of several."""
        low, high, up, down = (values[:, column] for values in (self.low, self.high, self.up, self.down))
        return Rows(self.time_ns, low, high, up, down, self.bits[:, column])


class Cells(NamedTuple):
    """What one window adds to a history: (3, width) of value, up and down, NaN where there is none; and the bits."""

    values: NDArray[np.float32]
    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, samples: Iterable[Sample], columns: Mapping[str, int], held: Mapping[str, Sample]) -> Cells:
        """``samples``, each in the column of its name; others are left out.

        A statistic of a longer span, which has no sample now, keeps the one in ``held``: its line is a staircase.
        """
        values = np.full((3, len(columns)), np.nan, np.float64)
        bits = np.zeros(len(columns), np.uint8)
        for sample in (*held.values(), *samples):
            column = columns.get(sample.stat)
            if column is not None:
                values[:, column] = (sample.value, _or_nan(sample.up), _or_nan(sample.down))
                bits[column] = _bits(sample)
        for name in held.keys() - {sample.stat for sample in samples}:
            if name in columns:
                bits[columns[name]] &= ~OUTSIDE & 0xFF  # one dot for one window
        return cls(np.clip(values, -FLOAT32_MAX, FLOAT32_MAX).astype(np.float32), bits)

    def into(self, row: NDArray[np.float32], bits: NDArray[np.uint8]) -> None:
        """Widen ``row``, (4, width) of low, high, up and down, by this window, in place."""
        np.fmin(row[0], self.values[0], out=row[0])
        np.fmax(row[1], self.values[0], out=row[1])
        np.copyto(row[2:], self.values[1:], where=~np.isnan(self.values[1:]))
        bits |= self.bits


class Ring:
    """The last ``rows`` rows of ``width`` statistics, each of several columns."""

    def __init__(self, rows: int, width: int, columns: int) -> None:
        self.rows = rows
        self.written = 0  # rows ever written; row i lies at i % rows
        self.time_ns = np.zeros(rows, np.int64)
        self.bits = np.zeros((rows, width), np.uint8)
        self.values = np.empty((columns, rows, width), np.float32)  # takes memory only as it is written

    @property
    def nbytes(self) -> int:
        return self.time_ns.nbytes + self.bits.nbytes + self.values.nbytes

    def places(self, first: int, end: int) -> NDArray[np.int64]:
        """Where rows number ``first`` to ``end`` (exclusive) lie, oldest first, as far as they are still there.

        After the clock was set back, rows that seem later than one that came after them are left out.
        """
        first = max(first, end - self.rows + MARGIN, 0)
        at = np.arange(first, max(first, end), dtype=np.int64) % self.rows
        times = self.time_ns[at]
        return at[times <= np.minimum.accumulate(times[::-1])[::-1]]


def ring_rows(wanted: int, width: int, columns: int, budget_bytes: int) -> int:
    """As many rows as wanted, or as the budget holds."""
    return max(4 * MARGIN, min(wanted + MARGIN, budget_bytes // (8 + width * (4 * columns + 1))))


class History:
    """Every statistic: an hour at the full rate, a day by the minute, in two rings of float32."""

    def __init__(self, width: int, period_ns: int) -> None:
        hour = math.ceil(3600e9 / period_ns)
        self.full = Ring(ring_rows(hour, width, 3, HOUR_BYTES), width, 3)  # value, up, down
        self.day = Ring(ring_rows(1440, width, 4, DAY_BYTES), width, 4)  # low, high, up, down
        self.set_back = 0  # cursors below this are from before the clock was last set back

    @property
    def nbytes(self) -> int:
        return self.full.nbytes + self.day.nbytes

    def write(self, time_ns: int, cells: Cells) -> None:
        """Append a window."""
        ring = self.full
        at = ring.written % ring.rows
        if time_ns < ring.time_ns[at - 1]:
            self.set_back = ring.written + 1
        ring.time_ns[at], ring.bits[at], ring.values[:, at] = time_ns, cells.bits, cells.values
        ring.written += 1
        ring, end_ns = self.day, -(-time_ns // MINUTE_NS) * MINUTE_NS
        at = (ring.written - 1) % ring.rows
        if not ring.written or ring.time_ns[at] != end_ns:
            at = ring.written % ring.rows
            ring.time_ns[at], ring.bits[at], ring.values[:, at] = end_ns, 0, np.nan
            ring.written += 1
        cells.into(ring.values[:, at], ring.bits[at])

    def windows(self, first: int, end: int, column: int | slice) -> Rows:
        """Rows number ``first`` to ``end`` (exclusive) at the full rate: of one statistic, or 2-d of several."""
        ring = self.full
        at = ring.places(first, end)
        value, up, down = (values[at, column] for values in ring.values)
        return Rows(ring.time_ns[at], value, value, up, down, ring.bits[at, column])

    def minutes(self, column: int) -> Rows:
        """A day of one statistic, a row a minute; ``time_ns`` is the end of the minute."""
        ring = self.day
        at = ring.places(0, ring.written)
        low, high, up, down = (values[at, column] for values in ring.values)
        return Rows(ring.time_ns[at], low, high, up, down, ring.bits[at, column])


class Board:
    """Where the main loop pins up what others may read. ``step`` takes about 0.1 ms for 30 statistics."""

    def __init__(self, info: Info) -> None:
        self.info = info
        self.current = EMPTY
        self.history = History(len(info.stats), info.period_ns)
        self.epoch = secrets.token_hex(4)  # changes with every board: cursors of an older one mean nothing here
        self.columns = {stat.name: i for i, stat in enumerate(info.stats)}  # of the history
        self._alarms: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=ALARMS)
        self._incidents: OrderedDict[str, tuple[int, Mapping[str, Any]]] = OrderedDict()

    def step(
        self, window: Window, samples: Iterable[Sample], events: Iterable[Event], health: Mapping[str, Any]
    ) -> Snapshot:
        """Publish what one window brought; only the main loop calls this.

        Windows that end together (a statistic of a longer span) belong in one step, but may come in several.
        Statistics that ``info`` does not know are left out.
        """
        before, samples = self.current, [sample for sample in samples if sample.stat in self.columns]
        latest = {**before.samples, **{sample.stat: sample for sample in samples}}
        counts = self._note(events, before.seq + 1, before.alarm_counts)
        self.history.write(window.end_ns, Cells.of(samples, self.columns, before.samples))
        seq = self.history.full.written
        self.current = Snapshot(
            seq=seq,
            time_ns=window.end_ns,
            samples=latest,
            alarms=tuple(self._alarms) if counts is not before.alarm_counts else before.alarms,
            incidents=tuple(self._incidents.values()),
            alarm_counts=counts,
            health=health,
        )
        return self.current

    def tell(self, health: Mapping[str, Any]) -> None:
        """Publish ``health`` alone, between two windows; only the main loop calls this."""
        self.current = replace(self.current, health=health)

    def _note(self, events: Iterable[Event], seq: int, counts: Mapping[str, int]) -> Mapping[str, int]:
        for event in events:
            if isinstance(event, Alarm):
                self._alarms.append((seq, message(event, self.info.node, self.info.series)))
                begins = event.event_type != "cleared"
                counts = {**counts, event.stat: counts.get(event.stat, 0) + begins}
            elif isinstance(event, Incident):
                self._incidents[event.id] = (seq, message(event, self.info.node, self.info.series))
                self._incidents.move_to_end(event.id)
                while len(self._incidents) > INCIDENTS:
                    self._incidents.popitem(last=False)
        return counts


_STATE_BITS = {"learning": LEARNING, "watching": 0, "alarm": ALARM, "muted": MUTED}


def _bits(sample: Sample) -> int:
    above = sample.up is not None and sample.value > sample.up
    below = sample.down is not None and sample.value < sample.down
    return _STATE_BITS[sample.state] | (OUTSIDE if above or below else 0)


def _or_nan(threshold: float | None) -> float:
    return math.nan if threshold is None else threshold
