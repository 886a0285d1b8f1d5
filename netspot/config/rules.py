"""The owner's own: what is muted, counters, statistics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from netspot.config.addresses import prefix
from netspot.config.kinds import LIST_ITEMS, Given, Kind, Parts, choice, every, mapping, stat_name, text, to_float

TIMES = re.compile(r"([01]?[0-9]|2[0-3]):[0-5][0-9]-(?:[01]?[0-9]|2[0-3]):[0-5][0-9]")
UNTIL = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?")


def mutes() -> Kind[tuple[Mapping[str, Any], ...]]:
    """Rules for what is counted but not told; each needs at least one condition."""
    rule = mapping(
        {
            "stat": stat_name(),
            "source": Kind("an address or a prefix", prefix),
            "between": text("HH:MM-HH:MM, in quotes", TIMES.pattern),
            "until": Kind("a time such as 2026-12-24T18:00", _until),
        },
        accepted="mappings with the keys stat, source, between, until",
    )

    def one(given: Given) -> dict[str, Any]:
        value = rule.parse(given)
        if not value:
            raise Parts([(given.where, "a rule without any condition would mute everything")])
        return value

    def parse(given: Given) -> tuple[Mapping[str, Any], ...]:
        if given.tag == "null":
            return ()
        if given.tag != "seq" or len(given.value) > LIST_ITEMS:
            raise ValueError
        return tuple(every((Kind(rule.accepted, one), item, "") for item in given.value))

    return Kind(f"a list of {rule.accepted}", parse, list)


def _until(given: Given) -> str:
    value = given.text()
    if not UNTIL.fullmatch(value):
        raise ValueError
    try:
        datetime.fromisoformat(value).timestamp()  # which says what no calendar or clock has
    except OverflowError as error:  # of a processor with 32 bits
        raise ValueError(str(error)) from None
    return value


def _range(given: Given) -> tuple[float | None, float | None]:
    if given.tag != "seq" or len(given.value) != 2:
        raise ValueError
    low, high = (None if end.tag == "null" else to_float(end.text()) for end in given.value)
    if low is not None and high is not None and not low < high:
        raise ValueError("the second number must be greater")
    return low, high


own_counter = text("an expression over header columns")

own_stat = mapping(
    {
        "value": text("an expression over counters"),
        "unit": text("a unit"),
        "help": text("a line of text"),
        "range": Kind("[lowest, highest], null where there is no end", _range, list),
        "transform": choice("none", "log1p"),
    },
    needed=("value",),
)
