"""``netspot ls`` and ``netspot devices``: what can be watched, and where, as a table or as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netspot.config import Config

WIDTH = 110


def listing(config: Config, as_json: bool) -> str:
    """Statistics with units and text, counters, exporters; those of the configuration and of other packages too."""
    from netspot.analyzer.stats import PROFILES
    from netspot.exporters.registry import EXPORTERS
    from netspot.miner.counters import WINDOW_COUNTERS
    from netspot.pipeline import known

    stats, declared = known(config)
    counters = {name: (counter.unit, counter.help) for name, counter in declared.items()} | WINDOW_COUNTERS
    if as_json:
        return json.dumps(
            {
                "stats": [{"name": s.name, "unit": s.unit, "help": s.help, "needs": s.needs} for s in stats.values()],
                "profiles": PROFILES,
                "counters": [{"name": n, "unit": unit, "help": help} for n, (unit, help) in counters.items()],
                "exporters": list(EXPORTERS),
            },
            indent=2,
        )
    return "\n".join(
        [
            "Statistics (watch some of them with: netspot run -s NAME ...)",
            *_table((s.name, s.unit, s.help) for s in stats.values()),
            "",
            "Profiles (analyzer.profile)",
            *_table((name, "", " ".join(names)) for name, names in PROFILES.items()),
            "",
            "Counters (netspot run --counters FILE.csv writes them, a row a window)",
            *_table((name, unit, help) for name, (unit, help) in counters.items()),
            "",
            "Exporters: " + ", ".join(EXPORTERS),
        ]
    )


def devices(as_json: bool) -> str:
    """The interfaces of this machine."""
    rows = interfaces()
    if as_json:
        return json.dumps(rows, indent=2)
    return "\n".join(_table((row["name"], row["state"], _device_text(row)) for row in rows))


def interfaces() -> list[dict[str, Any]]:
    """Each interface as a JSON object."""
    from netspot.miner.devices import devices

    return [vars(device) | {"state": device.state, "kind": device.kind} for device in devices()]


def _device_text(row: dict[str, Any]) -> str:
    default = ["(default route)"] if row["default_route"] else []
    return " ".join([row["kind"], *row["addresses"], *default])


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as they need to be; the last one is wrapped."""
    cells = list(rows)
    widths = [max((len(row[i]) for row in cells), default=0) for i in range(2)]
    indent = " " * (sum(widths) + 6)
    return [
        textwrap.fill(
            f"  {first:{widths[0]}}  {second:{widths[1]}}  {text}",
            WIDTH,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        for first, second, text in cells
    ]
