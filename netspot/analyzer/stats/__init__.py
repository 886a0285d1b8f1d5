"""What can be watched: one declaration a statistic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from netspot.analyzer.stats import classic, connections, datagrams, link, own
from netspot.analyzer.stats.base import Stat

STATS: dict[str, Stat] = {
    stat.name: stat for module in (classic, link, connections, datagrams) for stat in module.STATS
}

# The statistics of a profile, in the order in which a person reads them. The default one is chosen by measurement:
# docs/detection.md tells what each of its parts sees, and what was left out.
PROFILES: dict[str, tuple[str, ...]] = {
    "default": (
        "PACKETS", "UPLOAD@60", "UP_BYTES@60", "AVG_PKT_SIZE@10", "AVG_PKT_SIZE@60", "SOURCES", "BROADCAST",
        "ARP_REPLY", "ARP_REPLY@10", "ICMP", "FRAGMENTS", "RST", "UNANSWERED", "UNANSWERED@10", "SYN_IN@10",
        "SYN_IN@60", "FANOUT_PORTS", "FANOUT_PORTS@10", "FANOUT_PORTS@60", "FANOUT_HOSTS@10", "FANOUT_HOSTS@60",
        "SERVICE_CONNS", "SERVICE_CONNS@10", "SERVICE_CONNS@60", "UDP_PORTS", "DNS", "DNS@60", "DNS_CLIENT",
        "DNS_CLIENT@10", "DNS_CLIENT@60",
    ),
    "classic": tuple(stat.name for stat in classic.STATS),
}  # fmt: skip


def known(own_stats: Mapping[str, Mapping[str, Any]], counters: Collection[str]) -> dict[str, Stat]:
    """netspot's statistics, those of other packages, and those of the configuration. Raises ConfigError."""
    return STATS | own.plugged(STATS) | own.configured(own_stats, counters)


__all__ = ["PROFILES", "STATS", "Stat", "known"]
