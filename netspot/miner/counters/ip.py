"""Counters of IP packets. IPv6 counts everywhere."""

from __future__ import annotations

from netspot.miner.counters.base import Counter, distinct, packets, volume

COUNTERS: tuple[Counter, ...] = (
    packets("IP", "IPv4 and IPv6 packets", lambda b: b.is_ipv4 | b.is_ipv6),
    packets("IPV4", "IPv4 packets", lambda b: b.is_ipv4),
    packets("IPV6", "IPv6 packets", lambda b: b.is_ipv6),
    volume("IP_BYTES", "bytes of IP packets, headers included", lambda b: b.ip_len),
    packets("FRAGMENTS", "parts of fragmented IP packets", lambda b: b.is_fragment),
    distinct("NB_UNIQ_SRC_ADDR", "distinct source addresses", "address", lambda b: b.src_key, lambda b: b.has_addr),
    distinct("NB_UNIQ_DST_ADDR", "distinct destination addresses", "address", lambda b: b.dst_key, lambda b: b.has_addr),
)
