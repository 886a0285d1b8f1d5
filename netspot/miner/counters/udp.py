"""Counters of UDP datagrams."""

from __future__ import annotations

from netspot.miner.counters.base import Counter, packets

COUNTERS: tuple[Counter, ...] = (
    packets("UDP", "UDP datagrams", lambda b: b.is_udp),
    packets("DNS", "DNS datagrams: UDP to or from port 53", lambda b: b.is_udp & ((b.src_port == 53) | (b.dst_port == 53))),
)
