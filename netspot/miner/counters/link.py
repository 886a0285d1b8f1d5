"""Counters of frames, whatever they carry."""

from __future__ import annotations

from netspot.miner.counters.base import Counter, distinct, frames, packets, volume

COUNTERS: tuple[Counter, ...] = (
    frames("PKTS", "frames of any kind"),
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
