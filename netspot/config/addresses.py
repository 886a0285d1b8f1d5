"""Hosts, ports, sockets, URLs and networks, as an option may hold them."""

from __future__ import annotations

import re

from netspot.config.kinds import Given, Kind, listed, text

HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?")


def host() -> Kind[str]:
    def parse(given: Given) -> str:
        value = text().parse(given)
        if not value.startswith("/"):  # a socket, for transport: unix
            _host(value)
        return value

    return Kind("a host name, an address, or the path of a socket", parse)


def listen() -> Kind[str]:
    def parse(given: Given) -> str:
        split_address(text().parse(given))
        return given.text()

    return Kind("host:port, [v6]:port or unix:/path", parse)


def endpoint() -> Kind[str]:
    def parse(given: Given) -> str:
        value = text().parse(given)
        scheme, slashes, rest = value.partition("://")
        if not slashes or scheme not in ("tcp", "udp", "unix"):
            raise ValueError
        split_address(f"unix:{rest}" if scheme == "unix" else rest)
        return value

    return Kind("tcp://host:port, udp://host:port or unix:///path", parse)


def url() -> Kind[str]:
    def parse(given: Given) -> str:
        value = text().parse(given)
        match = re.fullmatch(r"https?://(?P<user>[^/]*@)?(?P<place>[^/?#]+)(?:/[^?#\s]*)?", value)
        if match is None:
            raise ValueError
        if match["user"]:
            raise ValueError("a user or password has options of its own, and no place in a URL")
        place = match["place"]
        split_address(place if re.search(r":\d+$", place) else f"{place}:80")
        return value

    return Kind("http://host[:port][/path] or https://...", parse)


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` and ``[v6]:port`` as (host, port); ``unix:/path`` as (path, 0). Raises ValueError."""
    if address.startswith("unix:"):
        if not address.startswith("unix:/") or len(address) > 5 + 107:  # sockaddr_un holds 108 bytes, unix(7)
            raise ValueError("a socket's path is absolute and at most 107 characters long")
        return address[5:], 0
    name, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch(r"\d{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError("the port is missing, or not from 1 to 65535")
    if ":" in name and not (name.startswith("[") and name.endswith("]")):
        raise ValueError("an IPv6 address stands in brackets: [::1]:11000")
    _host(name.removeprefix("[").removesuffix("]"))
    return name.removeprefix("[").removesuffix("]"), int(port)


def prefixes() -> Kind[tuple[str, ...]]:
    return listed(Kind("prefixes", prefix), "a list of prefixes such as 192.168.1.0/24 or fd00::/8")


def prefix(given: Given) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_network(given.text(), strict=False))
    except ValueError:
        raise ValueError("not an address or a prefix such as 192.168.1.0/24 or fd00::/8") from None


def _host(name: str) -> None:
    import ipaddress

    if ":" in name:
        try:
            ipaddress.IPv6Address(name)
        except ValueError:
            raise ValueError("only the host belongs here: no port, no scheme") from None
    elif not HOST.fullmatch(name):
        raise ValueError(f"{Given(name, 'str', '').shown()} is no host name or address")
