"""A bounded queue and a thread that delivers what is in it: for peers that may be slow, or not there."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from netspot.events import counted

log = logging.getLogger(__name__)

BACKOFF_S = (1.0, 60.0)
FLUSH_S = 0.8


class Refused(Exception):
    """The peer will never take this batch: drop it, and go on with the next."""


class Sender:
    """``put`` from the main loop; ``deliver`` runs on the thread, and raises OSError to be tried again later.

    Beyond ``bound`` items the oldest is dropped and counted.
    """

    def __init__(
        self, name: str, deliver: Callable[[Sequence[bytes]], None], bound: int, batch: int = 1, every_s: float = 0.0
    ) -> None:
        self.dropped = 0
        self.delivered = 0
        self.reason = ""  # why the peer cannot be reached, or ""
        self._name = name
        self._deliver = deliver
        self._items: deque[bytes] = deque()
        self._bound = bound
        self._batch = batch
        self._every_s = every_s
        self._taken: list[bytes] = []  # being delivered
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._told = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, item: bytes) -> None:
        if len(self._items) >= self._bound:
            self._items.popleft()
            self.dropped += 1
        self._items.append(item)
        if not self._every_s or len(self._items) >= self._batch:
            self._wake.set()

    def __len__(self) -> int:
        return len(self._items) + len(self._taken)

    def close(self) -> None:
        """Deliver what is there, within a second; what remains counts as dropped."""
        self._closing.set()
        self._wake.set()
        if self._thread.ident:
            self._thread.join(FLUSH_S)
        self.dropped += len(self)
        if self.dropped:
            log.warning("%s: %s could not be delivered", self._name, counted(self.dropped, "event"))
        self._items.clear()
        self._taken = []

    def _run(self) -> None:
        delay_s = 0.0
        while True:
            if delay_s:
                self._closing.wait(delay_s)  # new items do not make a peer come back
            else:
                self._wake.wait(self._every_s or None)
            self._wake.clear()
            delay_s = self._drain(delay_s)
            if self._closing.is_set() and (delay_s or not self._items):
                return

    def _drain(self, delay_s: float) -> float:
        """Deliver everything; the seconds to wait before the next attempt, 0 when all went well."""
        while self._taken or self._items:
            while self._items and len(self._taken) < self._batch:
                self._taken.append(self._items.popleft())
            try:
                self._deliver(self._taken)
            except Refused as error:
                self.dropped += len(self._taken)
                self._tell(str(error))
            except Exception as error:  # OSError, or a peer that talks nonsense
                self._tell(f"{error}")
                return min(max(delay_s * 2, BACKOFF_S[0]), BACKOFF_S[1])
            else:
                self.delivered += len(self._taken)
                self.reason = ""
            self._taken = []
        return 0.0

    def _tell(self, reason: str) -> None:
        self.reason = reason
        if reason != self._told:
            self._told = reason
            log.warning("%s: %s", self._name, reason)
