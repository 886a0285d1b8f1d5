"""Write what follows from declarations: the shipped configuration and its reference, man pages, completions.

python tools/generate.py docs           etc/netspot.yaml and the tables of docs/configuration.md
python tools/generate.py build FOLDER   netspot.8 netspotctl.1 netspot.yaml.5 and completions, for the package
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- options: made by tools/generate.py -->\n", "<!-- options end -->\n"

sys.path.insert(0, str(ROOT))


def docs() -> None:
    from netspot.config.text import PACKAGED, defaults, reference

    (ROOT / "etc/netspot.yaml").write_text(defaults(PACKAGED), encoding="utf-8")
    page = ROOT / "docs/configuration.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(before + BEGIN + "\n" + reference() + "\n" + END + after, encoding="utf-8")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["docs"]:
            docs()
        case ["build", folder]:
            from pages import build

            build(Path(folder))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
