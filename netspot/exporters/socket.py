"""Events to a program that listens on TCP, UDP or a Unix socket: one line, or datagram, an event."""

from __future__ import annotations

import csv
import errno
import io
import select
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from netspot.errors import ConfigError
from netspot.events import Alarm, Event, Incident, Relearn, Sample
from netspot.exporters.base import Context, Message
from netspot.exporters.sender import Refused, Sender

if TYPE_CHECKING:
    from netspot.config import SocketConfig

ALARMS: frozenset[type[Event]] = frozenset({Alarm, Incident, Relearn})
WAITING = 2000  # events kept for a peer that is away, about 1 MiB; then the oldest is dropped
TIMEOUT_S = 5.0
COLUMNS = (
    "kind", "event_type", "time_ns", "node", "series", "stat", "value", "up", "down", "state",
    "threshold", "probability", "level", "id", "seq", "title",
)  # fmt: skip


class SocketExporter:
    """``data`` takes the samples, ``alarm`` alarms and incidents; the same address for both is one connection."""

    def __init__(self, config: SocketConfig, context: Context) -> None:
        self._csv = config.format == "csv"
        self._tag = config.tag
        self._senders: dict[type[Event], Sender] = {}
        by_address: dict[str, Sender] = {}
        for key, address, kinds in (("data", config.data, frozenset({Sample})), ("alarm", config.alarm, ALARMS)):
            if address:
                peer = Peer(f"exporter.socket.{key}", address)
                sender = by_address.setdefault(address, Sender(address, peer.deliver, WAITING, peer.batch))
                self._senders |= dict.fromkeys(kinds, sender)
        self._all = tuple(by_address.values())
        self.kinds = frozenset(self._senders)

    def start(self) -> None:
        for sender in self._all:
            sender.start()

    def write(self, event: Event, message: Message) -> None:
        line = row(self._tag, message) if self._csv else f'{{"tag":"{self._tag}",{message.json[1:]}\n'
        self._senders[type(event)].put(line.encode())

    def health(self) -> Mapping[str, Any]:
        return {
            "dropped": sum(sender.dropped for sender in self._all),
            "waiting": sum(map(len, self._all)),
            "reason": "; ".join(sender.reason for sender in self._all if sender.reason),
        }

    def close(self) -> None:
        for sender in self._all:
            sender.close()


class Peer:
    """One address, connected when needed; everything but the constructor runs on the sender's thread."""

    def __init__(self, key: str, address: str) -> None:
        parts = urlsplit(address)
        self._address = address
        self._scheme = parts.scheme
        self._path = parts.path
        self._socket: socket.socket | None = None
        try:
            self._host, self._port = parts.hostname or "", parts.port or 0
        except ValueError:
            self._host, self._port = "", 0
        whole = self._path if self._scheme == "unix" else self._host and self._port
        if self._scheme not in ("tcp", "udp", "unix") or not whole:
            raise ConfigError(f"{key} = {address}: tcp://host:port, udp://host:port or unix:///path")
        self.batch = 1 if self._scheme == "udp" else 100

    def deliver(self, batch: Sequence[bytes]) -> None:
        """Raises OSError, with the address, when the peer is away; Refused for what fits in no datagram."""
        try:
            if self._socket is not None and self._scheme != "udp" and self._gone(self._socket):
                self._drop()
            if self._socket is None:
                self._socket = self._connect()
            if self._socket.type == socket.SOCK_DGRAM:
                for line in batch:
                    self._socket.send(line)
            else:
                self._socket.sendall(b"".join(batch))
        except OSError as error:
            self._drop()
            if error.errno == errno.EMSGSIZE:
                raise Refused(f"{self._address}: an event is too large for one datagram") from None
            raise OSError(f"{self._address}: {error.strerror or error}; tried again by itself") from None

    def _connect(self) -> socket.socket:
        if self._scheme == "tcp":
            return socket.create_connection((self._host, self._port), TIMEOUT_S)
        if self._scheme == "udp":
            family, kind, number, _, where = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            made = socket.socket(family, kind, number)
            made.connect(where)
            return made
        return self._connect_unix()

    def _connect_unix(self) -> socket.socket:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            made = socket.socket(socket.AF_UNIX, kind)
            made.settimeout(TIMEOUT_S)
            try:
                made.connect(self._path)
                return made
            except OSError as error:
                made.close()
                if error.errno != errno.EPROTOTYPE or kind == socket.SOCK_DGRAM:
                    raise
        raise AssertionError("unreachable")

    @staticmethod
    def _gone(sock: socket.socket) -> bool:
        """Whether the peer has hung up, which a send alone would not notice."""
        poll = select.poll()  # MSG_DONTWAIT would wait: Python itself does, for a socket with a timeout
        poll.register(sock, select.POLLIN)
        try:
            return bool(poll.poll(0)) and sock.recv(4096) == b""
        except OSError:
            return True

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def row(tag: str, message: Mapping[str, Any]) -> str:
    """``message`` as a line of CSV: the tag, then ``COLUMNS``; empty where an event has no such field."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([tag, *(message.get(name) for name in COLUMNS)])
    return out.getvalue()
