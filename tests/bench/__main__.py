"""``make bench``: speed, memory and instructions of the whole program, beside tcpdump in the same run.

Figures are CPU seconds of whole processes (user and system, medians of RUNS), because the machine may be shared.
"""

from __future__ import annotations

import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.bench import decoder

RUNS = 5
PACKETS = 1_000_000
NETSPOT = [sys.executable, "-m", "netspot"]


class Cost(NamedTuple):
    cpu_s: float
    rss_mib: float


def cost(command: list[str]) -> Cost:
    """CPU and peak memory of one run of ``command``."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    text = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{text.decode()}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def make(what: str, path: Path, *numbers: int) -> str:
    """Write a capture in another process: what this one ever held would count as memory of its children."""
    command = [sys.executable, "-m", "tests.bench.traffic", what, str(path), *map(str, numbers)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def in_turn(*commands: list[str]) -> list[Cost]:
    """Medians of each command, run one after the other RUNS times."""
    rounds = [[cost(command) for command in commands] for _ in range(RUNS)]
    return [
        Cost(*(statistics.median(run[i][figure] for run in rounds) for figure in range(2)))
        for i in range(len(commands))
    ]


def capture_file(folder: Path, packets: int, *arguments: str) -> None:
    path = folder / f"{packets}.pcap"
    make("write", path, packets)
    # as root it would otherwise give /dev/null to the user tcpdump, for everybody
    peer = ["tcpdump", "-Z", "root", "-r", str(path), "-w", "/dev/null"]
    commands = [[*NETSPOT, "run", "-f", str(path), *arguments], [*NETSPOT, "run", "-f", str(folder / "none.pcap")]]
    if shutil.which("tcpdump"):
        commands.append(peer)
    costs = in_turn(*commands)
    print(f"capture file, {packets:,} packets of {path.stat().st_size / packets - 16:.0f} bytes {' '.join(arguments)}")
    for name, one in zip(("netspot run", "of which start-up", "tcpdump -w /dev/null"), costs, strict=False):
        print(
            f"  {name:22} {one.cpu_s:6.2f} s CPU  {packets / one.cpu_s / 1e6:6.2f} M packets/s  {one.rss_mib:5.1f} MiB"
        )
    print(f"  without start-up       {packets / (costs[0].cpu_s - costs[1].cpu_s) / 1e6:15.2f} M packets/s")
    path.unlink()


def flood(folder: Path) -> None:
    """Memory and estimates of two million SYNs from random sources, beside as many from forty."""
    few, many, counts = folder / "few.pcap", folder / "many.pcap", folder / "counts.csv"
    make("write_flood", few, 2 * PACKETS, 40)
    distinct = int(make("write_flood", many, 2 * PACKETS, 2 * PACKETS))
    quiet, flooded = in_turn([*NETSPOT, "run", "-f", str(few)], [*NETSPOT, "run", "-f", str(many)])
    print(f"spoofed flood, {2 * PACKETS:,} SYNs from {distinct:,} sources, beside as many from 40")
    print(f"  peak memory {flooded.rss_mib:.1f} MiB, beside {quiet.rss_mib:.1f}")
    subprocess.run([*NETSPOT, "run", "-f", str(many), "-p", "1d", "--counters", str(counts)], capture_output=True)
    with counts.open() as rows:
        estimate = sum(int(row["NB_UNIQ_SRC_ADDR"]) for row in csv.DictReader(rows))
    print(f"  distinct sources in one window, estimated: {estimate:,}, {estimate / distinct - 1:+.2%}")


def instructions(folder: Path) -> None:
    """Instructions a packet: the difference between runs of 200,000 and 100,000 packets, which no noise disturbs."""
    counts = []
    for packets in (100_000, 200_000):
        path = folder / "some.pcap"
        make("write", path, packets)
        out = folder / "callgrind"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *NETSPOT, "run", "-f", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        counts.append(next(int(line.split()[-1]) for line in text.splitlines() if "Collected" in line))
    print(f"instructions a packet, capture file, all statistics: {(counts[1] - counts[0]) / 100_000:,.0f}")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="netspot-bench-") as name:
        folder = Path(name)
        make("write", folder / "none.pcap", 0)
        print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors, medians of {RUNS}")
        capture_file(folder, PACKETS)
        capture_file(folder, PACKETS, "--analyzer.profile", "classic")
        if "--long" in sys.argv:
            capture_file(folder, 10 * PACKETS)
        flood(folder)
        if shutil.which("valgrind"):
            instructions(folder)
            decoder.main()


if __name__ == "__main__":
    main()
