"""A real mosquitto on a free loopback port, and a real mosquitto_sub that listens: for everybody's tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(
    not (MOSQUITTO and shutil.which("mosquitto_sub")), reason="mosquitto and mosquitto-clients are not installed"
)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(condition: Callable[[], object], seconds: float = 10.0, what: str = "") -> None:
    """Fails the test unless ``condition`` becomes true in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s: {what or condition}"
        time.sleep(0.01)


class Broker:
    """``extra`` lines go below the listener, ``{dir}`` in them is ``folder``; ``inside`` goes before the command."""

    def __init__(
        self,
        folder: Path,
        extra: str = "allow_anonymous true",
        port: int = 0,
        host: str = "127.0.0.1",
        inside: tuple[str, ...] = (),
    ) -> None:
        self.inside = inside
        self.port = port or free_port()
        self.host = host
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.configure(extra)

    def configure(self, extra: str) -> None:
        own = "user root\n" if os.geteuid() == 0 else ""
        text = f"{own}log_dest file {self.folder}/broker.log\nlog_type all\npersistence false\n"
        text += f"listener {self.port} {self.host}\n{extra.replace('{dir}', str(self.folder))}\n"
        (self.folder / "mosquitto.conf").write_text(text)

    def start(self) -> Broker:
        assert MOSQUITTO
        self.process = subprocess.Popen(
            [*self.inside, MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._listens, 5, "mosquitto listens")
        return self

    def _listens(self) -> bool:
        assert self.process and self.process.poll() is None, (self.folder / "broker.log").read_text()
        if self.inside:  # another network, perhaps
            log = self.folder / "broker.log"
            return log.exists() and " running" in log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex((self.host, self.port)) == 0

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> Broker:
        self.kill()
        return self.start()

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)


@contextmanager
def broker(folder: Path, extra: str = "allow_anonymous true", port: int = 0) -> Iterator[Broker]:
    """A running mosquitto; killed at the end."""
    made = Broker(folder, extra, port).start()
    try:
        yield made
    finally:
        made.kill()


class Listener:
    """mosquitto_sub; ``messages`` hold topic, payload (text), qos, retain and ``at`` [s, time.time()]."""

    def __init__(self, port: int, *topics: str, options: tuple[str, ...] = (), inside: tuple[str, ...] = ()) -> None:
        self.messages: list[dict] = []
        self.subscribed = threading.Event()
        command = [
            *inside,
            "stdbuf",
            "-oL",
            "mosquitto_sub",
            "-d",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-q",
            "1",
            "-F",
            "%j",
            *options,
        ]
        for topic in topics:
            command += ["-t", topic]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith(b"{"):
                self.messages.append(json.loads(line) | {"at": time.time()})
            elif line.startswith(b"Subscribed"):
                self.subscribed.set()

    def of(self, topic: str) -> list[dict]:
        """The payloads on ``topic``, or below it where it ends in ``/``, decoded where they are JSON."""
        found = [
            m for m in list(self.messages) if m["topic"] == topic or (topic[-1] == "/" and m["topic"].startswith(topic))
        ]
        return [_decoded(m["payload"]) for m in found]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def _decoded(payload: str) -> object:
    try:
        return json.loads(payload)
    except (ValueError, TypeError):
        return payload


PUBLISH = ("mosquitto_pub", "-h", "127.0.0.1")  # by its address: a bare system has no name for it


def publish(port: int, topic: str, payload: str, *options: str) -> None:
    subprocess.run([*PUBLISH, "-p", str(port), "-t", topic, "-m", payload, *options], check=True)


@contextmanager
def listening(port: int, *topics: str, options: tuple[str, ...] = ()) -> Iterator[Listener]:
    listener = Listener(port, *topics, options=options)
    try:
        assert listener.subscribed.wait(10), "mosquitto_sub could not subscribe"
        yield listener
    finally:
        listener.close()
