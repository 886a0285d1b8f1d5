"""The statistics of the original netspot, under their names."""

from __future__ import annotations

from netspot.analyzer.stats.base import Stat, rate, ratio

SHARE = (0.0, 1.0)

STATS: tuple[Stat, ...] = (
    Stat("R_SYN", "1", "share of IP packets that are TCP with SYN set", ("SYN", "IP"), ratio, SHARE),
    Stat("R_ACK", "1", "share of IP packets that are TCP with ACK set", ("ACK", "IP"), ratio, SHARE),
    Stat("R_ICMP", "1", "share of IP packets that are ICMP", ("ICMP", "IP"), ratio, SHARE),
    Stat("R_ARP", "1", "share of all packets that are ARP", ("ARP", "PKTS"), ratio, SHARE),
    Stat("R_IP", "1", "share of all packets that are IP", ("IP", "PKTS"), ratio, SHARE),
    Stat(
        "R_DST_SRC",
        "1",
        "distinct destination addresses for each distinct source address",
        ("NB_UNIQ_DST_ADDR", "NB_UNIQ_SRC_ADDR"),
        ratio,
    ),
    Stat(
        "R_DST_SRC_PORT",
        "1",
        "distinct TCP destination ports for each distinct TCP source port",
        ("NB_UNIQ_DST_PORT", "NB_UNIQ_SRC_PORT"),
        ratio,
    ),
    Stat("AVG_PKT_SIZE", "byte", "mean size of IP packets", ("IP_BYTES", "IP"), ratio, margin=1.05),
    Stat("TRAFFIC", "packet/s", "packets a second", ("PKTS", "SOURCE_TIME"), rate),
    Stat(
        "PERF",
        "packet/s",
        "packets a second of our own time: how fast this program is",
        ("PKTS", "REAL_TIME"),
        rate,
        watched=False,
    ),
)
