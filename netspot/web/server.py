"""The web server: waitress, made to stand slow and many clients, with TLS and unix sockets.

One thread moves bytes for all connections and hands over whole requests only, so that a slow client costs a socket
and never a worker; ``WORKERS`` threads answer. waitress takes a third of the memory of cheroot (docs/page.md).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer, UnixWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher

from netspot.commands import CommandQueue
from netspot.config import WebConfig
from netspot.errors import ConfigError
from netspot.events import encode
from netspot.snapshot import Board
from netspot.web import access
from netspot.web.app import ANSWER_S, App
from netspot.web.listen import open_socket, tls_context
from netspot.web.wire import BODY_MAX

WORKERS = 2
NICE = 5  # what the page's threads add to the niceness of the capture
STACK = 512 * 1024  # [byte] of each thread
CONNECTIONS = 96  # at once; one more closes the one that has been waiting longest
REQUEST_S = 20.0  # from the first byte of a request to its last, and from the first byte of an answer to its last
SLOWEST = 65_536  # [byte/s] at which a long answer, such as a capture, may be taken; it has that much longer
IDLE_S = 75.0  # a connection kept alive without a request; longer than a browser's pause between polls
HEADER_MAX = 16_384  # [byte]

log = logging.getLogger(__name__)


class NotYet(Exception):
    """There is nothing to read: no whole record of TLS, or poll spoke of the connection that had this number before."""


class Workers(ThreadedTaskDispatcher):  # type: ignore[misc]
    """The threads that answer; the capture goes first."""

    def handler_thread(self, thread_no: int) -> None:
        _step_back()
        super().handler_thread(thread_no)


def _step_back() -> None:
    """Lower the priority of this thread (Linux takes a thread's id here)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class OneRequest(HTTPRequestParser):  # type: ignore[misc]
    """Parses one request; what a client sends ahead of its answer stays in ``rest``, for later."""

    rest = b""

    def received(self, data: bytes) -> int:
        taken: int = super().received(data)
        if self.completed and taken < len(data):
            self.rest = data[taken:]
            return len(data)
        return taken


class Refusal(ErrorTask):  # type: ignore[misc]
    """What waitress refuses by itself (a header too long, no HTTP at all), said in JSON like every other error."""

    def execute(self) -> None:
        error = self.request.error
        body = encode({"error": f"{error.reason}: {error.body}"}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", "application/json"), ("Connection", "close")]
        self.content_length, self.close_on_finish = len(body), True
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]
    """One connection; ``since`` is when it began to owe us a request, or we owe it the end of an answer [s]."""

    error_task_class = Refusal
    parser_class = OneRequest
    request: OneRequest | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.since = time.monotonic()
        self.served = False
        self._longer_s = 0.0
        self._ahead = b""  # at most what one recv brings
        super().__init__(*args, **kwargs)

    def late(self, now: float) -> bool:
        """Whether the time that a request, an answer, or idleness may take has passed."""
        if self.requests:
            return False
        busy = self.request is not None or self.total_outbufs_len or not self.served
        return now - self.since > (REQUEST_S + self._longer_s if busy else IDLE_S)

    def received(self, data: bytes) -> Any:
        if self.request is None:
            self.since, self._longer_s = time.monotonic(), 0.0
            self.request = self.parser_class(self.adj)
        parser = self.request
        out = super().received(data)
        self._ahead = parser.rest
        return out

    def del_channel(self, *args: Any) -> None:
        super().del_channel(*args)
        self.server.end()

    def readable(self) -> bool:
        """Asked before each poll. One answer leaves before the next request is looked at: memory stays bounded."""
        if self.server.leaving:
            self.server.maintenance(0)  # which is the business of the socket that listens, but that has gone
        idle = not self.requests and not self.total_outbufs_len
        if idle and self._ahead and not self.will_close and not self.close_when_flushed:
            self.received(self._ahead)
        return bool(super().readable())

    def service(self) -> None:
        super().service()
        self.since, self.served = time.monotonic(), True
        self._longer_s = self.total_outbufs_len / SLOWEST

    def handle_read(self) -> None:
        with contextlib.suppress(NotYet):
            super().handle_read()

    def recv(self, size: int) -> bytes:
        try:
            data: bytes = super().recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            raise NotYet from None
        return data

    def send(self, data: bytes, do_close: bool = True) -> int:
        try:
            sent: int = super().send(data, do_close)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        return sent


class Patience:
    """Mixed into waitress's servers: who is late goes; when all places are taken, who waits longest goes."""

    channel_class = Channel
    active_channels: dict[int, Channel]
    trigger: Any
    leaving = False

    def leave(self) -> None:
        """Close what listens and what is idle; requests that are being answered get their answer first."""
        self.leaving = True
        for channel in list(self.active_channels.values()):
            with channel.requests_lock:
                for request in channel.requests:
                    request.headers["CONNECTION"] = "close"
            if not channel.requests:
                channel.handle_close()
        wasyncore.dispatcher.close(self)
        self.end()

    def end(self) -> None:
        """With the last connection the loop ends; the pipe stays until the workers have ended."""
        if self.leaving and not self.active_channels:
            self.trigger.del_channel()

    def maintenance(self, _now: float) -> None:
        now = time.monotonic()
        for channel in list(self.active_channels.values()):
            if channel.late(now):
                channel.handle_close()  # at once: a socket that is never writable would stay

    def handle_accept(self) -> None:
        waiting = [channel for channel in self.active_channels.values() if not channel.requests]
        if len(self.active_channels) >= CONNECTIONS and waiting:
            min(waiting, key=lambda channel: channel.since).handle_close()
        try:
            super().handle_accept()  # type: ignore[misc]
        except Exception:  # waitress would close the whole server
            log.warning("a connection could not be taken", exc_info=True)


class TcpServer(Patience, TcpWSGIServer):  # type: ignore[misc]
    pass


class UnixServer(Patience, UnixWSGIServer):  # type: ignore[misc]
    pass


class WebServer:
    """The status page and the API on ``config.listen``, in threads of their own.

    ``commands`` carries requests to the main loop, ``config_view()`` gives the settings without secrets,
    ``captures(id)`` the capture file of an incident, if there is one. ``app.board`` may be replaced at any time.
    """

    def __init__(
        self,
        config: WebConfig,
        board: Board,
        commands: CommandQueue,
        config_view: Callable[[], Mapping[str, Any]] = dict,
        state_dir: str | None = None,
        captures: Callable[[str], Path | None] = lambda _: None,
    ) -> None:
        """Raises ConfigError where ``config`` can never work; nothing is opened yet."""
        if config.listen is None:
            raise ConfigError("web.listen is off: nothing to serve")
        self._config, self._listen = config, config.listen
        self._tls = tls_context(config)
        self.app = App(config, board, commands, config_view, access.ensure_token(state_dir), captures)
        self._server: Any = None

    def start(self) -> None:
        """Listen and answer. Raises ConfigError when the address cannot be had."""
        for name in ("waitress", "waitress.queue"):  # a client's broken request is no news
            logging.getLogger(name).setLevel(logging.CRITICAL)
        sock = open_socket(self._listen)
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        adjustments = Adjustments(
            threads=WORKERS,
            connection_limit=10 * CONNECTIONS,  # never reached: Patience makes room
            cleanup_interval=1,
            max_request_header_size=HEADER_MAX,
            max_request_body_size=BODY_MAX,
            recv_bytes=32_768,  # a TLS record whole, or poll would not tell of its rest
            asyncore_use_poll=True,
            ident=None,
            log_socket_errors=False,
            clear_untrusted_proxy_headers=False,
        )
        unix = sock.family == socket.AF_UNIX
        before = threading.stack_size(STACK)
        try:
            workers = Workers()
            workers.set_thread_count(WORKERS)
            self._server = (UnixServer if unix else TcpServer)(
                self.app,
                map={},
                _sock=sock,
                dispatcher=workers,
                adj=adjustments,
                sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
                bind_socket=False,
            )
            threading.Thread(target=self._run, args=(self._server,), name="netspot-web", daemon=True).start()
        finally:
            threading.stack_size(before)

    @property
    def port(self) -> int:
        """The TCP port that was given to us (for ``listen`` with port 0)."""
        return int(self._server.socket.getsockname()[1])

    def _run(self, server: Any) -> None:
        _step_back()
        try:
            server.run()
        except OSError as error:
            log.error("the status page has ended: %s", error)
        # A worker may be waiting for the very thread that closes us, and then write to the pipe.
        server.task_dispatcher.shutdown(timeout=2 * ANSWER_S)
        server.trigger.close()

    def close(self) -> None:
        """Stop answering, give the address back. May be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        closed = threading.Event()
        # The loop's own thread closes its sockets: waitress keeps them in a mapping that only one thread may change.
        # The lock keeps it from ending, and from closing the pipe, before the pipe was written to.
        with server.trigger.lock:
            server.trigger.thunks += [server.leave, closed.set]
            server.trigger._physical_pull()
        closed.wait(1.0)
        if self._listen.startswith("unix:"):
            Path(self._listen.removeprefix("unix:")).unlink(missing_ok=True)
