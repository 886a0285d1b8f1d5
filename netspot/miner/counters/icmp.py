"""Counters of ICMP messages."""

from __future__ import annotations

from netspot.miner.counters.base import Counter, packets

COUNTERS: tuple[Counter, ...] = (
    packets("ICMP", "ICMP messages over IPv4", lambda b: b.is_icmp),
    packets("ICMP6", "ICMP messages over IPv6", lambda b: b.is_icmp6),
)
