"""What a configuration has watched: statistics with their detectors, and the counters that they need."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netspot.analyzer import Analyzer, Watch, watches
from netspot.analyzer import stats as statistics
from netspot.analyzer.evidence import Names
from netspot.analyzer.mute import rules
from netspot.analyzer.stats import PROFILES, STATS, Stat
from netspot.config import Config, check_names, node_name
from netspot.errors import ConfigError
from netspot.miner import counters as counting
from netspot.miner.counters import COUNTERS, WINDOW_COUNTERS, Counter, CounterBank
from netspot.miner.evidence import HeaderSample

log = logging.getLogger("netspot")


@dataclass(frozen=True)
class Watching:
    """Replaced as a whole when a configuration asks for something else."""

    analyzer: Analyzer
    bank: CounterBank
    names: Names


def watching(
    config: Config, names: Names, states: Mapping[str, Any] | None = None, seq: int = 0, count_all: bool = False
) -> Watching:
    """Build what ``config`` asks for; detectors go on with their ``states`` where their settings are the same.

    ``seq``: of the last alarm that was told. ``count_all``: count more than the statistics need. Raises ConfigError.
    """
    stats, counters = known(config)
    chosen = watches(config, stats, config.analyzer.stats or (*PROFILES[config.analyzer.profile], *config.stats))
    capture = config.evidence.pcap and config.state.dir is not None
    analyzer = Analyzer(chosen, node_name(config), seq, mute=rules(config.mute), names=names, capture=capture)
    restored = analyzer.restore(states or {})
    if restored:
        log.info("%d of %d detectors go on with what they learned before", len(restored), len(states or ()))
    return Watching(analyzer, bank(chosen, counters, counters if count_all else ()), names)


def known(config: Config) -> tuple[dict[str, Stat], dict[str, Counter]]:
    """The statistics and counters that ``config`` may name. Raises ConfigError where it names another."""
    counters = counting.known(config.counters)
    stats = statistics.known(config.stats, (*counters, *counting.WINDOW_COUNTERS))
    theirs = {name for name in stats if name not in config.stats or name in STATS}
    check_names(config, theirs, {name for name in counters if name not in config.counters or name in COUNTERS})
    rules(config.mute)
    return stats, counters


def bank(chosen: Sequence[Watch], counters: Mapping[str, Counter], more: Iterable[str] = ()) -> CounterBank:
    """The counters that the statistics need, over one period and over longer spans, and ``more`` of them."""
    spans: dict[int, set[str]] = {}
    for watch in chosen:
        for need in watch.stat.needs:
            if need in counters:
                spans.setdefault(watch.span, set()).add(need)
            elif need not in WINDOW_COUNTERS:
                raise ConfigError(
                    f"statistic {watch.name}: it needs the counter {need}, and there is none (netspot ls)"
                )
    needed = {"PKTS", "BYTES"}.union(more, *spans.values())  # these two for health and summary
    longer = {span: names for span, names in sorted(spans.items()) if span > 1}
    return CounterBank((counter for name, counter in counters.items() if name in needed), longer, HeaderSample())


def same_watching(one: Config, other: Config) -> bool:
    """Whether both ask for the same statistics, detectors, counters and words."""
    names = ("node", "analyzer", "spot", "spot_stats", "counters", "stats", "mute", "evidence", "state")
    return all(getattr(one, name) == getattr(other, name) for name in names)
