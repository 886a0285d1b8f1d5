"""What a configuration has watched: statistics with their detectors, and the counters that they need."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from netspot.analyzer import Analyzer, Watch, watches
from netspot.analyzer import stats as statistics
from netspot.analyzer.evidence import Names
from netspot.analyzer.mute import rules
from netspot.analyzer.stats import PROFILES, Stat
from netspot.config import Config, located, node_name, place, raise_all, wrong_names
from netspot.errors import ConfigError, NetspotError
from netspot.miner import counters as counting
from netspot.miner.counters import WINDOW_COUNTERS, Counter, CounterBank
from netspot.miner.evidence import HeaderSample
from netspot.record import Record

log = logging.getLogger("netspot")

T = TypeVar("T")


class Watching(Record):
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
    """The statistics and counters that ``config`` may name. Raises ConfigError for all that is wrong with its own."""
    mistakes: list[str] = []
    found = _known(config, mistakes)
    raise_all(mistakes)
    return found


def mistakes(config: Config) -> list[str]:
    """What is wrong with the names, the expressions and the filter of ``config``: a line each, with its place."""
    found: list[str] = []
    _known(config, found)
    if config.miner.filter.strip():
        from netspot.miner.bpf import check_filter

        _attempt(config, found, check_filter, config.miner.filter)
    return found


def _known(config: Config, mistakes: list[str]) -> tuple[dict[str, Stat], dict[str, Counter]]:
    counters, stats = counting.known({}), statistics.known({}, ())  # netspot's own, and those of packages beside it
    mistakes += wrong_names(config, stats, {*counters, *WINDOW_COUNTERS, statistics.own.SECONDS})
    names = (*counters, *config.counters, *WINDOW_COUNTERS)
    for name, text in config.counters.items():
        counters |= _attempt(config, mistakes, counting.own.configured, {name: text}) or {}
    for name, given in config.stats.items():
        stats |= _attempt(config, mistakes, statistics.own.configured, {name: given}, names) or {}
    return stats, counters


def _attempt(config: Config, mistakes: list[str], call: Callable[..., T], *args: Any) -> T | None:
    """What ``call`` returns; None, and a mistake more for each line of an error, whose first word is an option."""
    try:
        return call(*args)
    except NetspotError as error:
        texts = str(error).splitlines()
        mistakes += [located(place(config, re.split("[ :]", text, maxsplit=1)[0]), text) for text in texts]
        return None


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
