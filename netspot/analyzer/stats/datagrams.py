"""Statistics of UDP, DNS and ICMP."""

from __future__ import annotations

from netspot.analyzer.stats.base import Stat, number, rate


def both(one: float, other: float, source_time_ns: float) -> float:
    """The sum of two counts a second."""
    return rate(one + other, source_time_ns)


STATS: tuple[Stat, ...] = (
    Stat("UDP", "packet/s", "UDP datagrams a second", ("UDP", "SOURCE_TIME"), rate, log=True, least=500, margin=2),
    Stat(
        "UDP_PORTS",
        "port",
        "distinct UDP destination ports: a flood or a scan",
        ("NB_UNIQ_UDP_PORT",),
        number,
        log=True,
        least=50,
        margin=2,
    ),
    Stat("DNS", "packet/s", "DNS datagrams a second", ("DNS", "SOURCE_TIME"), rate, log=True, least=20, margin=2),
    Stat(
        "DNS_CLIENT",
        "query/s",
        "most DNS queries a second of one source: a tunnel",
        ("DNS_CLIENT", "SOURCE_TIME"),
        rate,
        log=True,
        least=10,
        margin=2,
    ),
    Stat(
        "ICMP",
        "packet/s",
        "ICMP messages a second, IPv4 and IPv6",
        ("ICMP", "ICMP6", "SOURCE_TIME"),
        both,
        least=10,
        margin=1.5,
    ),
)
