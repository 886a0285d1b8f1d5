"""Counters of ARP packets."""

from __future__ import annotations

import numpy as np

from netspot.miner.counters.base import Counter, packets
from netspot.miner.headers import constant

_REPLY = constant(np.uint8, 2)

COUNTERS: tuple[Counter, ...] = (
    packets("ARP", "ARP packets", lambda b: b.is_arp),
    packets("ARP_REPLY", "ARP replies", lambda b: b.is_arp & (b.arp_op == _REPLY)),
)
