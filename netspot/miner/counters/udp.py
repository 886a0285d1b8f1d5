"""Counters of UDP datagrams."""

from __future__ import annotations

import numpy as np

from netspot.miner.counters.base import Counter, distinct_ports, heaviest, packets
from netspot.miner.headers import constant

_DNS = constant(np.uint16, 53)  # port

COUNTERS: tuple[Counter, ...] = (
    packets("UDP", "UDP datagrams", lambda b: b.is_udp),
    packets(
        "DNS",
        "DNS datagrams: UDP to or from port 53",
        lambda b: b.is_udp & ((b.src_port == _DNS) | (b.dst_port == _DNS)),
    ),
    heaviest(
        "DNS_CLIENT",
        "most DNS queries of one source",
        "query",
        lambda b, rows: b.src_key[rows],
        lambda b: b.is_udp & (b.dst_port == _DNS),
    ),
    distinct_ports(
        "NB_UNIQ_UDP_PORT", "distinct UDP destination ports", lambda b: b.dst_port, lambda b: b.is_udp & b.has_ports
    ),
)
