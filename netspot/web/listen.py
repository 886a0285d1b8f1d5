"""Where the server listens: TCP, IPv6, a unix socket; and with what certificate."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from pathlib import Path
from typing import Any

from netspot.config import WebConfig
from netspot.errors import ConfigError


def tls_context(config: WebConfig) -> ssl.SSLContext | None:
    """The server's side of TLS, from ``web.cert`` and ``web.key``; None: plain HTTP."""
    if config.cert is None and config.key is None:
        return None
    if config.cert is None or config.key is None:
        missing = "web.tls.cert" if config.cert is None else "web.tls.key"
        raise ConfigError(f"{missing} is not set: TLS needs both, as PEM files")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.cert, config.key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"web.tls.cert = {config.cert}, web.tls.key = {config.key}: cannot be used: {reason}"
        ) from None
    return context


def parse_listen(text: str) -> tuple[socket.AddressFamily, Any]:
    """``host:port``, ``[v6]:port`` or ``unix:/path`` as a socket family and its address. Raises ConfigError."""
    wrong = ConfigError(f"web.listen = {text!r}: must be host:port, [v6]:port, unix:/path or null")
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or len(os.fsencode(path)) > 107:
            raise wrong
        return socket.AF_UNIX, path
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise wrong
    if host.startswith("[") and host.endswith("]"):
        with contextlib.suppress(ValueError):
            return socket.AF_INET6, (str(ipaddress.IPv6Address(host[1:-1])), int(port))
        raise wrong
    if ":" in host:
        raise wrong
    try:
        return socket.AF_INET, (socket.gethostbyname(host or "0.0.0.0"), int(port))
    except (OSError, UnicodeError):
        raise ConfigError(f"web.listen = {text!r}: there is no host {host!r}") from None


def open_socket(listen: str) -> socket.socket:
    """A bound socket; ``[::]`` takes IPv4 too, a unix socket gets mode 0660. Raises ConfigError."""
    family, address = parse_listen(listen)
    if family == socket.AF_UNIX:
        _remove_stale(address, listen)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        if family == socket.AF_UNIX:
            Path(address).chmod(0o660)
    except OSError as error:
        sock.close()
        raise ConfigError(f"web.listen = {listen!r}: {error.strerror}; choose another address or port") from None
    return sock


def _remove_stale(path: str, listen: str) -> None:
    """Remove the socket file of a server that has gone; refuse to take the place of a living one."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            Path(path).unlink(missing_ok=True)
            return
    raise ConfigError(f"web.listen = {listen!r}: another program answers there")
