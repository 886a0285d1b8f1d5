"""Draws docs/img/statistic.svg: one statistic of the demo's network, its threshold, and what left it.

python docs/picture.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from netspot.demo import write_capture

STAT = "R_SYN"
OUT = Path(__file__).parent / "img" / "statistic.svg"
WIDTH, HEIGHT, LEFT, BOTTOM = 880, 240, 44, 24
BACK, GRID, TEXT, LINE, LIMIT, ALARM = "#ffffff", "#e3e7ec", "#5b6775", "#1f6fb2", "#5b6775", "#c62f3b"


def samples() -> list[dict[str, float | None]]:
    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "demo.pcap"
        write_capture(capture, seed=1)
        command = [sys.executable, "-m", "netspot", "run", "-f", str(capture), "-s", STAT, "-v"]
        lines = subprocess.run(command, capture_output=True, check=True).stdout.splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == "stat"]


def main() -> None:
    rows = samples()[900:]  # the last minutes of learning, then the watch
    highest = max(row["value"] or 0 for row in rows) * 1.05

    def x(i: int) -> float:
        return LEFT + i * (WIDTH - LEFT - 8) / (len(rows) - 1)

    def y(value: float) -> float:
        return 8 + (HEIGHT - BOTTOM - 8) * (1 - min(value, highest) / highest)

    def path(name: str) -> str:
        points = [f"{x(i):.1f},{y(row[name]):.1f}" for i, row in enumerate(rows) if row[name] is not None]
        return "M" + "L".join(points)

    grid = "".join(
        f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - 8}" stroke="{GRID}"/>'
        f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in (0, 0.25, 0.5, 0.75, 1.0)
        if tick <= highest
    )
    dots = "".join(
        f'<circle cx="{x(i):.1f}" cy="{y(row["value"]):.1f}" r="3.2" fill="{ALARM}"/>'
        for i, row in enumerate(rows)
        if row["up"] is not None and row["value"] is not None and row["value"] > row["up"]
    )
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(
        f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"
 font-size="12" fill="{TEXT}"><title>{STAT}, its learned threshold, and an alarm</title>
<rect width="{WIDTH}" height="{HEIGHT}" fill="{BACK}"/>{grid}
<path d="{path("value")}" fill="none" stroke="{LINE}" stroke-width="1.1"/>
<path d="{path("up")}" fill="none" stroke="{LIMIT}" stroke-width="1.4" stroke-dasharray="6 4"/>{dots}
<text x="{LEFT}" y="{HEIGHT - 6}">{STAT}, one point a second</text>
<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">dashed: the threshold, learned; red: alarms</text>
</svg>
"""
    )


if __name__ == "__main__":
    main()
