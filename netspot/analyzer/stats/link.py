"""Statistics of frames and of IP as a whole: how much there is, and in which direction."""

from __future__ import annotations

from netspot.analyzer.stats.base import Stat, number, rate, ratio

STATS: tuple[Stat, ...] = (
    Stat("PACKETS", "packet/s", "packets a second", ("PKTS", "SOURCE_TIME"), rate, log=True, least=500, margin=2),
    Stat(
        "BYTES", "byte/s", "bytes a second on the wire", ("BYTES", "SOURCE_TIME"), rate, log=True, least=1e6, margin=2
    ),
    Stat(
        "UP_BYTES",
        "byte/s",
        "bytes a second from home to the outside",
        ("UP_BYTES", "SOURCE_TIME"),
        rate,
        log=True,
        least=2e5,
        margin=3,
    ),
    Stat(
        "DOWN_BYTES",
        "byte/s",
        "bytes a second from the outside to home",
        ("DOWN_BYTES", "SOURCE_TIME"),
        rate,
        log=True,
        least=1e6,
        margin=3,
    ),
    Stat(
        "UPLOAD",
        "byte/s",
        "most bytes a second that one machine sends to the outside beyond those that it gets: data that leave home",
        ("UPLOAD", "SOURCE_TIME"),
        rate,
        least=2e5,
        margin=3.5,
    ),
    Stat(
        "BROADCAST",
        "frame/s",
        "frames a second to everybody on the link",
        ("BROADCAST", "SOURCE_TIME"),
        rate,
        least=20,
        margin=1.5,
    ),
    Stat(
        "ARP_REPLY",
        "packet/s",
        "ARP replies a second: many of them may claim a stranger's address",
        ("ARP_REPLY", "SOURCE_TIME"),
        rate,
        least=4,
        margin=1.5,
    ),
    Stat(
        "FRAGMENTS",
        "packet/s",
        "parts of fragmented packets a second",
        ("FRAGMENTS", "SOURCE_TIME"),
        rate,
        least=10,
        margin=1.5,
    ),
    Stat("R_IPV6", "1", "share of IP packets that are IPv6", ("IPV6", "IP"), ratio, (0.0, 1.0)),
    Stat(
        "SOURCES", "address", "distinct source addresses", ("NB_UNIQ_SRC_ADDR",), number, log=True, least=50, margin=2
    ),
)
