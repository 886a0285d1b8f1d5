"""An interface as a source of packets: batches worth their cost, and an interface that comes and goes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from netspot.config import MinerConfig
from netspot.errors import SourceError
from netspot.miner.decode import decode
from netspot.miner.devices import Device, home_nets, resolve
from netspot.packets import Frames, PacketBatch, nothing

log = logging.getLogger("netspot.miner")

MAX_ROWS = 65_536  # of one batch
GATHER_S = 0.1  # how long packets may wait for others at most, so that a batch is worth its fixed cost [s]
# Least and most between two looks meanwhile [s]: a burst must not fill the ring unseen, which the default one bridges
# up to a million packets/s; and looks are half of all that a thousand packets/s cost.
NAP_S = 0.001, 0.015
WATCH_S = 1.0  # how often a lost interface is looked for [s]
REFRESH_S = 10.0  # how often addresses and default route are read again [s]


class Tap(Protocol):
    """An open capture on one interface."""

    batch_rows: int  # of one ``take`` at most, and what is worth waiting for

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a frame is there; true where the interface was lost instead."""

    def holds(self, frames: int) -> bool:
        """Whether at least so many wait, from 1 to ``batch_rows``."""

    def take(self) -> tuple[Frames, NDArray[np.int64], NDArray[np.uint32]]:
        """The frames that wait, their times [ns since epoch] and lengths on the wire [byte].

        The bytes stay until the next ``take``.
        """

    def next_ns(self, otherwise: int) -> int:
        """When the first frame that still waits was captured, or a little earlier [ns since epoch]."""

    def drops(self) -> int:
        """Frames that the kernel lost since the last call."""

    def close(self) -> None:
        """Stop; a second call does nothing."""


class LiveSource:
    """An interface, or ``any``; it keeps on through its going down, away and back."""

    live = True

    def __init__(self, config: MinerConfig, open_tap: Callable[[Device, MinerConfig], Tap]) -> None:
        self._config = config
        self._open_tap = open_tap
        self._dropped = 0  # by taps that were closed since the last batch
        self._next_watch_s = 0.0  # of the monotonic clock, as the next two
        self._looked_s = self._full_s = time.monotonic()
        self._open(resolve(config.device))

    def read(self, timeout_s: float) -> PacketBatch:
        """What came since the last call.

        The watermark is when the ring was looked at, or, where frames had to be left for the next call, their time.
        """
        deadline_s = time.monotonic() + timeout_s
        self._watch()
        while not self._tap.holds(1) and (left_s := deadline_s - time.monotonic()) > 0:
            if self._tap.wait(min(left_s, WATCH_S)):
                self._lose()
            self._watch()
        self._gather(deadline_s)
        until_ns = time.time_ns()
        if not self._tap.holds(1):
            return nothing(until_ns, self._lost_frames())
        frames, ts_ns, wire_len = self._tap.take()
        self._expect(len(ts_ns))
        until_ns, dropped = min(until_ns, self._tap.next_ns(until_ns)), self._lost_frames()
        if not len(ts_ns):  # libpcap had only an error to tell
            return nothing(until_ns, dropped)
        return decode(frames, ts_ns, wire_len, self._home, until_ns, dropped)

    def _lost_frames(self) -> int:
        """Since the batch before this one."""
        dropped, self._dropped = self._dropped + self._tap.drops(), 0
        return dropped

    @property
    def up(self) -> bool:
        """False while the interface is away: what the windows hold then is no silence."""
        return not self._lost

    def close(self) -> None:
        self._tap.close()

    def _open(self, device: Device) -> None:
        self._tap = self._open_tap(device, self._config)
        self.series = device.name
        self._index = device.index if device.up else -1  # what was opened while down is opened again
        self._lost = False
        self._home = home_nets(self._config, device.name)

    def _gather(self, deadline_s: float) -> None:
        """Wait for more frames, so that a batch is worth its fixed cost, for about as long as it will need."""
        now_s = time.monotonic()
        end_s = min(deadline_s, now_s + GATHER_S)
        while now_s < end_s and not self._tap.holds(self._tap.batch_rows):
            nap_s = max(self._full_s - now_s, (now_s - self._looked_s) / 8)  # not many short ones where it lasts longer
            time.sleep(min(max(NAP_S[0], min(NAP_S[1], nap_s)), end_s - now_s))
            now_s = time.monotonic()

    def _expect(self, rows: int) -> None:
        """Reckon when the next batch is full, from how long this one took."""
        now_s = time.monotonic()
        self._full_s = now_s + (now_s - self._looked_s) * self._tap.batch_rows / max(rows, 1)
        self._looked_s = now_s

    def _lose(self) -> None:
        if not self._lost:
            log.warning("%s is down: nothing is captured until it is back", self.series)
        self._lost = True
        self._next_watch_s = time.monotonic() + WATCH_S

    def _watch(self) -> None:
        """Now and then: is a lost interface back, has another become the default, have its addresses changed?"""
        now_s = time.monotonic()
        if now_s < self._next_watch_s:
            return
        self._next_watch_s = now_s + (WATCH_S if self._lost else REFRESH_S)
        try:
            device = resolve(self._config.device, self.series)
            if (device.name != self.series or (self._lost and device.up)) and not self._tap.holds(1):
                self._return(device)
            self._home = home_nets(self._config, self.series)
        except SourceError:  # it is still away
            return

    def _return(self, device: Device) -> None:
        """Go on with the interface, or with the one that is the default now."""
        before, old = self.series, self._tap
        if device.index != self._index:
            self._open(device)
            self._dropped += old.drops()
            old.close()
        self._lost = False
        if before == device.name:
            log.warning("%s is back: capturing", before)
        else:
            log.warning("capturing on %s, no more on %s", device.name, before)
