"""What can be watched: one declaration a statistic."""

from __future__ import annotations

from netspot.analyzer.stats import classic
from netspot.analyzer.stats.base import Stat

STATS: dict[str, Stat] = {stat.name: stat for module in (classic,) for stat in module.STATS}

# The statistics of a profile, in the order in which a person reads them.
PROFILES: dict[str, tuple[str, ...]] = {
    "default": tuple(stat.name for stat in classic.STATS),
    "classic": tuple(stat.name for stat in classic.STATS),
}

__all__ = ["PROFILES", "STATS", "Stat"]
