"""Real attacks, pasted onto a synthetic home: which are seen, after how many windows, under which title.

    python tests/bench/detection/real.py

Each ``captures/attack_*`` of the shared folder (see homes.py) is moved to the 25th minute of a quiet half hour and run
through ``netspot run -f`` with the default configuration. Prints the rows of the table in docs/detection.md.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from homes import events, lines, shared
from numpy.typing import NDArray

from netspot.miner.capfile import CaptureFile

BEGIN_S = 1500.3


class Packets(NamedTuple):
    ts_ns: NDArray[np.int64]
    wire_len: NDArray[np.uint32]
    frames: list[bytes]


def read(path: Path) -> Packets:
    source = CaptureFile(str(path))
    ts_ns, wire_len, frames = [], [], []
    while (batch := source.read(0)) is not None:
        ts_ns.append(batch.ts_ns.copy())
        wire_len.append(batch.wire_len.copy())
        rows = zip(batch.frames.start.tolist(), batch.frames.captured.tolist(), strict=True)
        frames += [batch.frames.data[begin : begin + size].tobytes() for begin, size in rows]
    source.close()
    return Packets(np.concatenate(ts_ns), np.concatenate(wire_len), frames)


def paste(quiet: Packets, attack: Packets, path: Path) -> tuple[int, int]:
    """Write both into one capture; returns when the attack begins and ends there [ns since epoch]."""
    begin = int(quiet.ts_ns.min() + BEGIN_S * 1e9)
    moved = attack.ts_ns - attack.ts_ns.min() + begin
    times = np.concatenate([quiet.ts_ns, moved])
    wire_len = np.concatenate([quiet.wire_len, attack.wire_len]).tolist()
    frames, last = quiet.frames + attack.frames, int(quiet.ts_ns.max())
    end = min(int(moved.max()), last)
    order = np.argsort(times, kind="stable")
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        for i, ns in zip(order.tolist(), times[order].tolist(), strict=True):
            if ns <= last:
                head = struct.pack("<IIII", ns // 10**9, ns % 10**9, len(frames[i]), wire_len[i])
                file.write(head + frames[i])
    return begin, end


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tool, quiet = shared() / "tools" / "homenet.py", folder / "quiet.pcap"
        arguments = ["--seed", "40", "--minutes", "32", "--attacks", "none", "--out", str(quiet)]
        subprocess.run([sys.executable, str(tool), *arguments], check=True, capture_output=True)
        background = read(quiet)
        print("| capture | packets | lasts | seen after | statistics | title |\n|---|---|---|---|---|---|")
        for path in sorted((shared() / "captures").glob("attack_*")):
            attack = read(path)
            begin, end = paste(background, attack, folder / "pasted.pcap")
            told = lines(events(folder / "pasted.pcap"))
            during = [line for line in told if begin < line["time_ns"] <= end + 60 * 10**9]
            alarms = [e for e in during if e["kind"] == "alarm" and e["event_type"] == "up"]
            after = f"{-(-(alarms[0]['time_ns'] - begin) // 10**9)} windows" if alarms else "not seen"
            title = next((i["title"] for i in reversed(during) if i["kind"] == "incident"), "")
            stats = " ".join(dict.fromkeys(alarm["stat"] for alarm in alarms))
            lasts = f"{(attack.ts_ns.max() - attack.ts_ns.min()) / 1e9:.1f} s"
            name = path.stem.removeprefix("attack_")
            print(
                f"| {name} | {len(attack.frames)} | {lasts} | {after} | {stats} | {json.dumps(title)[1:-1]} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
