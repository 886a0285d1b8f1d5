"""Quiet homes of another size than those that the default profile was chosen with, and one whose load jumps tenfold.

    python tests/bench/detection/loads.py

Prints the incidents of each: all of them are false. Seeds are for development.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from homes import events, lines, shared

HOUR_S = 3600
EPOCH = 1_700_000_000
HEADER = 24  # bytes of a pcap file before its first packet
HOMES = {  # name -> stretches of (hours, packets/s, seed)
    "30 packets/s": [(6, 30, 41)],
    "800 packets/s": [(2, 800, 42)],
    "30, then 300, 30, 300 packets/s": [(1, 30, 51), (3, 300, 51), (1, 30, 52), (2, 300, 53)],
}


def capture(path: Path, stretches: list[tuple[int, int, int]]) -> None:
    """The stretches behind one another, as one capture."""
    part, epoch, tool = path.with_suffix(".part"), EPOCH, shared() / "tools" / "homenet.py"
    with path.open("wb") as whole:
        for hours, pps, seed in stretches:
            options = {"--minutes": 60 * hours, "--pps": pps, "--seed": seed, "--epoch": epoch, "--out": part}
            words = [str(word) for pair in options.items() for word in pair]
            subprocess.run([sys.executable, tool, *words, "--attacks", "none"], check=True, capture_output=True)
            whole.write(part.read_bytes()[HEADER if epoch > EPOCH else 0 :])
            epoch += HOUR_S * hours
    part.unlink()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, stretches in HOMES.items():
            path = Path(folder, "home.pcap")
            capture(path, stretches)
            opened = [e for e in lines(events(path)) if e["kind"] == "incident" and e["event_type"] == "opened"]
            print(f"| {name} | {sum(hours for hours, _, _ in stretches)} h | {len(opened)} |", flush=True)
            for incident in opened:
                print(f"    {incident['time']} {incident['title']}")


if __name__ == "__main__":
    main()
