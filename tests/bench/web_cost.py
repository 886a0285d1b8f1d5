"""What the page costs the service: CPU and memory without it, with nobody looking, and with a page open.

    python -m tests.bench.web_cost [SECONDS of each phase, default 40]

Real packets over a veth pair, the default statistics, Chromium as the reader (its own cost is not counted). Needs
root, and 'npm ci' in tests/web.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests import netns
from tests.test_web_live import Traffic

CONFIG = """\
node: bench
miner: {{device: veth0}}
spot: {{n_init: 50}}
state: {{dir: {folder}/state}}
web: {{listen: {listen}}}
"""
TICKS = os.sysconf("SC_CLK_TCK")
STAY = Path(__file__).parents[1] / "web" / "stay.mjs"


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def private_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.M)) / 1024


def phase(name: str, pid: int, seconds: float) -> None:
    begun_s, cpu = time.monotonic(), cpu_s(pid)
    time.sleep(seconds)
    share = (cpu_s(pid) - cpu) / (time.monotonic() - begun_s)
    print(f"{name:28} CPU {100 * share:5.2f} %   private memory {private_mib(pid):5.1f} MiB", flush=True)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 40.0
    with netns.veth() as (near, far), tempfile.TemporaryDirectory() as folder:
        near.ip("link", "set", "lo", "up")
        traffic = Traffic(far)
        try:
            for listen in ("null", '"127.0.0.1:11000"'):
                file = Path(folder) / "netspot.yaml"
                file.write_text(CONFIG.format(folder=folder, listen=listen))
                service = near.start(sys.executable, "-m", "netspot", "serve", "-c", str(file))
                try:
                    time.sleep(10)
                    pid = service.pid  # `ip netns exec` becomes its command
                    phase("no page" if listen == "null" else "a page, nobody looking", pid, seconds)
                    if listen != "null":
                        reader = near.start("node", str(STAY), "http://127.0.0.1:11000/", str(seconds + 4))
                        time.sleep(2)
                        phase("a page open", pid, seconds)
                        print(json.loads(reader.communicate()[0]))
                finally:
                    service.send_signal(signal.SIGTERM)
                    service.wait(15)
        finally:
            traffic.close()


if __name__ == "__main__":
    main()
