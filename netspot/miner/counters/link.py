"""Counters of frames, whatever they carry."""

from __future__ import annotations

import numpy as np

from netspot.miner.counters.base import Counter, distinct, packets, volume

COUNTERS: tuple[Counter, ...] = (
    packets("PKTS", "frames of any kind", lambda b: np.ones(len(b), np.bool_)),
    volume("BYTES", "bytes on the wire, link headers included", lambda b: b.wire_len),
    packets("BROADCAST", "frames to everybody on the link", lambda b: b.is_broadcast),
    packets("MULTICAST", "frames to a group on the link", lambda b: b.is_multicast),
    distinct(
        "NB_UNIQ_SRC_MAC",
        "distinct source hardware addresses",
        "address",
        lambda b: b.src_mac,
        lambda b: b.src_mac != 0,
    ),
)
