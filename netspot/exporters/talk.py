"""One MQTT connection, from CONNECT to its end, through paho's external-loop calls."""

from __future__ import annotations

import logging
import math
import os
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from netspot.exporters import reasons
from netspot.exporters.client import PAHO_2, connect, correlated, new_client

if TYPE_CHECKING:
    from netspot.exporters.link import Link

log = logging.getLogger(__name__)

ECHO_S = 10.0  # the broker must show within this time that it passes on what is published
GOODBYE_S = 0.8
CALLBACKS = ("on_connect", "on_disconnect", "on_publish", "on_subscribe", "on_message")
UNACKNOWLEDGED = 64  # messages of QoS 1 that wait for the broker; more stay in the link's queue


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


class Talk:
    """One connection, from CONNECT to its end; everything here runs on the network thread."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.refused_version = False
        self.silent = False  # closed without a word: an old broker, perhaps, that does not know version 5
        self._answered = False
        self._unacknowledged: dict[int, Outgoing] = {}  # by message id, not acknowledged yet
        self._ended: str | None = None
        self._hello_mid: int | None = None
        self._verified = False
        self._began_s = time.monotonic()
        self._client = new_client(link.config, link.client_id, link.version5, link.tls)
        self._v5 = link.version5
        for name in CALLBACKS:
            setattr(self._client, name, getattr(self, f"_{name}"))
        self._client.on_socket_register_write = lambda *args: None  # keeps paho from writing inside a callback
        if link.presence:
            self._client.will_set(link.presence.topic, link.presence.offline, 1, True)

    def run(self) -> str:
        """Returns the reason of the end; raises OSError while connecting."""
        link = self._link
        connect(self._client, link.config, self._v5)
        self._began_s = time.monotonic()
        poll = select.poll()
        poll.register(link.wake, select.POLLIN)
        registered: Any = None
        while self._ended is None:
            link.beat_s = now_s = time.monotonic()
            if link.closing and self._client.socket() is not None:
                return self._goodbye()
            self._flush()
            sock = self._client.socket()
            if sock is None:
                break
            if sock is not registered:
                poll.register(sock, select.POLLIN)
                registered = sock
            poll.modify(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
            self._turn(poll, sock, 1.0)
            if not self._verified and now_s - self._began_s > ECHO_S:
                return self._unheard()
        if self._ended is None and not self._answered:
            if time.monotonic() - self._began_s > 0.9 * link.config.keepalive_s:  # then paho hangs up by itself
                return self._unheard()
            self.silent = True
        return self._ended or ("the connection was lost" if self._answered else reasons.CLOSED)

    def free(self) -> None:
        sock = self._client.socket()
        if sock is not None:
            sock.close()
        for name in CALLBACKS:  # no cycle through this object: it goes now, not at some collection
            setattr(self._client, name, None)

    def _turn(self, poll: select.poll, sock: Any, timeout_s: float) -> None:
        """Wait for something to do, and do it."""
        pending = getattr(sock, "pending", None)  # bytes that TLS has decrypted and poll cannot see
        for fd, events in poll.poll(0 if pending and pending() else timeout_s * 1000) or [(-1, 0)]:
            if fd == self._link.wake:
                drain(fd)
            elif events & select.POLLOUT and self._client.want_write():
                self._client.loop_write()
        if self._client.socket() is not None:
            self._client.loop_read()
        if self._client.socket() is not None:
            self._client.loop_misc()

    def _flush(self) -> None:
        """Pass queued messages to paho, no more than the socket takes: what waits stays in our bounded queue."""
        link = self._link
        while link.unsubscribes:
            self._client.unsubscribe(link.unsubscribes.popleft())
        while link.outbox and len(self._unacknowledged) < UNACKNOWLEDGED and not self._client.want_write():
            message = link.outbox.popleft()
            if message.session == link.session:
                self._publish(message)

    def _publish(self, message: Outgoing) -> None:
        """A message that is too large for the broker counts as refused: it would hang up."""
        link = self._link
        if not link.fits(message.topic, message.payload, message.correlation):
            link.complain(f"the broker takes {link.packet_bytes} bytes at most: what is larger stays here")
            if message.token is not None:
                link.acks.append((message.token, False))
            return
        more = correlated(message.correlation) if self._v5 and message.correlation is not None else {}
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain, **more)
        link.published += 1
        if message.qos:
            self._unacknowledged[info.mid] = message
        self._client.loop_write()

    def _goodbye(self) -> str:
        """Flush, then ``offline`` by ourselves: a clean disconnect sends no will."""
        link, until_s = self._link, time.monotonic() + GOODBYE_S
        poll = select.poll()
        sock = self._client.socket()
        poll.register(sock, select.POLLIN)
        said = link.presence is None or not self._answered
        while time.monotonic() < until_s and self._client.socket() is not None:
            self._flush()
            if not said and not link.outbox and link.presence:
                self._publish(Outgoing(link.session, link.presence.topic, link.presence.offline, 1, True))
                said = True
            if said and not self._unacknowledged and not self._client.want_write():
                break
            if self._client.socket() is None:
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
        link.packet_bytes = getattr(properties, "MaximumPacketSize", math.inf)
        wanted = list(link.subscriptions)
        if link.presence and not self._acks_tell():
            wanted.append(link.presence.topic)
        if wanted:
            client.subscribe([(topic, 1) for topic in wanted])
        else:
            self._say_hello()

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, granted: Any, properties: Any = None) -> None:
        if self._verified:
            return
        codes = granted if isinstance(granted, list) else [granted]
        refused = [t for t, code in zip(self._link.subscriptions, codes, strict=False) if reasons.value(code) >= 128]
        if refused:
            log.warning(
                "MQTT %s: the broker's access rules do not let this account read %s",
                self._link.where,
                ", ".join(refused),
            )
        self._say_hello()

    def _say_hello(self) -> None:
        presence = self._link.presence
        if presence is None or not self._link.config.echo:
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
                self._ended = f"{reasons.of_code(code)}: it must be able to write {self._link.presence.topic}"  # type: ignore[union-attr]
            elif self._acks_tell():
                self._verify()
            return
        message = self._unacknowledged.pop(mid, None)
        if message is None:
            return
        if message.token is not None:
            self._link.acks.append((message.token, accepted))
        if not accepted:
            self._link.complain(f"{reasons.of_code(code)}: {message.topic} is refused")

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        presence = self._link.presence
        if presence and message.topic == presence.topic:
            if not message.retain and not self._verified and message.payload == presence.online.encode():
                self._verify()
                client.unsubscribe(presence.topic)
            return
        properties = getattr(message, "properties", None)
        try:
            self._link.receive(
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
            self._link.connected(f" with MQTT {'5' if self._v5 else '3.1.1'}")

    def _unheard(self) -> str:
        if not self._answered:
            return f"no answer from {self._link.where} in time"
        topic = self._link.presence.topic if self._link.presence else ""
        return reasons.NO_ECHO.format(topic=topic, base=topic.rpartition("/")[0])


def drain(fd: int) -> None:
    with suppress(BlockingIOError):
        os.eventfd_read(fd)
