"""Answers to requests that came through a connection which has been closed meanwhile."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from netspot.commands import PENDING
from netspot.errors import NetspotError
from netspot.exporters.link import Link
from netspot.record import replace

if TYPE_CHECKING:
    from netspot.config import MqttConfig

log = logging.getLogger(__name__)

WAIT_S = 5.0  # for the connection


class Answer(NamedTuple):
    topic: str
    payload: str
    correlation: bytes | None


class LateAnswers:
    """Sends answers over a connection of its own, to the broker that the requests came from.

    A request that changes the exporters closes the connection that it came through. Those which follow may not
    know that broker any more, so none of them is asked. ``send`` returns at once; a thread lives while answers wait.
    """

    def __init__(self, config: MqttConfig, client_id: str) -> None:
        self._config = config
        self._client_id = client_id
        self._waiting: deque[Answer] = deque(maxlen=PENDING)  # no more requests than that wait for an answer
        self._lock = threading.Lock()
        self._running = False

    def send(self, answer: Answer, version5: bool) -> None:
        with self._lock:
            self._waiting.append(answer)
            start, self._running = not self._running, True
        if start:
            threading.Thread(target=self._run, args=(version5,), name="mqtt-answer", daemon=True).start()

    def _run(self, version5: bool) -> None:
        link = None
        try:
            link = Link(replace(self._config, protocol="5" if version5 else "3.1.1"), self._client_id)
            link.start()
            link.wait(WAIT_S)
            while answer := self._next():
                link.send(answer.topic, answer.payload, 1, correlation=answer.correlation)
        except (OSError, RuntimeError, NetspotError) as error:
            log.warning("the answer to a request could not be sent: %s", error)
            self._give_up()
        if link:
            link.close()

    def _next(self) -> Answer | None:
        with self._lock:
            self._running = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None

    def _give_up(self) -> None:
        with self._lock:
            self._waiting.clear()
            self._running = False
