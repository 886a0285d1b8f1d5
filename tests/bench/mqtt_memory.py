"""Memory of one node's MQTT part over an hour of simulated alarms without a broker; started by ``mqtt_load memory``.

Imports nothing but the program itself: what a test framework has loaded would make the figure look better. With
``page`` as third argument the status page is loaded before, as in the service: TLS and HTTP are there already then.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from netspot.config import ConsoleConfig, ExporterConfig, MqttConfig
from netspot.events import Alarm, Sample
from netspot.exporters.base import Context, StatInfo
from netspot.exporters.fanout import Exporters

STATS = tuple(f"STAT_{number}" for number in range(10))


def rss_mib() -> float:
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(row for row in rows if row.startswith("Rss:")).split()[1]) / 1024


def write_second(exporters: Exporters, number: int) -> None:
    now_ns = time.time_ns()
    evidence = {"top_src": [["192.168.1.23", 0.94]], "ports": list(range(20))}
    exporters.write(Alarm("STAT_0", now_ns, 0.7, "up", 0.1, 1e-7, "pi-6f2c", number, "high", evidence=evidence))
    for stat in STATS:
        exporters.write(Sample(stat, now_ns, float(number), "1", 1.0, None, "watching", 1000, 1000))
    exporters.poll()


def main(folder: str, port: int, page: bool) -> None:
    context = Context("pi", "eth0", "3.0.0", folder, tuple(StatInfo(s, "1", "a statistic") for s in STATS), live=True)
    np.zeros(10)
    if page:
        import netspot.service
        import netspot.web.server

        assert netspot.service and netspot.web.server
    before = rss_mib()
    mqtt = MqttConfig(host="127.0.0.1", port=port)
    exporters = Exporters(replace(ExporterConfig(), mqtt=mqtt, console=ConsoleConfig(alarm=False)), context)
    exporters.start()
    kind = "with the page" if page else "without a page"
    print(f"program {kind} {before:.1f} MiB; MQTT loaded and started +{rss_mib() - before:.1f} MiB")
    for number in range(3601):
        if number % 900 == 0:
            waiting = exporters.health()["mqtt"]["spool"]
            print(f"{number // 60} min without a broker, {waiting} alarms wait: +{rss_mib() - before:.1f} MiB")
        write_second(exporters, number)
    print("start", flush=True)
    while exporters.health()["mqtt"]["spool"]:
        exporters.poll()
        time.sleep(0.01)
    print(f"broker there, all sent: +{rss_mib() - before:.1f} MiB", flush=True)
    exporters.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["page"])
