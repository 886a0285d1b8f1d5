"""Statistics that are not netspot's own: from the configuration, and from other packages."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from netspot.analyzer.stats.base import LOG_RANGE, Compute, Stat
from netspot.errors import ConfigError
from netspot.expressions import arithmetic
from netspot.plugins import guarded, load
from netspot.record import replace

SECONDS = "seconds"  # the time that a window covers, as a name in expressions


def configured(stats: Mapping[str, Mapping[str, Any]], counters: Collection[str]) -> dict[str, Stat]:
    """``R_MQTT: {value: MQTT / TCP, unit: "1", range: [0, 1]}`` -> a statistic. Raises ConfigError."""
    return {name: _stat(name, given, {*counters, SECONDS}) for name, given in stats.items()}


def plugged(taken: Collection[str]) -> dict[str, Stat]:
    """Those under the entry point ``netspot.stats``."""
    found = load("netspot.stats", Stat, taken)
    return {
        name: replace(stat, compute=guarded(f"statistic {name}", _number(stat.compute), math.nan))
        for name, stat in found.items()
    }


def _number(compute: Compute) -> Compute:
    return lambda *counts: float(compute(*counts))


def _stat(name: str, given: Mapping[str, Any], counters: Collection[str]) -> Stat:
    log = given.get("transform") == "log1p"
    low, high = given.get("range") or (None, None)
    low = (0.0 if log else -math.inf) if low is None else low
    high = math.inf if high is None else high
    wrong = [] if not log or -1 < low < high else [f"stats.{name}.range = [{low:g}, {high:g}]: {LOG_RANGE}"]
    try:
        needs, compute = arithmetic(given["value"], f"stats.{name}.value", counters)
    except ConfigError as error:
        wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return Stat(
        name,
        given.get("unit") or "1",
        given.get("help") or given["value"],
        tuple("SOURCE_TIME" if need == SECONDS else need for need in needs),
        _timed(needs, compute) if SECONDS in needs else compute,
        (low, high),
        log=log,
    )


def _timed(needs: tuple[str, ...], compute: Any) -> Any:
    """``compute`` with the window's time in seconds where it comes in nanoseconds."""
    at = needs.index(SECONDS)
    return lambda *counts: compute(*counts[:at], counts[at] / 1e9, *counts[at + 1 :])
