"""CPU, loss and memory of the whole service on an interface, at several rates. Needs root, tcpreplay, trafgen and
mosquitto.

    python tests/bench/live.py [--seconds 10] [--profile default] [--rates 0,1000,10000,100000,max]

Two network namespaces, a veth pair: ``netspot serve`` and a mosquitto that it publishes to in the one, the sender of
frames of 60 bytes in the other; the page is on, windows of one second. ``max`` is what trafgen reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import frames as f
from tests.bench.ring_speed import TRAFGEN, frames
from tests.broker import Broker
from tests.netns import Namespace, veth

CONFIG = """
miner: {device: veth0, ring_mib: RING_MIB}
analyzer: {profile: PROFILE}
exporter: {console: {alarm: false}, mqtt: {host: 127.0.0.1, port: PORT}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--profile", default="default")
    parser.add_argument("--ring-mib", type=int, default=4)
    parser.add_argument("--rates", default="0,1000,10000,100000,max")
    options = parser.parse_args()
    with veth() as (near, far), tempfile.TemporaryDirectory(prefix="netspot-bench-") as name:
        folder = Path(name)
        near.ip("link", "set", "lo", "up")
        (folder / "sent.pcap").write_bytes(f.pcap(frames()))
        broker = Broker(folder, inside=("ip", "netns", "exec", near.name)).start()
        text = CONFIG.replace("PORT", str(broker.port)).replace("PROFILE", options.profile)
        (folder / "netspot.yaml").write_text(text.replace("RING_MIB", str(options.ring_mib)))
        program = near.start(sys.executable, "-m", "netspot", "serve", "-c", str(folder / "netspot.yaml"))
        try:
            captured(near, program)
            print(f"load average {os.getloadavg()[0]:.1f}; profile {options.profile}, ring of {options.ring_mib} MiB")
            print(f"{'packets/s':>9} {'CPU %':>6} {'ns/packet':>9} {'packets':>10} {'dropped':>8} {'RSS MiB':>8}")
            for rate in options.rates.split(","):
                measure(near, far, program, rate, options.seconds, folder / "sent.pcap")
        finally:
            program.terminate()
            print(program.communicate()[0], end="")
            broker.kill()


def measure(
    near: Namespace, far: Namespace, program: subprocess.Popen[str], rate: str, seconds: float, path: Path
) -> None:
    """One line of the table: from before the sender starts until all that it sent has been counted."""
    limit = ("timeout", str(seconds))
    if rate == "0":
        command: tuple[str, ...] = ("sleep", str(seconds))
    elif rate == "max":
        command = (*limit, "trafgen", "-q", "-P1", "--dev", "veth0", TRAFGEN)
    else:
        command = (*limit, "tcpreplay", "-q", "-K", "-i", "veth0", f"--pps={rate}", "--loop=0", str(path))
    before, cpu, begin = captured(near, program), cpu_s(program), time.monotonic()
    far.start(*command).wait()
    wall = time.monotonic() - begin
    time.sleep(2.1)  # until the last window is closed and told
    cpu, after = cpu_s(program) - cpu, captured(near, program)
    packets, dropped = (after[key] - before[key] for key in ("captured", "dropped"))
    each = cpu / packets * 1e9 if packets else float("nan")
    rss = next(int(row.split()[1]) for row in status(program) if row.startswith("VmRSS")) / 1024
    print(f"{packets / wall:9.0f} {100 * cpu / wall:6.2f} {each:9.0f} {packets:10} {dropped:8} {rss:8.1f}", flush=True)


def captured(near: Namespace, program: subprocess.Popen[str]) -> dict[str, Any]:
    """What the program says of its health, once it answers."""
    until = time.monotonic() + 20
    while time.monotonic() < until and program.poll() is None:
        try:
            with near.entered(), urllib.request.urlopen("http://127.0.0.1:11000/api/health", timeout=5) as answer:
                health: dict[str, Any] = json.load(answer)
            if "captured" in health:
                return health
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("netspot does not answer")


def cpu_s(program: subprocess.Popen[str]) -> float:
    fields = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status(program: subprocess.Popen[str]) -> list[str]:
    return Path(f"/proc/{program.pid}/status").read_text().splitlines()


if __name__ == "__main__":
    main()
