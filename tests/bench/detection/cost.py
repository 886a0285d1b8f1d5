"""CPU and memory of the profile ``default`` beside those of ``classic``, on captures of three kinds.

    python tests/bench/detection/cost.py

A busy home (15,000 packets/s), a quiet one (175 packets/s, where the work per window counts), and a flood of 40,000
SYN/s from invented sources. The minimum of several runs in a process of their own; CPU of the whole program.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from homes import shared

RUNS = 3
CAPTURES = {  # name -> arguments of the generator
    "busy": ["--minutes", "2", "--pps", "20000", "--attacks", "none"],
    "quiet": ["--minutes", "60", "--attacks", "none"],
    "flood": ["--minutes", "30", "--scale", "20", "--attacks", "syn_flood"],
}


def run(capture: str, profile: str) -> None:
    """Run the pipeline once; prints CPU seconds, packets, windows and the greatest resident memory [KiB]."""
    from netspot.config import load
    from netspot.miner.capfile import CaptureFile
    from netspot.service import Service

    options = {"analyzer.profile": profile, "exporter.console.alarm": "false"}
    service = Service(load(None, overrides=list(options.items())), lambda _: CaptureFile(capture))
    begun = time.process_time()
    service.run()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([time.process_time() - begun, service.health._captured, memory]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs=2, metavar=("CAPTURE", "PROFILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(*args.run)
        return
    print("| capture | packets | classic [ns/packet] | default | ratio | memory: classic [MiB] | default |")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "home.pcap")
        for name, options in CAPTURES.items():
            tool = shared() / "tools" / "homenet.py"
            subprocess.run(
                [sys.executable, tool, *options, "--seed", "5", "--out", path], check=True, capture_output=True
            )
            best: dict[str, tuple[float, float]] = {}
            for profile in ("classic", "default") * RUNS:
                words = [sys.executable, __file__, "--run", str(path), profile]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                cpu, packets, memory = json.loads(done.stdout.splitlines()[-1])
                best[profile] = min(best.get(profile, (1e9, 0.0)), (cpu / packets * 1e9, memory / 1024))
            (classic, m1), (default, m2) = best["classic"], best["default"]
            times = f"{classic:.0f} | {default:.0f} | {default / classic:.2f}"
            print(f"| {name} | {packets:,} | {times} | {m1:.1f} | {m2:.1f} |", flush=True)


if __name__ == "__main__":
    main()
