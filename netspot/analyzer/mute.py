"""What is counted but not told: rules of the configuration, and by command for a while."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from datetime import datetime, time
from typing import Any

from netspot.errors import ConfigError
from netspot.record import Record

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Rule(Record):
    """All conditions that are set must hold; times are local."""

    stat: str | None = None  # of all spans, unless it names one
    source: Network | None = None
    begin: time | None = None
    end: time | None = None  # before ``begin``: the next morning
    until_ns: int | None = None  # [ns since epoch]

    def about(self, stat: str) -> bool:
        return self.stat is None or self.stat in (stat, stat.partition("@")[0])

    def holds(self, stat: str, time_ns: int) -> bool:
        """Whether it is about ``stat`` now; the source is to be looked at too."""
        if not self.about(stat):
            return False
        if self.until_ns is not None and time_ns >= self.until_ns:
            return False
        if self.begin is None or self.end is None:
            return True
        now = datetime.fromtimestamp(time_ns / 1e9).time()  # a household lives by the local clock
        late = self.end <= self.begin
        return now >= self.begin or now < self.end if late else self.begin <= now < self.end

    def blames(self, addresses: Iterable[str]) -> bool:
        """Whether all of ``addresses``, at least one, lie in the source's prefix."""
        found = [ipaddress.ip_address(address) for address in addresses]
        return self.source is None or (bool(found) and all(address in self.source for address in found))


def rules(config: Iterable[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """The rules of ``mute`` in the configuration. Raises ConfigError."""
    return tuple(_rule(each) for each in config)


def _rule(given: Mapping[str, Any]) -> Rule:
    try:
        source = given.get("source")
        begin, _, end = (given.get("between") or "-").partition("-")
        until = given.get("until")
        return Rule(
            given.get("stat"),
            None if source is None else ipaddress.ip_network(source, strict=False),
            _clock(begin),
            _clock(end),
            None if until is None else int(datetime.fromisoformat(until).timestamp() * 1e9),
        )
    except ValueError as error:
        raise ConfigError(f"mute: {dict(given)}: {error}") from None


def _clock(text: str) -> time | None:
    return time.fromisoformat(text.strip().zfill(5)) if text.strip() else None
