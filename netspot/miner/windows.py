"""Cuts the stream of packets at period boundaries.

Windows lie on a grid aligned to the epoch and are cut by packet timestamp, never by when the program woke up. A window
is closed by the watermark: when all that was captured before its end has been delivered. The same packets give the
same windows however they are batched, live or from a file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from netspot.events import Window
from netspot.miner.counters import CounterBank
from netspot.packets import PacketBatch

Closed = list[Window]  # the window of one period, and the longer spans that end with it

JUMP = 60  # a step of the clock, or a hole in a capture, beyond this many windows restarts the grid [window]
STEP_NS = 2 * 10**9  # and so does a live clock that has gone so much further than time: at a Pi's boot, or after sleep


class Windows:
    """The open window, and the grid it lies on."""

    def __init__(self, bank: CounterBank, period_ns: int, start_ns: int | None = None) -> None:
        """``start_ns``: when a live capture began [ns since epoch]; a file begins with its first packet."""
        self.bank = bank
        self.period_ns = period_ns
        self._index = 0 if start_ns is None else start_ns // period_ns  # the open window is [index, index + 1) periods
        self._live = self._started = start_ns is not None
        self._seen_from_ns = start_ns or 0  # when this stretch of the grid began to be observed
        self._dropped = 0
        self._blind = False  # for a part of the open window nothing could be seen
        self._span_dropped = dict.fromkeys(bank.spans, 0)
        self._span_blind = dict.fromkeys(bank.spans, False)
        self._span_real_ns = dict.fromkeys(bank.spans, 0)
        self._closed_at_ns = time.monotonic_ns()

    @property
    def end_ns(self) -> int:
        """When the open window ends [ns since epoch]."""
        return (self._index + 1) * self.period_ns

    def push(self, batch: PacketBatch, blind: bool = False) -> Iterator[Closed]:
        """Count ``batch``; yields the windows that it closes. A packet older than the open window counts in it.

        ``blind``: the source sees nothing now. The windows that this touches are told as not observed: silence that is
        none must teach nobody.
        """
        self._blind |= blind
        ordered = bool((batch.ts_ns[1:] >= batch.ts_ns[:-1]).all())
        begin = 0
        while begin < len(batch):
            yield from self._advance(int(batch.ts_ns[begin]))
            end = int(np.searchsorted(batch.ts_ns, self.end_ns)) if ordered else self._run_end(batch, begin)
            self._count(batch if end - begin == len(batch) else batch.rows(begin, end))
            begin = end
        if not len(batch):
            self._dropped += batch.dropped
        if self._live:  # in a file time goes on with the packets alone
            yield from self._advance(batch.until_ns, watermark=True, blind=blind)

    def finish(self) -> Iterator[Closed]:
        """The last window of a capture, which no later packet closes."""
        if self._started:
            yield from self._close(False)
            self._started = False

    def _run_end(self, batch: PacketBatch, begin: int) -> int:
        """End of the rows from ``begin`` on that count in the open window."""
        ts = batch.ts_ns[begin:]
        leaves = ts >= self.end_ns
        earliest = (self._index - JUMP) * self.period_ns  # older than this is a step of the clock, not a late packet
        leaves |= ts < earliest
        first = int(np.argmax(leaves))
        return begin + first if leaves[first] else len(batch)

    def _count(self, rows: PacketBatch) -> None:
        self.bank.add(rows)
        self._dropped += rows.dropped

    def _advance(self, now_ns: int, watermark: bool = False, blind: bool = False) -> Iterator[Closed]:
        """Close windows until the one of ``now_ns`` is open."""
        index = now_ns // self.period_ns
        if not self._started:
            self._restart(index)
        gap = index - self._index
        # A packet may be late; a watermark that lags says that the clock was set back.
        if gap > JUMP or gap < (-1 if watermark else -JUMP) or (self._live and self._leapt(gap)):
            self._blind |= self._live  # the clock was set: nobody knows how long this window was
            yield from self._close(blind)
            self._restart(index)
            if self._live:
                self._seen_from_ns = now_ns
        while self._index < index:
            yield from self._close(blind)
            self._index += 1

    def _leapt(self, gap: int) -> bool:
        """Whether the clock was set forward: so many windows have not passed since the last one was closed."""
        passed_ns = time.monotonic_ns() - self._closed_at_ns
        return gap > 2 and gap * self.period_ns - passed_ns > STEP_NS

    def _restart(self, index: int) -> None:
        """Open ``index``; spans that the jump broke are dropped."""
        self._started = True
        self._index = index
        self._seen_from_ns = index * self.period_ns
        for span in self.bank.spans:
            self.bank.clear_span(span)
            self._forget(span)

    def _close(self, blind: bool) -> Iterator[Closed]:
        """``blind``: nothing can be seen in the window that follows."""
        now_ns = time.monotonic_ns()
        real_ns, self._closed_at_ns = now_ns - self._closed_at_ns, now_ns
        closed = [self._window(1, self.bank.close(), self._dropped, real_ns, self._blind)]
        for span in self.bank.spans:
            self._span_dropped[span] += self._dropped
            self._span_blind[span] |= self._blind
            self._span_real_ns[span] += real_ns
            if (self._index + 1) % span == 0:
                counts, dropped = self.bank.close_span(span), self._span_dropped[span]
                closed.append(self._window(span, counts, dropped, self._span_real_ns[span], self._span_blind[span]))
                self._forget(span)
        self._dropped, self._blind = 0, blind
        yield closed

    def _forget(self, span: int) -> None:
        self._span_dropped[span], self._span_blind[span], self._span_real_ns[span] = 0, False, 0

    def _window(self, span: int, counts: dict[str, float], dropped: int, real_ns: int, blind: bool) -> Window:
        start_ns, end_ns = (self._index + 1 - span) * self.period_ns, self.end_ns
        observed_ns = 0 if blind else max(0, end_ns - max(start_ns, self._seen_from_ns))
        counts |= {"SOURCE_TIME": observed_ns, "REAL_TIME": real_ns, "DROPPED": dropped}
        return Window(start_ns, end_ns, counts, dropped, observed_ns / 1e9, span, self.bank.evidence())
