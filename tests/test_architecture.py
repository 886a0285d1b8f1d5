"""Who may import whom: the parts know only what passes between them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VALUES = {"packets", "events", "snapshot", "errors", "commands", "config"}  # what passes between the parts
MAY_IMPORT = {  # part -> parts of netspot that it may know
    "packets": set(),
    "errors": set(),
    "terminal": {"errors"},
    "commands": set(),
    "events": set(),
    "snapshot": {"events"},
    "config": {"errors"},
    "notify": set(),
    "lean": set(),
    "record": set(),
    "spot": set(),
    "expressions": {"errors", "packets"},
    "plugins": set(),
    "state": {"errors", "spot"},
    "miner": VALUES | {"expressions", "plugins"},
    "analyzer": VALUES | {"spot", "expressions", "plugins"},
    "exporters": VALUES | {"plugins"},
    "fleet": VALUES | {"exporters", "terminal"},
    "web": VALUES,
    "report": VALUES | {"web"},
    "observe": VALUES | {"service"},  # a type only
    "health": VALUES | {"service"},
    "client": VALUES | {"fleet", "web"},
    "ctl": VALUES | {"client", "fleet", "terminal", "web"},
}
SEE_ALL = {"service", "pipeline", "control", "page", "cli", "listing", "demo", "__main__", "__init__"}


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imported(path: Path) -> set[str]:
    """The parts of netspot that the file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update([node.module] if node.module != "netspot" else [f"netspot.{a.name}" for a in node.names])
    return {part(name) for name in names if name.startswith("netspot.")}


FILES = sorted((ROOT / "netspot").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path: Path) -> None:
    own = path.relative_to(ROOT / "netspot").with_suffix("").parts[0]
    if own not in SEE_ALL:
        assert imported(path) - {own, "record", "__version__"} <= MAY_IMPORT[own]


def test_the_rules_name_only_what_exists() -> None:
    parts = {path.relative_to(ROOT / "netspot").with_suffix("").parts[0] for path in FILES}
    assert set(MAY_IMPORT) | SEE_ALL >= parts
