"""CPU of reading live packets, at several rates, as a table. Needs root, tcpreplay and trafgen.

    python tests/bench/ring_speed.py [--counters] [--seconds 5] [--ring-mib 4] [--rates 0,1000,10000,100000,max,max2]

Two network namespaces, a veth pair; packets of 60 bytes from 5,000 sources; windows of one second are closed with
--counters, all of them counted. ``max`` is what trafgen reaches with one process, ``max2`` with two.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from netspot.lean import prepare

prepare()  # as the program does

from netspot.config import MinerConfig  # noqa: E402
from netspot.miner.devices import open_live  # noqa: E402
from netspot.packets import SYN  # noqa: E402
from tests import frames as f  # noqa: E402
from tests.netns import Namespace, veth  # noqa: E402

# to a station that is not there, so that nobody answers
TRAFGEN = "{ eth(da=02:00:00:00:00:99), ipv4(saddr=10.9.0.2, daddr=10.9.0.77), tcp(dp=80, syn), fill(0, 6) }"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counters", action="store_true")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--ring-mib", type=int, default=4)
    parser.add_argument("--backend", default="ring")
    parser.add_argument(
        "--stall-ms", type=float, default=0, help="sleep so long after each window, as a slow close would"
    )
    parser.add_argument("--rates", default="0,1000,10000,100000,max,max2")
    options = parser.parse_args()
    print(f"{'sent/s':>9} {'read/s':>9} {'CPU %':>6} {'ns/packet':>9} {'rows/batch':>10} {'dropped':>8} {'RSS MiB':>8}")
    with veth() as (near, far), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sent.pcap"
        path.write_bytes(f.pcap(frames()))
        for rate in options.rates.split(","):
            with near.entered():
                measure(far, rate, path, options)


def frames() -> list[bytes]:
    return [
        f.eth(f.ip4(f.tcp(SYN, b"x" * 6, dport=k % 1000), src=f"10.{k // 250}.{k % 250}.1"), dst="02:00:00:00:00:99")
        for k in range(5_000)
    ]


def measure(far: Namespace, rate: str, path: Path, options: argparse.Namespace) -> None:
    config = MinerConfig(device="veth0", ring_mib=options.ring_mib, backend=options.backend)
    source = open_live(config)
    windows = _windows() if options.counters else None
    seconds = options.seconds + 2
    if rate.startswith("max"):
        cores = rate.removeprefix("max") or "1"
        command = ("timeout", str(seconds), "trafgen", "-q", f"-P{cores}", "--dev", "veth0", TRAFGEN)
    else:
        command = (
            "timeout",
            str(seconds),
            "tcpreplay",
            "-q",
            "-K",
            "-i",
            "veth0",
            f"--pps={rate}",
            "--loop=0",
            str(path),
        )
    sender = far.start(*command) if rate != "0" else None
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:  # until the sender is at its rate
        source.read(0.1)
    sent = _received()
    packets = dropped = batches = 0
    cpu, begin = time.process_time(), time.monotonic()
    end_ns = (time.time_ns() // 10**9 + 1) * 10**9
    while time.monotonic() < begin + options.seconds:
        batch = source.read(max(0.0, (end_ns - time.time_ns()) / 1e9))
        packets, dropped, batches = packets + len(batch), dropped + batch.dropped, batches + 1
        if windows is not None:
            for _ in windows.push(batch):
                pass
        if batch.until_ns >= end_ns:
            end_ns += 10**9
            time.sleep(options.stall_ms / 1000)
    cpu, wall = time.process_time() - cpu, time.monotonic() - begin
    sent = _received() - sent
    source.close()
    if sender is not None:
        sender.wait()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = cpu / packets * 1e9 if packets else float("nan")
    rates = f"{sent / wall:9.0f} {packets / wall:9.0f} {100 * cpu / wall:6.2f} {each:9.0f}"
    print(f"{rates} {packets / batches:10.0f} {dropped:8d} {rss:8.1f}", flush=True)


def _windows():
    from netspot.miner.counters import COUNTERS, CounterBank
    from netspot.miner.windows import Windows

    return Windows(CounterBank(COUNTERS.values()), 10**9, time.time_ns())


def _received() -> int:
    """Frames that arrived at our end so far."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.split()[0] == "veth0:")


if __name__ == "__main__":
    main()
