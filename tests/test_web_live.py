"""A live ``netspot serve`` in a network namespace: real packets, its page in a real browser, and netspotctl."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from netspot.packets import ACK, SYN
from tests import frames, netns
from tests.test_web_page import missing

HERE = Path(__file__).parent / "web"
CONFIG = """\
node: pi-test
miner: {{device: veth0}}
analyzer: {{period: 100ms, stats: [R_SYN, R_ICMP, TRAFFIC, AVG_PKT_SIZE], clear_after: 3}}
spot: {{n_init: 50, q: 1e-3}}
state: {{dir: {folder}/state}}
web: {{listen: "127.0.0.1:11000"}}
"""


class Traffic:
    """What a far host sends: a few datagrams and segments all the time, and on demand a flood of SYN."""

    def __init__(self, far):
        with far.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._socket.bind(("veth0", 0))
        self._ended = threading.Event()
        self._random = random.Random(1)
        self.flood = 0
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self):
        while not self._ended.wait(0.02):
            for _ in range(3 + self._random.randrange(3)):
                flags = SYN if self._random.random() < 0.1 else ACK
                inner = frames.tcp(flags, b"x" * self._random.randrange(400), sport=self._random.randrange(1024, 60000))
                self._socket.send(frames.eth(frames.ip4(inner)))
            for i in range(self.flood):
                self._socket.send(frames.eth(frames.ip4(frames.tcp(SYN, dport=1 + i))))

    def close(self):
        self._ended.set()
        self._thread.join()
        self._socket.close()


@netns.needs()
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_from_the_wire_to_the_page(tmp_path):
    file = tmp_path / "netspot.yaml"
    file.write_text(CONFIG.format(folder=tmp_path))
    python = [sys.executable, "-m"]
    with netns.veth() as (near, far):
        near.ip("link", "set", "lo", "up")
        service = near.start(*python, "netspot", "serve", "-c", str(file))
        traffic = Traffic(far)
        browser = None
        try:
            token = wait_for(tmp_path / "state" / "token")
            answers(near)
            browser = near.start("node", str(HERE / "live.mjs"), "http://127.0.0.1:11000/", token)
            lines = follow(browser, "ready")
            began_ms = time.time() * 1000
            traffic.flood = 30
            lines += follow(browser, "alarm ")
            seen_ms = float(lines[-1].split()[1])
            assert seen_ms - began_ms < 100 + 20 + 3000  # its window, and 3 s
            until = time.monotonic() + 5  # the page may have shown another statistic's alarm, a window earlier
            while "R_SYN" not in (status := json.loads(ctl(near, "status", "--json", expected=4)))["active"]:
                assert time.monotonic() < until, status
            assert status["dropped"] == 0
            traffic.flood = 0
            lines += follow(browser, None)
            assert browser.wait(30) == 0, "\n".join(lines)
            assert "muted" in ctl(near, "stats")
            shown = ctl(near, "incidents")
            told = json.loads(ctl(near, "incidents", "--json"))["incidents"]  # an update may be 10 s away
            assert all(incident["stats"] for incident in told) and (told or "no incident" in shown)
        finally:
            traffic.close()
            for process in (browser, service):
                if process is not None and process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    process.wait(10)


@netns.needs("slowhttptest")
@pytest.mark.skipif(os.environ.get("NETSPOT_LONG") != "1", reason="a minute and a half; NETSPOT_LONG=1 runs it")
@pytest.mark.parametrize("kind", ["-H", "-B", "-X"], ids=["slow headers", "slow bodies", "slow reading"])
def test_200_slow_connections_cost_neither_packets_nor_the_page(tmp_path, kind):
    file = tmp_path / "netspot.yaml"
    file.write_text(CONFIG.format(folder=tmp_path))
    with netns.veth() as (near, far):
        near.ip("link", "set", "lo", "up")
        service = near.start(sys.executable, "-m", "netspot", "serve", "-c", str(file))
        traffic = Traffic(far)
        try:
            answers(near)
            address = ["-u", "http://127.0.0.1:11000/", "-c", "200", "-r", "200", "-l", "30", "-i", "2"]
            slow = near.start("slowhttptest", kind, *address, "-w", "1", "-y", "2", "-n", "1", "-z", "1")
            waits = []
            while slow.poll() is None:
                with near.entered():
                    sock = socket.create_connection(("127.0.0.1", 11000), 5)
                start = time.monotonic()
                sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert sock.recv(100).startswith(b"HTTP/1.1 200")
                waits.append(time.monotonic() - start)
                sock.close()
                time.sleep(0.2)
            status = json.loads(ctl(near, "status", "--json"))
            print(f"{kind}: {len(waits)} pages, slowest {max(waits):.3f} s, dropped {status['dropped']}")
            assert len(waits) > 50 and max(waits) < 1
            assert status["dropped"] == 0 and status["captured"] > 1000
        finally:
            traffic.close()
            service.send_signal(signal.SIGTERM)
            service.wait(10)


def answers(near):
    """Wait until the page is served."""
    until = time.monotonic() + 20
    while True:
        try:
            with near.entered():
                return socket.create_connection(("127.0.0.1", 11000), 5).close()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)


def wait_for(file):
    until = time.monotonic() + 15
    while time.monotonic() < until:
        if file.exists() and file.read_text().strip():
            return file.read_text().strip()
        time.sleep(0.05)
    raise AssertionError(f"{file} did not come")


def follow(process, start):
    """The lines of ``process`` up to the one that begins with ``start``."""
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if start is not None and line.startswith(start):
            return lines
    assert start is None, "\n".join(lines)
    return lines


def ctl(near, *arguments, expected=0):
    command = ["ip", "netns", "exec", near.name, sys.executable, "-m", "netspot.ctl", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout
