"""Numbered alarms through every fault that we could think of: none may be missing, and they stay in order.

usage: python -m tests.bench.mqtt_faults [--alarms 1000] [FAULT ...]     prints a table in Markdown; needs root
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from netspot.config import MqttConfig
from netspot.exporters import client as paho_client
from tests.broker import Broker, Listener, wait_for
from tests.netns import veth

ROOT = Path(__file__).resolve().parents[2]
TOPIC = "netspot/pi/alarm/R_SYN"


class Steady:
    """A reader that is back 20 ms after its broker."""

    def __init__(self, config: MqttConfig) -> None:
        self.seqs: list[int] = []
        self.subscribed = threading.Event()
        self._config = config
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            client = paho_client.new_client(self._config, "reader", False, None)
            client.on_connect = lambda client, *rest: client.subscribe("netspot/pi/alarm/+", 1)
            client.on_subscribe = lambda *args: self.subscribed.set()
            client.on_message = lambda client, userdata, message: self.seqs.append(json.loads(message.payload)["seq"])
            with suppress(OSError):
                paho_client.connect(client, self._config, False)
                while not self._stop and client.loop(0.05) == 0:
                    pass
            time.sleep(0.02)

    def close(self) -> None:
        self._stop = True
        self._thread.join()


@dataclass
class Bench:
    """A broker, a reader and a node; a fault does something to them while the node tells ``alarms``."""

    folder: Path
    broker: Broker
    alarms: int
    seconds: float  # in which the alarms are told
    mqtt: dict[str, Any] = field(default_factory=dict)
    inside: tuple[str, ...] = ()  # the node's network
    node: subprocess.Popen[bytes] | None = None
    told: int = -1  # newest number that the node has taken charge of
    reader: Any = None

    def start_node(self) -> None:
        settings = {
            "mqtt": {"host": "127.0.0.1", "port": self.broker.port, "keepalive_s": 5.0} | self.mqtt,
            "state_dir": str(self.folder / "state"), "first": self.told + 1, "last": self.alarms,
            "per_s": self.alarms / self.seconds,
        }  # fmt: skip
        command = [*self.inside, sys.executable, "-m", "tests.bench.mqtt_node", json.dumps(settings)]
        self.node = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        threading.Thread(target=self._follow, args=(self.node,), daemon=True).start()

    def _follow(self, node: subprocess.Popen[bytes]) -> None:
        assert node.stdout
        for line in node.stdout:
            if line.endswith(b"\n"):
                self.told = int(line)

    def kill_node(self) -> None:
        assert self.node
        self.node.kill()
        self.node.wait()
        time.sleep(0.1)  # until the last number has been read

    def start_broker(self) -> None:
        """The reader first: what the broker takes while nobody has subscribed is nobody's."""
        assert self.node
        self.reader.subscribed.clear()
        self.node.send_signal(signal.SIGSTOP)
        try:
            self.broker.start()
            assert self.reader.subscribed.wait(20)
        finally:
            self.node.send_signal(signal.SIGCONT)

    def telling(self) -> bool:
        return self.told < self.alarms - 1


def nothing(bench: Bench) -> None:
    """no fault"""


def broker_killed(bench: Bench) -> None:
    """broker killed and restarted 20 times"""
    for _ in range(20):
        time.sleep(bench.seconds / 25 * random.uniform(0.5, 1.0))
        bench.broker.kill()
        time.sleep(bench.seconds / 50)
        bench.start_broker()


def broker_frozen(bench: Bench) -> None:
    """broker frozen (SIGSTOP) for 60 s"""
    bench.broker.freeze()
    time.sleep(max(60.0, bench.seconds))
    bench.broker.thaw()


def node_killed(bench: Bench) -> None:
    """netspot killed (-9) and restarted 20 times"""
    for _ in range(20):
        time.sleep(bench.seconds / 20 * random.uniform(0.5, 1.0))
        if bench.telling():
            bench.kill_node()
            bench.start_node()


def node_killed_offline(bench: Bench) -> None:
    """netspot killed (-9) 10 times while the broker is away"""
    bench.broker.kill()
    for _ in range(10):
        time.sleep(bench.seconds / 10 * random.uniform(0.5, 1.0))
        if bench.telling():
            bench.kill_node()
            bench.start_node()
    wait_for(lambda: not bench.telling(), 120)
    bench.start_broker()


def disk_full(bench: Bench) -> None:
    """disk full (tmpfs of 512 KiB) while the broker is away"""
    (bench.folder / "state" / "ballast").write_bytes(b"x" * 350_000)
    bench.broker.kill()
    wait_for(lambda: not bench.telling(), 120)
    bench.start_broker()


def password_changed(bench: Bench) -> None:
    """password changed, broker restarted, changed back"""
    time.sleep(bench.seconds / 4)
    set_password(bench.folder, "other")
    bench.broker.kill()
    bench.start_broker()
    wait_for(lambda: not bench.telling(), 120)
    set_password(bench.folder, "secret")
    bench.broker.kill()
    bench.start_broker()


def link_down(bench: Bench) -> None:
    """network link down for 30 s (namespaces)"""
    bench.ip("link", "set", "veth0", "down")  # type: ignore[attr-defined]
    time.sleep(max(30.0, bench.seconds))
    bench.ip("link", "set", "veth0", "up")  # type: ignore[attr-defined]


FAULTS: dict[str, tuple[Callable[[Bench], None], float]] = {  # name -> what happens, seconds in which alarms are told
    "nothing": (nothing, 5),
    "broker-killed": (broker_killed, 40),
    "broker-frozen": (broker_frozen, 50),
    "link-down": (link_down, 25),
    "node-killed": (node_killed, 30),
    "node-killed-offline": (node_killed_offline, 20),
    "disk-full": (disk_full, 10),
    "password-changed": (password_changed, 20),
}


def set_password(folder: Path, password: str) -> None:
    subprocess.run(["mosquitto_passwd", "-b", folder / "passwd", "pi", password], check=True, capture_output=True)


@contextmanager
def prepared(name: str, alarms: int, folder: Path) -> Iterator[tuple[Bench, Any]]:
    """A bench for one fault, and its reader (with ``seqs``)."""
    seconds = FAULTS[name][1]
    (folder / "state").mkdir()
    if name == "disk-full":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", folder / "state"], check=True)
    try:
        if name == "link-down":
            with veth() as (near, far):
                for namespace in (near, far):
                    namespace.ip("link", "set", "veth0", "arp", "on")
                far.ip("link", "set", "lo", "up")  # for the reader
                inside = ("ip", "netns", "exec", far.name)
                broker = Broker(folder, port=18999, host="0.0.0.0", inside=inside)
                bench = Bench(folder, broker.start(), alarms, seconds, {"host": "10.9.0.2"})
                bench.inside = ("ip", "netns", "exec", near.name)
                bench.ip = near.ip  # type: ignore[attr-defined]
                yield bench, Heard(Listener(broker.port, TOPIC, inside=inside))
        else:
            extra = "allow_anonymous true"
            login: dict[str, Any] = {}
            if name == "password-changed":
                (folder / "passwd").touch()
                set_password(folder, "secret")
                plain = f"listener {18998} 127.0.0.1\nallow_anonymous true\n"
                extra = f"allow_anonymous false\npassword_file {folder}/passwd\n{plain}"
                extra = f"per_listener_settings true\n{extra}"
                login = {"username": "pi", "password": "secret"}
            broker = Broker(folder, extra)
            if name == "password-changed":  # that line must stand before the listeners
                text = (folder / "mosquitto.conf").read_text().replace("per_listener_settings true\n", "")
                (folder / "mosquitto.conf").write_text("per_listener_settings true\n" + text)
            port = 18998 if login else broker.port
            bench = Bench(folder, broker.start(), alarms, seconds, login)
            yield bench, Steady(MqttConfig(host="127.0.0.1", port=port))
    finally:
        if name == "disk-full":
            subprocess.run(["umount", "-l", folder / "state"], check=True)


class Heard:
    """The numbers that a mosquitto_sub has received."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        assert listener.subscribed.wait(10)

    @property
    def seqs(self) -> list[int]:
        return [message["seq"] for message in self._listener.of(TOPIC)]

    def close(self) -> None:
        self._listener.close()


@dataclass(frozen=True)
class Result:
    fault: str
    told: int
    missing: int
    doubles: int
    disorder: int  # first arrivals with a lower number than one before
    seconds: float  # from the end of the fault to the last alarm


def run(name: str, alarms: int) -> Result:
    fault = FAULTS[name][0]
    with tempfile.TemporaryDirectory() as folder, prepared(name, alarms, Path(folder)) as (bench, reader):
        bench.reader = reader
        try:
            bench.start_node()
            wait_for(lambda: len(reader.seqs) >= min(5, alarms), 30, "the first alarms")
            fault(bench)
            ended_s = time.monotonic()
            deadline_s = ended_s + 180
            while len(set(reader.seqs)) < alarms and time.monotonic() < deadline_s:
                time.sleep(0.05)
            seconds = time.monotonic() - ended_s
            time.sleep(1)  # for doubles
            return judged(fault.__doc__ or name, reader.seqs, alarms, seconds)
        finally:
            bench.kill_node()
            reader.close()
            bench.broker.kill()


def judged(fault: str, seqs: list[int], alarms: int, seconds: float) -> Result:
    first = list(dict.fromkeys(seqs))
    disorder = sum(after < before for before, after in pairwise(first))
    return Result(
        fault, alarms, len(set(range(alarms)) - set(seqs)), len(seqs) - len(first), disorder, round(seconds, 1)
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--alarms", type=int, default=1000)
    parser.add_argument("faults", nargs="*", default=list(FAULTS))
    args = parser.parse_args()
    if os.geteuid():
        parser.error("namespaces and a small tmpfs need root")
    print("| fault | alarms | missing | doubles | out of order | all there after [s] |\n|---|---|---|---|---|---|")
    bad = 0
    for name in args.faults:
        result = run(name, args.alarms)
        print("|", " | ".join(map(str, asdict(result).values())), "|", flush=True)
        bad += result.missing + result.disorder
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
