"""Alarms from the spool to the broker: in order, paced, and kept until they are acknowledged."""

from __future__ import annotations

import json
import logging
import math
import threading
import time

from netspot.events import encode
from netspot.exporters.base import Message
from netspot.exporters.link import Link
from netspot.exporters.spool import Spool

log = logging.getLogger(__name__)

IN_FLIGHT = 50  # events sent and not yet acknowledged; each poll sends as many at most
EVENT_BYTES = 65_536  # an event that is larger goes without its evidence
RETRY_S = 60.0  # until the broker is asked again for what it refused
SYNC_S = 10.0  # while the broker is away, new events are forced onto the disk this often


class Delivery:
    """All methods run on the main loop and return at once."""

    def __init__(self, spool: Spool, link: Link) -> None:
        self._spool = spool
        self._link = link
        self._session = 0
        self._sent = 0  # newest id sent in this session
        self._waiting: set[int] = set()  # ids sent and not yet acknowledged
        self._refused = 0  # events that the broker does not accept: tried again at ``_retry_at_s``
        self._retry_at_s = math.inf
        self._sync_due_s = 0.0
        self._unsynced = False

    def __len__(self) -> int:
        """Events that the broker has not taken yet."""
        return len(self._spool)

    @property
    def dropped(self) -> int:
        return self._spool.dropped

    def keep(self, topic: str, message: Message) -> None:
        """Take charge of an event."""
        self._spool.append(topic, message.json)
        self._unsynced = True

    def poll(self) -> bool:
        """Take up acknowledgements, send what waits; True when a new connection has been found."""
        now_s, new = time.monotonic(), self._link.session != self._session
        if self._link.acks:
            self._take_acks(now_s)
        if new or now_s >= self._retry_at_s:
            self._begin()
        if self._session and len(self._spool) - self._refused > len(self._waiting) < IN_FLIGHT:
            self._send()
        if self._unsynced and now_s >= self._sync_due_s:
            self._sync(now_s)
        return new and self._session > 0

    def close(self) -> None:
        """After the link."""
        self._take_acks(time.monotonic())
        self._spool.close()
        if self._spool.volatile:
            mend = "set state.dir" if self._spool.path is None else f"{self._spool.path} cannot be written"
            log.warning("MQTT: %d alarms have not reached the broker and are gone; %s", self._spool.volatile, mend)

    def _begin(self) -> None:
        """Send everything that is in the spool, once more where it must be."""
        self._session = self._link.session
        self._sent, self._refused, self._retry_at_s = 0, 0, math.inf
        self._waiting.clear()
        self._unsynced = len(self._spool) > 0

    def _take_acks(self, now_s: float) -> None:
        done = set()
        while self._link.acks:
            token, accepted = self._link.acks.popleft()
            self._waiting.discard(token)
            if accepted:
                done.add(token)
            else:  # by its access rules, say: those behind it go on
                self._refused += 1
                self._retry_at_s = now_s + RETRY_S
        self._spool.delete(done)

    def _send(self) -> None:
        for event in self._spool.pending(self._sent, IN_FLIGHT - len(self._waiting)):
            payload = event.payload
            if len(payload) > EVENT_BYTES or not self._link.fits(event.topic, payload):  # the broker may hang up on it
                payload = encode({**json.loads(payload), "evidence": {}})
            if not self._link.send(event.topic, payload, 1, False, event.id):
                return
            self._sent = event.id
            self._waiting.add(event.id)

    def _sync(self, now_s: float) -> None:
        """What waits for a broker that is away survives a power cut; with it there, only a long log is worked off."""
        self._sync_due_s = now_s + SYNC_S
        self._unsynced = False
        if (not self._session and self._spool.path and len(self._spool)) or self._spool.log_is_long:
            threading.Thread(target=self._spool.checkpoint, name="spool", daemon=True).start()
