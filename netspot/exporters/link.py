"""One MQTT connection that mends itself, in a thread of its own.

paho is driven through its external-loop calls from one thread, and each connection gets a new client: so an error in
TLS or a name look-up is an exception with a reason, no thread of paho's can die unseen, and nothing that an earlier
connection left behind is sent out of order.
"""

from __future__ import annotations

import logging
import math
import os
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from netspot.errors import Unreachable
from netspot.exporters import reasons
from netspot.exporters.client import check, port, tls_context
from netspot.exporters.talk import GOODBYE_S, Incoming, Outgoing, Presence, Talk, drain

if TYPE_CHECKING:
    from netspot.config import MqttConfig

log = logging.getLogger(__name__)

FRAME_BYTES = 32  # of a message beside topic, payload and correlation data, at most
OUTBOX = 1000  # messages between the main loop and the network thread; more are refused and counted
BACKOFF_S = (1.0, 120.0)
STEADY_S = 5.0  # a connection that lived as long ends the back-off
UNSTEADY_S = 20.0  # three in a row that lived shorter have a reason of their own


class Link:
    """The owner reads ``session``, ``reason``, ``acks`` and calls ``send``; ``receive`` runs on the network thread."""

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        presence: Presence | None = None,
        subscriptions: tuple[str, ...] = (),
        receive: Callable[[Incoming], None] = lambda message: None,
    ) -> None:
        check(config)
        self.session = 0  # grows with every connection that works; 0 while there is none
        self.reason = "not connected yet"  # why there is no connection, or what the broker refuses, or ""
        self.acks: deque[tuple[int, bool]] = deque()  # (token, accepted), bounded by what the owner has in flight
        self.packet_bytes = math.inf  # the largest packet that the broker takes, as far as it says (MQTT 5)
        self.published = 0
        self.connects = 0
        self.failures = 0  # attempts and connections that ended
        self.beat_s = time.monotonic()  # the thread's last turn
        self.config = config
        self.client_id = client_id
        self.presence = presence
        self.subscriptions = subscriptions
        self.receive = receive
        self.outbox: deque[Outgoing] = deque()
        self.unsubscribes: deque[list[str]] = deque()
        self.version5 = self._knows5 = config.protocol != "3.1.1"
        self.tls = tls_context(config) if config.tls else None
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.closing = False
        self._told = ""  # the reason that was logged last
        self._up_told = False  # that it is mended was logged
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    # -- for the owner ---------------------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        host = str(self.config.host)
        return host if self.config.transport == "unix" else f"{host}:{port(self.config)}"

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def revive(self) -> None:
        """Start the network thread anew if a bug has ended it."""
        if not self._thread.is_alive() and self._thread.ident and not self.closing:
            log.error("the MQTT thread had ended; it is started again")
            self.session = 0
            self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
            self._thread.start()

    def fits(self, topic: str, payload: str, correlation: bytes | None = None) -> bool:
        """Whether the broker takes such a message, as far as it says."""
        return FRAME_BYTES + len(topic) + len(payload.encode()) + len(correlation or b"") <= self.packet_bytes

    def send(
        self, topic: str, payload: str, qos: int = 0, retain: bool = False,
        token: int | None = None, correlation: bytes | None = None, hurry: bool = True,
    ) -> bool:  # fmt: skip
        """Queue a message for the present session; False while there is none, or when the queue is full.

        Without ``hurry`` it goes with the next one, at ``nudge``, or within a second: waking the network thread for
        each of many messages costs the main loop more than all the rest.
        """
        session = self.session
        if not session or len(self.outbox) >= OUTBOX:
            return False
        self.outbox.append(Outgoing(session, topic, payload, qos, retain, token, correlation))
        if hurry:
            os.eventfd_write(self.wake, 1)
        return True

    def nudge(self) -> None:
        """Send what was queued without hurry."""
        if self.outbox and self.session:
            os.eventfd_write(self.wake, 1)

    def unsubscribe(self, topics: list[str]) -> None:
        self.unsubscribes.append(topics)
        os.eventfd_write(self.wake, 1)

    def wait(self, seconds: float) -> None:
        """For a command line: wait for the connection. Raises Unreachable with the reason in words."""
        until_s = time.monotonic() + seconds
        while not self.session:
            if time.monotonic() > until_s or (self.reason and self.failures):
                raise Unreachable(f"MQTT {self.where}: {self.reason or 'no answer'}")
            time.sleep(0.005)

    def close(self) -> None:
        """Send what is queued, say ``offline``, disconnect: at most about a second."""
        self.closing = True
        if self.wake < 0:
            return
        os.eventfd_write(self.wake, 1)
        if self._thread.ident:
            self._thread.join(GOODBYE_S + 0.4)
        self.session = 0
        if not self.alive and self.wake >= 0:
            os.close(self.wake)
            self.wake = -1

    # -- the network thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        delay_s, short = BACKOFF_S[0], 0
        while not self.closing:
            began_s = time.monotonic()
            reason = self._attempt()
            worked, self.session = bool(self.session), 0
            lived_s = time.monotonic() - began_s
            self.outbox.clear()
            self.unsubscribes.clear()
            if self.closing:
                break
            short = short + 1 if worked and lived_s < UNSTEADY_S else 0
            if lived_s > UNSTEADY_S:
                self._told = ""
            self._tell(reason if short < 3 else reasons.AGAIN.format(client_id=self.client_id))
            if worked:
                delay_s = BACKOFF_S[0] if lived_s > STEADY_S else min(delay_s, 8.0)
            self._pause(delay_s * random.uniform(0.5, 1.0))  # jitter: a fleet does not come back all at once
            delay_s = min(delay_s * 2, BACKOFF_S[1])

    def _attempt(self) -> str:
        """One connection, to its end: the reason of the end."""
        try:
            talk = Talk(self)
            try:
                return talk.run()
            finally:
                talk.free()
                self._choose_version(talk)
        except Exception as error:
            log.debug("MQTT %s", self.where, exc_info=True)
            return reasons.of_error(error, self.where)

    def _choose_version(self, talk: Talk) -> None:
        """``auto`` takes 5, and 3.1.1 where the broker refuses 5, or once where it hangs up without a word."""
        if self.config.protocol == "auto":
            self._knows5 = self._knows5 and not talk.refused_version
            self.version5 = self._knows5 and not (talk.silent and self.version5)

    def _tell(self, reason: str) -> None:
        self.failures += 1
        self._up_told = self._up_told and reason == self._told
        self.complain(reason)

    def complain(self, reason: str) -> None:
        """Show ``reason`` until the next connection, and log it once, not at every attempt."""
        self.reason = reason
        if reason != self._told:
            self._told = reason
            log.warning("MQTT %s: %s; tried again by itself", self.where, reason)

    def connected(self, session_note: str) -> None:
        self.connects += 1
        self.reason = ""
        self.session = self.connects
        if not self._up_told:
            self._up_told = True
            log.info("MQTT %s: connected%s", self.where, session_note)

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        while not self.closing and (left_s := until_s - time.monotonic()) > 0:
            self.beat_s = time.monotonic()
            if poll.poll(min(left_s, 1.0) * 1000):
                drain(self.wake)
