"""One MQTT connection that mends itself, in a thread of its own.

paho is driven through its external-loop calls from one thread, and each connection gets a new client: so an error in
TLS or a name look-up is an exception with a reason, no thread of paho's can die unseen, and nothing that an earlier
connection left behind is sent out of order.
"""

from __future__ import annotations

import logging
import os
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from netspot.errors import NetspotError
from netspot.exporters import reasons
from netspot.exporters.client import PAHO_2, check, connect, correlated, new_client, port, tls_context

if TYPE_CHECKING:
    from netspot.config import MqttConfig

log = logging.getLogger(__name__)

OUTBOX = 1000  # messages between the main loop and the network thread; more are refused and counted
BACKOFF_S = (1.0, 120.0)
ECHO_S = 10.0  # the broker must show within this time that it passes on what is published
STEADY_S = 5.0  # a connection that lived as long ends the back-off
UNSTEADY_S = 20.0  # three in a row that lived shorter have a reason of their own
GOODBYE_S = 0.8


class Outgoing(NamedTuple):
    session: int  # sent in this one, or not at all
    topic: str
    payload: str
    qos: int
    retain: bool
    token: int | None = None  # comes back in ``Link.acks``
    correlation: bytes | None = None


class Incoming(NamedTuple):
    topic: str
    payload: bytes
    retain: bool
    reply_to: str | None  # response topic and correlation data of MQTT 5
    correlation: bytes | None


class Presence(NamedTuple):
    """A retained topic that says whether this client is there."""

    topic: str
    online: str = "online"
    offline: str = "offline"


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
        self.reason = "not connected yet"  # why there is no connection, or ""
        self.acks: deque[tuple[int, bool]] = deque()  # (token, accepted), bounded by what the owner has in flight
        self.published = 0
        self.connects = 0
        self.failures = 0  # attempts and connections that ended
        self.beat_s = time.monotonic()  # the thread's last turn
        self._config = config
        self._client_id = client_id
        self._presence = presence
        self._subscriptions = subscriptions
        self._receive = receive
        self._outbox: deque[Outgoing] = deque()
        self._unsubscribe: deque[list[str]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._version5 = self._knows5 = config.protocol != "3.1.1"
        self._tls = tls_context(config) if config.tls else None
        self._closing = False
        self._told = ""  # the reason that was logged last
        self._up_told = False  # that it is mended was logged
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    # -- for the owner ---------------------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        host = str(self._config.host)
        return host if self._config.transport == "unix" else f"{host}:{port(self._config)}"

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def revive(self) -> None:
        """Start the network thread anew if a bug has ended it."""
        if not self._thread.is_alive() and self._thread.ident and not self._closing:
            log.error("the MQTT thread had ended; it is started again")
            self.session = 0
            self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
            self._thread.start()

    def send(
        self, topic: str, payload: str, qos: int = 0, retain: bool = False,
        token: int | None = None, correlation: bytes | None = None,
    ) -> bool:  # fmt: skip
        """Queue a message for the present session; False while there is none, or when the queue is full."""
        session = self.session
        if not session or len(self._outbox) >= OUTBOX:
            return False
        self._outbox.append(Outgoing(session, topic, payload, qos, retain, token, correlation))
        os.eventfd_write(self._wake, 1)
        return True

    def unsubscribe(self, topics: list[str]) -> None:
        self._unsubscribe.append(topics)
        os.eventfd_write(self._wake, 1)

    def wait(self, seconds: float) -> None:
        """For a command line: wait for the connection. Raises NetspotError with the reason in words."""
        until_s = time.monotonic() + seconds
        while not self.session:
            if time.monotonic() > until_s or (self.reason and self.failures):
                raise NetspotError(f"MQTT {self.where}: {self.reason or 'no answer'}")
            time.sleep(0.005)

    def close(self) -> None:
        """Send what is queued, say ``offline``, disconnect: at most about a second."""
        self._closing = True
        if self._wake < 0:
            return
        os.eventfd_write(self._wake, 1)
        if self._thread.ident:
            self._thread.join(GOODBYE_S + 0.4)
        self.session = 0
        if not self.alive and self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    # -- the network thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        delay_s, short = BACKOFF_S[0], 0
        while not self._closing:
            talk = _Talk(self)
            began_s = time.monotonic()
            try:
                reason = talk.run()
            except Exception as error:
                reason = reasons.of_error(error, self.where)
                if not isinstance(error, OSError | ValueError):
                    log.debug("MQTT", exc_info=True)
            finally:
                talk.free()
            worked, self.session = bool(self.session), 0
            lived_s = time.monotonic() - began_s
            self._outbox.clear()
            if self._closing:
                break
            short = short + 1 if worked and lived_s < UNSTEADY_S else 0
            if lived_s > UNSTEADY_S:
                self._told = ""
            self._tell(reason if short < 3 else reasons.AGAIN.format(client_id=self._client_id))
            self._choose_version(talk)
            if worked:
                delay_s = BACKOFF_S[0] if lived_s > STEADY_S else min(delay_s, 8.0)
            self._pause(delay_s * random.uniform(0.5, 1.0))  # jitter: a fleet does not come back all at once
            delay_s = min(delay_s * 2, BACKOFF_S[1])

    def _choose_version(self, talk: _Talk) -> None:
        """``auto`` takes 5, and 3.1.1 where the broker refuses 5, or once where it hangs up without a word."""
        if self._config.protocol == "auto":
            self._knows5 = self._knows5 and not talk.refused_version
            self._version5 = self._knows5 and not (talk.silent and self._version5)

    def _tell(self, reason: str) -> None:
        self.failures += 1
        self.reason = reason
        if reason != self._told:  # once, not at every attempt
            self._told, self._up_told = reason, False
            log.warning("MQTT %s: %s; tried again by itself", self.where, reason)

    def _connected(self, session_note: str) -> None:
        self.connects += 1
        self.reason = ""
        self.session = self.connects
        if not self._up_told:
            self._up_told = True
            log.info("MQTT %s: connected%s", self.where, session_note)

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while not self._closing and (left_s := until_s - time.monotonic()) > 0:
            self.beat_s = time.monotonic()
            if poll.poll(min(left_s, 1.0) * 1000):
                _drain(self._wake)


class _Talk:
    """One connection, from CONNECT to its end; everything here runs on the network thread."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.refused_version = False
        self.silent = False  # closed without a word: an old broker, perhaps, that does not know version 5
        self._answered = False
        self._tokens: dict[int, int | None] = {}
        self._ended: str | None = None
        self._hello_mid: int | None = None
        self._verified = False
        self._began_s = time.monotonic()
        self._client = new_client(link._config, link._client_id, link._version5, link._tls)
        self._v5 = link._version5
        client = self._client
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish, client.on_subscribe, client.on_message = (
            self._on_publish,
            self._on_subscribe,
            self._on_message,
        )
        client.on_socket_register_write = lambda *args: None  # keeps paho from writing while it holds a callback
        if link._presence:
            client.will_set(link._presence.topic, link._presence.offline, 1, True)

    def run(self) -> str:
        """Returns the reason of the end; raises OSError while connecting."""
        link = self._link
        connect(self._client, link._config, self._v5)
        self._began_s = time.monotonic()
        poll = select.poll()
        poll.register(link._wake, select.POLLIN)
        registered: Any = None
        while self._ended is None:
            link.beat_s = now_s = time.monotonic()
            sock = self._client.socket()
            if sock is None:
                break
            if link._closing:
                return self._goodbye()
            self._flush()
            if sock is not registered:
                poll.register(sock, select.POLLIN)
                registered = sock
            poll.modify(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
            self._turn(poll, sock, 1.0)
            if not self._verified and now_s - self._began_s > ECHO_S:
                return self._unheard()
        if self._ended is None and not self._answered:
            self.silent = True
        return self._ended or ("the connection was lost" if self._answered else reasons.CLOSED)

    def free(self) -> None:
        sock = self._client.socket()
        if sock is not None:
            sock.close()
        for name in ("on_connect", "on_disconnect", "on_publish", "on_subscribe", "on_message"):
            setattr(
                self._client, name, None
            )  # no cycle through this object: its sockets go now, not at some collection

    def _turn(self, poll: select.poll, sock: Any, timeout_s: float) -> None:
        """Wait for something to do, and do it."""
        pending = getattr(sock, "pending", None)  # bytes that TLS has decrypted and poll cannot see
        for fd, events in poll.poll(0 if pending and pending() else timeout_s * 1000) or [(-1, 0)]:
            if fd == self._link._wake:
                _drain(fd)
            elif events & select.POLLOUT and self._client.want_write():
                self._client.loop_write()
        if self._client.socket() is not None:
            self._client.loop_read()
        if self._client.socket() is not None:
            self._client.loop_misc()

    def _flush(self) -> None:
        """Pass queued messages to paho, no more than the socket takes: what waits stays in our bounded queue."""
        link = self._link
        while link._unsubscribe:
            self._client.unsubscribe(link._unsubscribe.popleft())
        while link._outbox and not self._client.want_write():
            message = link._outbox.popleft()
            if message.session == link.session:
                self._publish(message)
            if len(self._tokens) >= 64:  # unacknowledged
                break

    def _publish(self, message: Outgoing) -> None:
        more = correlated(message.correlation) if self._v5 and message.correlation is not None else {}
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain, **more)
        self._link.published += 1
        if message.qos:
            self._tokens[info.mid] = message.token
        self._client.loop_write()

    def _goodbye(self) -> str:
        """Flush, then ``offline`` by ourselves: a clean disconnect sends no will."""
        link, until_s = self._link, time.monotonic() + GOODBYE_S
        poll = select.poll()
        sock = self._client.socket()
        poll.register(sock, select.POLLIN)
        said = link._presence is None or not self._answered
        while time.monotonic() < until_s and self._client.socket() is not None:
            self._flush()
            if not said and not link._outbox and link._presence:
                self._publish(Outgoing(link.session, link._presence.topic, link._presence.offline, 1, True))
                said = True
            if said and not self._tokens and not self._client.want_write():
                break
            poll.modify(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
            self._turn(poll, sock, 0.05)
        self._client.disconnect()
        if self._client.socket() is not None:
            self._client.loop_write()
        return "closed"

    # -- paho's callbacks: 1.6 and 2.x pass different arguments ------------------------------------------------------

    def _on_connect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any = None) -> None:
        self._answered = True
        if reasons.value(code) != 0:
            self._ended = reasons.of_code(code)
            self.refused_version = reasons.value(code) in (1, 132)
            return
        link = self._link
        wanted = list(link._subscriptions)
        if link._presence and not self._acks_tell():
            wanted.append(link._presence.topic)
        if wanted:
            client.subscribe([(topic, 1) for topic in wanted])
        else:
            self._say_hello()

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, granted: Any, properties: Any = None) -> None:
        if self._verified:
            return
        codes = granted if isinstance(granted, list) else [granted]
        refused = [t for t, code in zip(self._link._subscriptions, codes, strict=False) if reasons.value(code) >= 128]
        if refused:
            log.warning(
                "MQTT %s: the broker's access rules do not let this account read %s",
                self._link.where,
                ", ".join(refused),
            )
        self._say_hello()

    def _say_hello(self) -> None:
        presence = self._link._presence
        if presence is None or not getattr(self._link._config, "echo", True):
            self._verify()
        if presence is not None:
            self._hello_mid = self._client.publish(presence.topic, presence.online, 1, True).mid

    def _acks_tell(self) -> bool:
        """Whether an acknowledgement says that the message was really accepted."""
        return self._v5 and PAHO_2

    def _on_publish(self, client: Any, userdata: Any, mid: int, code: Any = 0, properties: Any = None) -> None:
        accepted = reasons.value(code) < 128
        if mid == self._hello_mid:
            self._hello_mid = None
            if not accepted:
                self._ended = f"{reasons.of_code(code)}: it must be able to write {self._link._presence.topic}"  # type: ignore[union-attr]
            elif self._acks_tell():
                self._verify()
            return
        token = self._tokens.pop(mid, None)
        if token is not None:
            self._link.acks.append((token, accepted))
        if not accepted:
            self._ended = reasons.of_code(code)  # what was not accepted is sent again over the next connection

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        presence = self._link._presence
        if presence and message.topic == presence.topic:
            if not message.retain and not self._verified and message.payload == presence.online.encode():
                self._verify()
                client.unsubscribe(presence.topic)
            return
        properties = getattr(message, "properties", None)
        try:
            self._link._receive(
                Incoming(
                    message.topic,
                    message.payload,
                    bool(message.retain),
                    getattr(properties, "ResponseTopic", None),
                    getattr(properties, "CorrelationData", None),
                )  # fmt: skip
            )
        except Exception:
            log.exception("a message on %s could not be handled", message.topic)

    def _on_disconnect(self, client: Any, userdata: Any, *args: Any) -> None:
        if self._ended is None and self._answered:
            code = next((arg for arg in args if reasons.value(arg) > 128), None)  # 128: paho's own, says nothing
            self._ended = reasons.of_code(code) if code is not None and self._v5 else "the connection was lost"

    def _verify(self) -> None:
        if not self._verified:
            self._verified = True
            self._link._connected(f" with MQTT {'5' if self._v5 else '3.1.1'}")

    def _unheard(self) -> str:
        if not self._answered:
            return f"no answer from {self._link.where} in time"
        topic = self._link._presence.topic if self._link._presence else ""
        return reasons.NO_ECHO.format(topic=topic, base=topic.rpartition("/")[0])


def _drain(fd: int) -> None:
    with suppress(BlockingIOError):
        os.eventfd_read(fd)
