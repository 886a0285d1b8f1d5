"""Counters that are not netspot's own: from the configuration, and from other packages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

import numpy as np

from netspot.expressions import condition
from netspot.miner.counters.base import Accumulator, Counter, packets
from netspot.packets import PacketBatch
from netspot.plugins import guarded, load
from netspot.record import replace

log = logging.getLogger("netspot.plugins")


def configured(expressions: Mapping[str, str]) -> dict[str, Counter]:
    """``MQTT: tcp and dport == 1883`` -> the packets for which that holds. Raises ConfigError."""
    return {
        name: packets(name, f"packets with {text}", condition(text, f"counters.{name}"))
        for name, text in expressions.items()
    }


def plugged(taken: Collection[str]) -> dict[str, Counter]:
    """Those under the entry point ``netspot.counters``."""
    found = load("netspot.counters", Counter, taken)
    return {name: replace(counter, accumulator=_guard(counter)) for name, counter in found.items() if _counts(counter)}


def _counts(counter: Counter) -> bool:
    """Whether it makes an accumulator; otherwise a warning."""
    try:
        _Guarded(counter.name, counter.accumulator())
    except Exception as error:  # whatever goes wrong in somebody else's code
        log.warning("counter %s is left out, it makes no accumulator: %r", counter.name, error)
        return False
    return True


def _guard(counter: Counter) -> Callable[[], Accumulator]:
    nothing = packets(counter.name, "", lambda batch: np.zeros(len(batch), bool)).accumulator()
    make = guarded(f"counter {counter.name}", counter.accumulator, nothing)
    return lambda: _Guarded(counter.name, make())


class _Guarded(Accumulator):
    """An accumulator of somebody else's: when it fails, its counter is 0 for that window."""

    def __init__(self, name: str, inner: Accumulator) -> None:
        self._inner = inner
        self._add = guarded(f"counter {name}", inner.add, None)
        self._value = guarded(f"counter {name}", lambda: float(inner.value()), 0.0)
        self._merge = guarded(f"counter {name}", inner.merge, None)
        self._clear = guarded(f"counter {name}", inner.clear, None)
        self._top = guarded(f"top of counter {name}", lambda: int(inner.top() or 0) or None, None)

    def add(self, batch: PacketBatch) -> None:
        self._add(batch)

    def value(self) -> float:
        return self._value()

    def merge(self, other: _Guarded) -> None:
        self._merge(other._inner)

    def clear(self) -> None:
        self._clear()

    def top(self) -> int | None:
        return self._top()
