"""Counters of TCP segments."""

from __future__ import annotations

from netspot.miner.counters.base import Counter, distinct_ports, packets
from netspot.packets import ACK, FIN, RST, SYN, URG

# Flags of a frame without a TCP header are 0, so they need no mask.
COUNTERS: tuple[Counter, ...] = (
    packets("TCP", "TCP segments", lambda b: b.is_tcp),
    packets("SYN", "TCP segments with SYN set", lambda b: b.tcp_flags & SYN != 0),
    packets("ACK", "TCP segments with ACK set", lambda b: b.tcp_flags & ACK != 0),
    packets("FIN", "TCP segments with FIN set", lambda b: b.tcp_flags & FIN != 0),
    packets("RST", "TCP segments with RST set", lambda b: b.tcp_flags & RST != 0),
    packets("URG", "TCP segments with URG set", lambda b: b.tcp_flags & URG != 0),
    packets("SYN_ONLY", "connections begun: SYN without ACK", lambda b: b.tcp_flags & (SYN | ACK) == SYN),
    packets("SYN_ACK", "connections answered: SYN with ACK", lambda b: b.tcp_flags & (SYN | ACK) == SYN | ACK),
    distinct_ports(
        "NB_UNIQ_SRC_PORT", "distinct TCP source ports", lambda b: b.src_port, lambda b: b.is_tcp & b.has_ports
    ),
    distinct_ports(
        "NB_UNIQ_DST_PORT", "distinct TCP destination ports", lambda b: b.dst_port, lambda b: b.is_tcp & b.has_ports
    ),
)
