"""Counters of ARP packets."""

from __future__ import annotations

from netspot.miner.counters.base import Counter, packets

COUNTERS: tuple[Counter, ...] = (
    packets("ARP", "ARP packets", lambda b: b.is_arp),
    packets("ARP_REPLY", "ARP replies", lambda b: b.is_arp & (b.arp_op == 2)),
)
