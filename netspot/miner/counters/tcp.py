"""Counters of TCP segments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from netspot.miner.counters.base import Counter, distinct_ports, fan_out, packets
from netspot.miner.distinct import pair
from netspot.miner.headers import constant
from netspot.packets import ACK, FIN, RST, SYN, URG, Bools, PacketBatch

_FIN, _SYN, _RST, _ACK, _URG, _SYN_ACK, _NONE = (
    constant(np.uint8, flags) for flags in (FIN, SYN, RST, ACK, URG, SYN | ACK, 0)
)


def begun(batch: PacketBatch) -> Bools:
    """Segments that begin a connection: SYN without ACK."""
    mask: Bools = batch.tcp_flags & _SYN_ACK == _SYN
    return mask


def having(flag: NDArray[np.uint8]) -> Callable[[PacketBatch], Bools]:
    """Segments with ``flag``: those of a frame without a TCP header are 0, so they need no mask."""
    return lambda batch: batch.tcp_flags & flag != _NONE


def endpoint(address: NDArray[np.uint64], port: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """One key for an address and a port."""
    return pair(address, port.astype(np.uint64))


COUNTERS: tuple[Counter, ...] = (
    packets("TCP", "TCP segments", lambda b: b.is_tcp),
    packets("SYN", "TCP segments with SYN set", having(_SYN)),
    packets("ACK", "TCP segments with ACK set", having(_ACK)),
    packets("FIN", "TCP segments with FIN set", having(_FIN)),
    packets("RST", "TCP segments with RST set", having(_RST)),
    packets("URG", "TCP segments with URG set", having(_URG)),
    packets("SYN_ONLY", "connections begun: SYN without ACK", begun),
    packets("SYN_ACK", "connections answered: SYN with ACK", lambda b: b.tcp_flags & _SYN_ACK == _SYN_ACK),
    distinct_ports(
        "NB_UNIQ_SRC_PORT", "distinct TCP source ports", lambda b: b.src_port, lambda b: b.is_tcp & b.has_ports
    ),
    distinct_ports(
        "NB_UNIQ_DST_PORT", "distinct TCP destination ports", lambda b: b.dst_port, lambda b: b.is_tcp & b.has_ports
    ),
    packets(
        "SYN_IN", "connections that somebody outside begins with home", lambda b: begun(b) & b.dst_home & ~b.src_home
    ),
    fan_out(
        "FANOUT_PORTS",
        "most destination ports with which one source begins connections",
        "port",
        lambda b, rows: b.src_key[rows],
        lambda b, rows: b.dst_port[rows].astype(np.uint64),
        begun,
    ),
    fan_out(
        "FANOUT_HOSTS",
        "most destinations with which one source begins connections",
        "host",
        lambda b, rows: b.src_key[rows],
        lambda b, rows: b.dst_key[rows],
        begun,
    ),
    fan_out(
        "SERVICE_CONNS",
        "most connections begun with one port of one destination",
        "connection",
        lambda b, rows: endpoint(b.dst_key[rows], b.dst_port[rows]),
        lambda b, rows: endpoint(b.src_key[rows], b.src_port[rows]),
        begun,
    ),
)
