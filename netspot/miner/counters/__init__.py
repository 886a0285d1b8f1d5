"""What can be counted: one declaration a counter, in the file of its protocol."""

from __future__ import annotations

from collections.abc import Mapping

from netspot.miner.counters import arp, icmp, ip, link, own, tcp, udp
from netspot.miner.counters.base import Counter, CounterBank

COUNTERS: dict[str, Counter] = {
    counter.name: counter for module in (link, ip, tcp, udp, icmp, arp) for counter in module.COUNTERS
}

# What a window knows of itself, beside what was counted in it: name -> (unit, help).
WINDOW_COUNTERS: dict[str, tuple[str, str]] = {
    "SOURCE_TIME": ("ns", "time that the window covers"),
    "REAL_TIME": ("ns", "time that went by here since the window before it was closed"),
    "DROPPED": ("packet", "packets that the kernel lost before they could be counted"),
}


def known(expressions: Mapping[str, str]) -> dict[str, Counter]:
    """netspot's counters, those of other packages, and those of the configuration. Raises ConfigError."""
    return COUNTERS | own.plugged(COUNTERS) | own.configured(expressions)


__all__ = ["COUNTERS", "WINDOW_COUNTERS", "Counter", "CounterBank", "known"]
