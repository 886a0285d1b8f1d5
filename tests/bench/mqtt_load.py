"""What MQTT costs: many nodes on one broker, the latency of an alarm, the memory of one node.

usage: python -m tests.bench.mqtt_load nodes [--nodes 200] [--seconds 30]
       python -m tests.bench.mqtt_load latency [--alarms 1000]
       python -m tests.bench.mqtt_load memory
       python -m tests.bench.mqtt_load cpu
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from netspot.config import ConsoleConfig, ExporterConfig, HomeAssistantConfig, MqttConfig
from netspot.events import Sample
from netspot.exporters.base import Context, Message, StatInfo
from tests.bench.mqtt_node import alarm
from tests.broker import Broker, Listener, wait_for

STATS = tuple(StatInfo(f"STAT_{number}", "1", "a statistic") for number in range(10))
OFF = HomeAssistantConfig(discovery="off")


def sample(stat: str, value: float) -> Sample:
    return Sample(stat, time.time_ns(), value, "1", 1.0, None, "watching", 1000, 1000)


# -- 200 nodes -----------------------------------------------------------------------------------------------------


def some_nodes(port: int, first: int, count: int, seconds: float, alarms_per_s: float) -> None:
    """A process with ``count`` nodes: ten statistics a second each, told every second, and alarms now and then."""
    from netspot.exporters.mqtt import MqttExporter

    config = MqttConfig(host="127.0.0.1", port=port, stat_every_s=1.0, homeassistant=OFF)
    nodes = [f"node-{number:03}" for number in range(first, first + count)]
    exporters = [MqttExporter(config, Context(node, "eth0", "3.0.0", None, STATS, live=True)) for node in nodes]
    for exporter in exporters:
        exporter.start()
    rng, next_s, seq = random.Random(first), time.monotonic() + 2.0, 0
    end_s = next_s + seconds
    while time.monotonic() < end_s:
        for node, exporter in zip(nodes, exporters, strict=True):
            exporter.poll()
            if time.monotonic() >= next_s:
                for info in STATS:
                    event = sample(info.name, rng.random())
                    exporter.write(event, Message(event, node, "eth0"))
            if rng.random() < alarms_per_s * 0.05 / count:
                seq += 1
                told = alarm(seq)
                exporter.write(told, Message(told, node, "eth0"))
        next_s += 1.0 if time.monotonic() >= next_s else 0.0
        time.sleep(0.05)
    for exporter in exporters:
        wait_for(lambda exporter=exporter: exporter.poll() or not exporter.health()["spool"], 20)
        exporter.close()


def nodes(args: argparse.Namespace, folder: Path) -> None:
    broker = Broker(folder)
    (folder / "mosquitto.conf").write_text(
        (folder / "mosquitto.conf").read_text().replace("log_type all", "log_type error")
    )
    broker.start()
    listener = Listener(broker.port, "netspot/#")
    groups, context = 10, multiprocessing.get_context("spawn")
    each = args.nodes // groups
    rest = (args.seconds, 1.0)
    children = [context.Process(target=some_nodes, args=(broker.port, i * each, each, *rest)) for i in range(groups)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    time.sleep(0.5)
    cpu_s = broker_cpu_s(broker)
    listener.close()
    broker.kill()
    found = listener.messages
    alarms = [m for m in found if "/alarm/" in m["topic"]]
    late_ms = sorted((m["at"] - json.loads(m["payload"])["time_ns"] / 1e9) * 1e3 for m in alarms)
    span_s = found[-1]["at"] - found[0]["at"]
    online = {m["topic"] for m in found if m["topic"].endswith("/status") and m["payload"] == "online"}
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(online)} nodes, {len(found) / span_s:.0f} messages/s over {span_s:.0f} s; broker {cpu_s:.1f} CPU s")
    print(f"nodes {own.ru_utime + own.ru_stime:.1f} CPU s in all (start of Python included)")
    print(
        f"{len(alarms)} alarms: p50 {at(late_ms, 0.5):.1f} ms, p99 {at(late_ms, 0.99):.1f} ms, max {late_ms[-1]:.1f} ms"
    )


def broker_cpu_s(broker: Broker) -> float:
    assert broker.process
    fields = Path(f"/proc/{broker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


# -- latency of one alarm --------------------------------------------------------------------------------------------


def latency(args: argparse.Namespace, folder: Path) -> None:
    from netspot.exporters.mqtt import MqttExporter

    broker = Broker(folder).start()
    listener = Listener(broker.port, "netspot/+/alarm/+")
    config = MqttConfig(host="127.0.0.1", port=broker.port, homeassistant=OFF)
    exporter = MqttExporter(config, Context("pi", "eth0", "3.0.0", str(folder), STATS, live=True))
    exporter.start()
    wait_for(lambda: exporter.health()["connected"])
    calls_us = []
    for number in range(args.alarms):
        event = alarm(number)
        began = time.perf_counter()
        exporter.write(event, Message(event, "pi", "eth0"))
        calls_us.append((time.perf_counter() - began) * 1e6)
        until_s = time.monotonic() + 0.02
        while time.monotonic() < until_s:
            exporter.poll()
            time.sleep(0.005)
    wait_for(lambda: len(listener.messages) == args.alarms)
    late_ms = sorted((m["at"] - json.loads(m["payload"])["time_ns"] / 1e9) * 1e3 for m in listener.messages)
    exporter.close()
    listener.close()
    broker.kill()
    calls_us.sort()
    print(
        f"{args.alarms} alarms: p50 {at(late_ms, 0.5):.2f} ms, p99 {at(late_ms, 0.99):.2f} ms, max {late_ms[-1]:.2f} ms"
    )
    print(f"the call on the main loop: p50 {at(calls_us, 0.5):.0f} us, p99 {at(calls_us, 0.99):.0f} us")


# -- memory of one node's part -----------------------------------------------------------------------------------------


def memory(args: argparse.Namespace, folder: Path) -> None:
    for page in ("page", "no page"):
        (folder / page).mkdir()
        outage(folder / page, page)


def outage(folder: Path, page: str) -> None:
    broker = Broker(folder)
    command = [sys.executable, "-m", "tests.bench.mqtt_memory", str(folder), str(broker.port), page]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout
    for line in child.stdout:
        if line == "start\n":
            broker.start()
        else:
            print(line, end="")
    child.wait()
    broker.kill()


# -- cost of a window --------------------------------------------------------------------------------------------------


def cpu(args: argparse.Namespace, folder: Path) -> None:
    from netspot.exporters.fanout import Exporters

    broker = Broker(folder).start()
    stats = tuple(StatInfo(f"STAT_{number}", "1", "a statistic") for number in range(30))
    context = Context("pi", "eth0", "3.0.0", str(folder), stats, live=True)
    for every_s in (10.0, 0.0):
        mqtt = MqttConfig(host="127.0.0.1", port=broker.port, stat_every_s=every_s, homeassistant=OFF)
        exporters = Exporters(replace(ExporterConfig(), mqtt=mqtt, console=ConsoleConfig(alarm=False)), context)
        exporters.start()
        wait_for(lambda exporters=exporters: exporters.health()["mqtt"]["connected"])
        walls_us = []
        for window in range(300):
            events = [sample(info.name, window + 0.5) for info in stats]
            began = time.perf_counter()
            for event in events:
                exporters.write(event)
            exporters.poll()
            walls_us.append((time.perf_counter() - began) * 1e6)
            time.sleep(0.01)
        exporters.close()
        print(f"stat_every {every_s:g} s: a window of 30 samples takes {statistics.median(walls_us):.0f} us (median)")
    broker.kill()


def at(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["nodes", "latency", "memory", "cpu"])
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--alarms", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        globals()[args.what](args, Path(folder))


if __name__ == "__main__":
    main()
