"""Who was there: shares of addresses, ports and protocols among the sampled packets, in names that may be told."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netspot.packets import Bools, PacketBatch

TOP = 3  # names of each kind that are told
PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmp6", 132: "sctp"}

Rows = NDArray[np.intp]
Shares = list[tuple[int, float]]  # (key, share of the weight), greatest first


class Seen(Protocol):
    """The decoded sample of one or several windows."""

    weight: NDArray[np.float64]  # packets that each row stands for

    @property
    def packets(self) -> PacketBatch: ...
    def address(self, key: int) -> str | None: ...
    def query_names(self, rows: Rows) -> list[str]: ...


class Headers(Protocol):
    """The sample of one window, not yet decoded."""

    @property
    def nbytes(self) -> int: ...
    def thinner(self) -> Headers: ...
    def seen(self, earlier: Sequence[Any] = ()) -> Seen: ...


class Names:
    """Addresses as the configuration lets them be told: ``whole``, ``shortened`` to a network, or ``hashed``.

    A hash looks like an address (240.0.0.0/4, fd00::/8) and is the same for the same one until the program ends.
    """

    def __init__(self, mode: str = "whole") -> None:
        self.mode = mode
        self._secret = os.urandom(16)

    def address(self, text: str | None) -> str:
        if text is None:
            return "an IPv6 address"
        if self.mode == "shortened":
            prefix = 24 if "." in text else 48
            return str(ipaddress.ip_network(f"{text}/{prefix}", strict=False))
        if self.mode == "hashed":
            digest = self._hash(text)
            packed = bytes([0xF0 | digest[0] & 15]) + digest[1:4] if "." in text else b"\xfd" + bytes(7) + digest
            return str(ipaddress.ip_address(packed))
        return text

    def mac(self, number: int) -> str:
        text = ":".join(f"{byte:02x}" for byte in number.to_bytes(6, "big"))
        if self.mode == "shortened":
            return text[:8] + ":*"
        return self.mac_text(self._hash(text)) if self.mode == "hashed" else text

    @staticmethod
    def mac_text(digest: bytes) -> str:
        """A locally administered hardware address."""
        return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])

    def _hash(self, text: str) -> bytes:
        from hashlib import blake2b  # brings OpenSSL, 3 MiB, which others do without

        return blake2b(text.encode(), key=self._secret, digest_size=8).digest()


def shares(keys: NDArray[Any], weight: NDArray[np.float64], top: int = TOP) -> Shares:
    """The ``top`` keys of greatest weight with their share of it."""
    if not len(keys):
        return []
    found, inverse = np.unique(keys, return_inverse=True)
    weights = np.bincount(inverse.reshape(-1), weight, minlength=len(found))
    order = np.argsort(-weights, kind="stable")[:top]
    total = weights.sum() or 1.0
    return [(int(found[i]), float(weights[i] / total)) for i in order]


def account(seen: Seen, names: Names) -> dict[str, list[list[Any]]]:
    """Top sources, destinations, ports, protocols and hardware addresses as [name, share of the packets]."""
    p, weight = seen.packets, seen.weight

    def told(keys: NDArray[Any], mask: Bools, name: Callable[[int], str]) -> list[list[Any]]:
        return [[name(key), round(share, 3)] for key, share in shares(keys[mask], weight[mask])]

    def address(key: int) -> str:
        return names.address(seen.address(key))

    ports = p.ip_proto.astype(np.int64) << 16 | p.dst_port
    found = {
        "top_src": told(p.src_key, p.has_addr, address),
        "top_dst": told(p.dst_key, p.has_addr, address),
        "top_port": told(ports, p.has_ports, lambda key: f"{PROTOCOLS.get(key >> 16)}/{key & 0xFFFF}"),
        "top_protocol": told(p.ip_proto, p.is_ipv4 | p.is_ipv6, lambda key: PROTOCOLS.get(key, f"IP {key}")),
        "top_mac": told(p.src_mac, p.src_mac != 0, names.mac),
    }
    return {kind: rows for kind, rows in found.items() if rows}
