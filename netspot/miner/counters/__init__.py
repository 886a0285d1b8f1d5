"""What can be counted: one declaration a counter, in the file of its protocol."""

from __future__ import annotations

from netspot.miner.counters import arp, icmp, ip, link, tcp, udp
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

__all__ = ["COUNTERS", "WINDOW_COUNTERS", "Counter", "CounterBank"]
