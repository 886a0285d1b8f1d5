"""Statistics of connections: who begins them, how many, and whether anybody answers."""

from __future__ import annotations

from netspot.analyzer.stats.base import TIE, Stat, number, rate, ratio


def surplus(begun: float, answered: float, source_time_ns: float) -> float:
    """How many more a second were begun than answered."""
    return rate(max(begun - answered, 0), source_time_ns)


STATS: tuple[Stat, ...] = (
    Stat(
        "SYN_ONLY",
        "connection/s",
        "TCP connections begun a second (SYN without ACK)",
        ("SYN_ONLY", "SOURCE_TIME"),
        rate,
        log=True,
        least=20,
        margin=2,
    ),
    Stat(
        "SYN_IN",
        "connection/s",
        "TCP connections a second that somebody outside begins with home",
        ("SYN_IN", "SOURCE_TIME"),
        rate,
        least=3,
        margin=1.5,
    ),
    Stat(
        "UNANSWERED",
        "connection/s",
        "TCP connections begun and not answered a second: scans, sweeps, floods",
        ("SYN_ONLY", "SYN_ACK", "SOURCE_TIME"),
        surplus,
        least=5,
        margin=1.5 * TIE,
    ),
    Stat("R_ANSWERED", "1", "share of TCP connections begun that are answered", ("SYN_ACK", "SYN_ONLY"), ratio),
    Stat(
        "RST",
        "segment/s",
        "TCP connections refused or broken off a second",
        ("RST", "SOURCE_TIME"),
        rate,
        least=10,
        margin=1.5,
    ),
    Stat("FIN", "segment/s", "TCP ends a second", ("FIN", "SOURCE_TIME"), rate, log=True, least=20, margin=2),
    Stat(
        "FANOUT_PORTS",
        "port",
        "most TCP ports that one source tries to reach: a port scan",
        ("FANOUT_PORTS",),
        number,
        least=12,
        margin=1.5,
    ),
    Stat(
        "FANOUT_HOSTS",
        "host",
        "most hosts that one source tries to reach by TCP: a sweep",
        ("FANOUT_HOSTS",),
        number,
        log=True,
        least=25,
        margin=2,
    ),
    Stat(
        "SERVICE_CONNS",
        "connection",
        "most TCP connections begun with one port of one host: a flood, guessed passwords",
        ("SERVICE_CONNS",),
        number,
        least=12,
        margin=2 * TIE,
    ),
    Stat(
        "FLOWS",
        "flow",
        "distinct flows: addresses, ports and protocol",
        ("FLOWS",),
        number,
        log=True,
        least=50,
        margin=2,
    ),
)
