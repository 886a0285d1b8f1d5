"""Header bytes -> PacketBatch, vectorised."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import numpy as np

from netspot.packets import Frames, PacketBatch

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class HomeNets:
    """The networks that are home; an address in none of them is outside."""

    nets: tuple[IPNetwork, ...] = ()


PAD = 256  # readable bytes that must follow the last frame in ``Frames.data``, so that a gather needs no bound per row


def decode(
    frames: Frames,
    ts_ns: np.ndarray,
    wire_len: np.ndarray,
    home: HomeNets,
    until_ns: int,
    dropped: int = 0,
    network: tuple[np.ndarray, np.ndarray] | None = None,
) -> PacketBatch:
    """Decode the headers of ``frames``.

    ``network``, from sources that know it (the ring), is (offset of the network header, ethertype) of each row; it
    spares the link layer.
    """
    raise NotImplementedError
