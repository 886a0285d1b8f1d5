"""Instructions a packet: decoding and counting ring batches, reading a capture file; needs valgrind.

python -m tests.bench.decoder

Under valgrind numpy uses AVX2, not AVX-512. The figures are differences between two runs, so start-up is in none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from netspot.analyzer import watches
from netspot.analyzer.stats import PROFILES, STATS
from netspot.config import load
from netspot.miner.capfile import CaptureFile
from netspot.miner.counters import COUNTERS
from netspot.miner.decode import PAD, PRIVATE, decode
from netspot.packets import ACK, Frames
from netspot.pipeline import bank
from tests import frames as f
from tests.bench import traffic

ROWS, SLOT = 16_000, 256  # as many as a busy ring hands over, in its slots


def ring_batch() -> Frames:
    """Small TCP and UDP segments of many hosts and ports, one a slot."""
    rng = np.random.default_rng(1)
    frames = [f.eth(f.ip4(f.tcp(ACK))).ljust(60, b"\0"), f.eth(f.ip4(f.udp(b"x" * 18)))]
    slots = np.zeros((ROWS, SLOT), np.uint8)
    slots[:, :60] = np.array([np.frombuffer(frame, np.uint8) for frame in frames])[rng.integers(0, 2, ROWS)]
    slots[:, 29:38] = rng.integers(0, 255, (ROWS, 9))  # addresses and ports
    data = np.concatenate((slots.ravel(), np.zeros(PAD, np.uint8)))
    return Frames(data, np.arange(ROWS, dtype=np.int64) * SLOT, np.full(ROWS, 60, np.uint32), 1)


def work(kind: str, argument: str) -> None:
    """What is measured: so many batches, or a whole file."""
    if kind == "file":
        source = CaptureFile(argument)
        while source.read(1.0) is not None:
            pass
        return
    frames = ring_batch()
    counted = bank(watches(load(None), STATS, PROFILES[kind]), COUNTERS) if kind in PROFILES else None
    for _ in range(int(argument)):
        batch = decode(frames, np.zeros(ROWS, np.int64), frames.captured, PRIVATE, 0)
        if counted is not None:
            counted.add(batch)


def instructions(kind: str, argument: str, folder: Path) -> int:
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'callgrind'}"]
    command += [sys.executable, "-m", "tests.bench.decoder", kind, argument]
    one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # the others would wait in a loop
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread).stderr
    return next(int(line.split()[-1]) for line in text.splitlines() if "Collected" in line)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="netspot-bench-") as name:
        folder = Path(name)
        for kind, what in (("ring", "decode"), *((profile, f"decode and count for {profile}") for profile in PROFILES)):
            batches = instructions(kind, "24", folder) - instructions(kind, "4", folder)
            print(f"{what}, batches of {ROWS:,}: {batches / 20 / ROWS:,.0f} instructions a packet")
        for packets in (100_000, 200_000):
            traffic.write(folder / f"{packets}.pcap", packets)
        files = [instructions("file", str(folder / f"{packets}.pcap"), folder) for packets in (100_000, 200_000)]
        print(f"capture file, records found and decoded: {(files[1] - files[0]) / 100_000:,.0f} instructions a packet")


if __name__ == "__main__":
    work(*sys.argv[1:]) if len(sys.argv) > 1 else main()
