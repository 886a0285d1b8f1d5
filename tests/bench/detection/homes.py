"""How many attacks are seen and how often a quiet home is disturbed, on synthetic homes.

    python tests/bench/detection/homes.py --seeds 1 2 3                 # three seeds: 33 attacks, 18 h of quiet
    python tests/bench/detection/homes.py --seeds 1 --minutes 60        # quick: one hour of quiet instead of six

For each seed: an hour with 11 attacks at full and at a quarter of the intensity, and hours without any, each run
through ``netspot run -f`` with the default configuration. Prints the rows of the table in docs/detection.md. Seeds
below 100 are for development. The generator and the scorer are no part of the project: NETSPOT_SHARED, or the folder
``shared`` beside the checkout, has them in ``tools``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ATTACKER, VICTIM, INSIDER, GATEWAY = "45.77.77.7", "192.168.1.12", "192.168.1.15", "192.168.1.1"
# Who did it, or whom it was done to: a title is right that names one of them.
PARTIES = {
    "arp_spoof": {"02:00:00:00:00:0f", GATEWAY},
    "exfil_upload": {INSIDER},
    "dns_tunnel": {INSIDER},
    "host_sweep": {INSIDER},
    "syn_flood": {VICTIM},
    "dns_amplification": {VICTIM},
}


def shared() -> Path:
    beside = Path(__file__).resolve().parents[3].parent / "shared"
    return Path(os.environ.get("NETSPOT_SHARED", beside))


def scorer() -> Any:
    spec = importlib.util.spec_from_file_location("score", shared() / "tools" / "score.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def events(capture: Path, *options: str) -> Path:
    """Run the program on ``capture``; returns its file of alarms and incidents."""
    told = capture.with_suffix(".jsonl")
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "netspot", "run", "-f", str(capture), "--exporter.file.alarm", str(told)]
    done = subprocess.run(
        [*command, "--exporter.console.alarm", "false", "--exporter.file.rotate_mib", "1000", *options],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{capture}: {done.stderr}")
    told.touch()
    return told


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def home(folder: Path, seed: int, minutes: float, *options: str) -> tuple[Mapping[str, Any], Path]:
    """(labels, alarms) of a synthetic home; its capture is removed again."""
    capture, labels = folder / "home.pcap", folder / "home.json"
    tool = shared() / "tools" / "homenet.py"
    arguments = [
        "--seed",
        str(seed),
        "--minutes",
        str(minutes),
        "--out",
        str(capture),
        "--labels",
        str(labels),
        *options,
    ]
    subprocess.run([sys.executable, str(tool), *arguments], check=True, capture_output=True)
    told = events(capture)
    capture.unlink()
    return json.loads(labels.read_text()), told


def title_of(attack: Mapping[str, Any], incidents: Iterable[Mapping[str, Any]]) -> str:
    """What the title of the incident that told of an attack says in the end, without what it had said before."""
    incidents = list(incidents)
    before = {part for i in incidents if i["time_ns"] / 1e9 <= attack["start_epoch"] for part in i["title"].split("; ")}
    during = [i for i in incidents if attack["start_epoch"] < i["time_ns"] / 1e9 <= attack["end_epoch"] + 90]
    ids = [i["id"] for i in during if i["event_type"] != "closed"]
    last = next((str(i["title"]) for i in reversed(during) if ids and i["id"] == ids[0]), "")
    return "; ".join(part for part in last.split("; ") if part and part not in before)


def measure(seeds: list[int], minutes: float, folder: Path) -> None:
    score = scorer().score
    for name, options in (("full", ()), ("quarter", ("--scale", "0.25"))):
        delays: dict[str, list[str]] = {}
        seen = fast = named = total = 0
        titles: dict[str, str] = {}
        for seed in seeds:
            labels, told = home(folder, seed, 60, *options)
            found = score(labels, scorer().alarms(told), 3.0, 10.0, 10.0, 1000.0)[0]
            incidents = [line for line in lines(told) if line["kind"] == "incident"]
            for attack in labels["attacks"]:
                kind, delay = attack["name"], found[attack["name"]]
                text = title_of(attack, incidents)
                right = any(party in text for party in PARTIES.get(kind, {ATTACKER, VICTIM}))
                delays.setdefault(kind, []).append("-" if delay is None else f"{delay:.0f}s" + ("" if right else "?"))
                titles[kind] = text or titles.get(kind, "")
                seen, fast, total = seen + (delay is not None), fast + (delay is not None and delay <= 3), total + 1
                named += right and delay is not None
        print(
            f"\n{name}: {seen} of {total} seen, {fast} within two windows, {named} titles name a party; seeds {seeds}"
        )
        for kind, row in delays.items():
            print(f"| {kind} | {' '.join(row)} | {titles[kind]} |", flush=True)
    false, days = 0, 0.0
    for seed in seeds[:3]:
        labels, told = home(folder, seed, minutes, "--attacks", "none")
        _, _, count, span = score(labels, scorer().alarms(told), 3.0, 10.0, 10.0, 1000.0)
        false, days = false + count, days + span
        wrong = [line for line in lines(told) if line["kind"] == "incident" and line["event_type"] == "opened"]
        for incident in wrong:
            print(f"  false: seed {seed}, {incident['time']}: {incident['title']}")
    print(f"\nquiet: {false} false events in {days:.2f} days: {false / days:.1f} a day; seeds {seeds[:3]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=360, help="length of each quiet capture")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(args.seeds, args.minutes, Path(folder))


if __name__ == "__main__":
    main()
