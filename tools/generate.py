"""Write what follows from declarations: the shipped configuration and its reference, man pages, completions.

    python tools/generate.py docs             etc/netspot.yaml and the tables of docs/configuration.md
    python tools/generate.py install PREFIX   man pages and completions below PREFIX/share, for the package

SOURCE_DATE_EPOCH sets the date of the man pages; without it they have none.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- options: made by tools/generate.py -->\n", "<!-- options end -->\n"
PROGRAMS = (("netspot", 8, "netspot.cli"), ("netspotctl", 1, "netspot.ctl"))  # name, section of the manual, module

sys.path.insert(0, str(ROOT))


def docs() -> None:
    from netspot.config.text import PACKAGED, defaults, reference

    _write(ROOT / "etc/netspot.yaml", defaults(PACKAGED))
    page = ROOT / "docs/configuration.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _write(page, before + BEGIN + "\n" + reference() + "\n" + END + rest.split(END)[1])


def install(prefix: Path) -> None:
    import commands
    import completions
    from manpages import manpage

    import netspot
    from netspot.config import text

    version, date = netspot.__version__, _date()
    os.environ["COLUMNS"] = "100"  # argparse wraps usage lines to the terminal
    _write(prefix / "share/man/man5/netspot.yaml.5", text.manpage(version, date))
    for name, section, module in PROGRAMS:
        command = commands.read(import_module(module).parser())
        settings = commands.settings() if name == "netspot" else []
        _write(prefix / f"share/man/man{section}/{name}.{section}", manpage(name, section, command, version, date))
        _write(prefix / f"share/bash-completion/completions/{name}", completions.bash(name, command, settings))
        _write(prefix / f"share/zsh/vendor-completions/_{name}", completions.zsh(name, command, settings))
        _write(prefix / f"share/fish/vendor_completions.d/{name}.fish", completions.fish(name, command, settings))


def _date() -> str:
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(seconds), UTC).date().isoformat() if seconds else ""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["docs"]:
            docs()
        case ["install", prefix]:
            install(Path(prefix))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
