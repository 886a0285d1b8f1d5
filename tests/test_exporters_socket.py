"""The socket exporter against programs that really listen."""

from __future__ import annotations

import csv
import json
import socket
import threading
import time

import pytest

from netspot.config import SocketConfig
from netspot.errors import ConfigError
from netspot.exporters import sender as sender_module
from netspot.exporters import socket as socket_module
from netspot.exporters.sender import Refused, Sender
from netspot.exporters.socket import COLUMNS, SocketExporter
from netspot.record import replace
from tests.broker import free_port, wait_for
from tests.test_exporters import ALARM, CONTEXT, INCIDENT, SAMPLE, message


class Server:
    """Keeps all lines that arrive on a listening socket, from one connection after another."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self.peers: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            while True:
                peer = self.sock if self.sock.type == socket.SOCK_DGRAM else self.sock.accept()[0]
                self.peers.append(peer)
                while data := peer.recv(65536):
                    self.data += data
        except OSError:
            return

    @property
    def lines(self) -> list[str]:
        return self.data.decode().splitlines()


def listener(scheme: str, folder) -> tuple[Server, str]:
    if scheme == "tcp":
        sock = socket.create_server(("127.0.0.1", 0))
        return Server(sock), f"tcp://127.0.0.1:{sock.getsockname()[1]}"
    if scheme == "udp":
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        return Server(sock), f"udp://127.0.0.1:{sock.getsockname()[1]}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if scheme == "unix-dgram" else socket.SOCK_STREAM)
    sock.bind(str(folder / "s"))
    if sock.type == socket.SOCK_STREAM:
        sock.listen()
    return Server(sock), f"unix://{folder}/s"


def made(config: SocketConfig) -> SocketExporter:
    exporter = SocketExporter(config, CONTEXT)
    exporter.start()
    return exporter


@pytest.mark.parametrize("scheme", ["tcp", "udp", "unix", "unix-dgram"])
def test_every_event_arrives_as_a_line(tmp_path, scheme):
    server, address = listener(scheme, tmp_path)
    exporter = made(SocketConfig(data=address, alarm=address, tag="attic"))
    for event in (SAMPLE, ALARM, INCIDENT):
        exporter.write(event, message(event))
    wait_for(lambda: len(server.lines) == 3)
    found = [json.loads(line) for line in server.lines]
    assert [f["kind"] for f in found] == ["stat", "alarm", "incident"] and {f["tag"] for f in found} == {"attic"}
    exporter.close()
    assert exporter.health() == {"dropped": 0, "waiting": 0, "reason": ""}


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_one_connection_carries_batch_after_batch_without_delay(tmp_path, scheme):
    server, address = listener(scheme, tmp_path)
    exporter = made(SocketConfig(data=address))
    begun = time.monotonic()
    for number in range(1, 6):
        exporter.write(SAMPLE, message(SAMPLE))
        wait_for(lambda wanted=number: len(server.lines) == wanted)
    assert time.monotonic() - begun < 2
    assert len(server.peers) == 1
    exporter.close()


def test_csv(tmp_path):
    server, address = listener("tcp", tmp_path)
    exporter = made(SocketConfig(alarm=address, format="csv"))
    event = replace(INCIDENT, title='scan, "fast"')
    for one in (ALARM, event):
        exporter.write(one, message(one))
    wait_for(lambda: len(server.lines) == 2)
    rows = [dict(zip(("tag", *COLUMNS), row, strict=True)) for row in csv.reader(server.lines)]
    assert rows[0]["value"] == "0.71" and rows[0]["level"] == "high" and rows[0]["state"] == ""
    assert rows[1]["title"] == 'scan, "fast"'
    exporter.close()


def test_waits_for_a_peer_that_is_away_and_drops_the_oldest(monkeypatch, caplog):
    monkeypatch.setattr(sender_module, "BACKOFF_S", (0.1, 0.2))
    monkeypatch.setattr(socket_module, "WAITING", 50)
    port = free_port()
    exporter = made(SocketConfig(data=f"tcp://127.0.0.1:{port}"))
    began = time.monotonic()
    for number in range(250):
        exporter.write(SAMPLE, message(replace(SAMPLE, learned=number)))
    assert time.monotonic() - began < 0.5
    wait_for(lambda: "refused" in exporter.health()["reason"].lower())
    assert exporter.health()["dropped"] >= 50
    server = Server(socket.create_server(("127.0.0.1", port)))
    wait_for(lambda: server.lines and json.loads(server.lines[-1])["learned"] == 249)
    assert exporter.health()["dropped"] + len(server.lines) == 250
    for peer in server.peers:
        peer.shutdown(socket.SHUT_RDWR)  # restarted: the next event comes over a new connection
    time.sleep(0.05)
    exporter.write(SAMPLE, message(replace(SAMPLE, learned=250)))
    wait_for(lambda: json.loads(server.lines[-1])["learned"] == 250)
    exporter.close()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "Connection refused; tried again by itself",
        f"{exporter.health()['dropped']} events could not be delivered",
    ]


def test_closing_does_not_wait_for_a_peer_that_sleeps():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        exporter = made(SocketConfig(data=f"tcp://127.0.0.1:{deaf.getsockname()[1]}"))
        long = replace(SAMPLE, stat="X" * 60_000)
        for _ in range(500):
            exporter.write(long, message(long))
        began = time.monotonic()
        exporter.close()
        assert time.monotonic() - began < 1.0
        assert exporter.health()["dropped"] > 0


@pytest.mark.parametrize("address", ["tcp://host", "http://host:1", "unix://", "tcp://host:99999", "udp://:5"])
def test_addresses_that_can_never_work(address):
    with pytest.raises(ConfigError, match="tcp://host:port"):
        SocketExporter(SocketConfig(data=address), CONTEXT)


def test_a_batch_that_is_refused_makes_room_for_the_next():
    got = []

    def deliver(batch):
        if batch[0] == b"bad":
            raise Refused("never")
        got.extend(batch)

    sender = Sender("test", deliver, 100)
    sender.start()
    for item in (b"1", b"bad", b"2"):
        sender.put(item)
    wait_for(lambda: got == [b"1", b"2"])
    sender.close()
    assert (sender.dropped, sender.delivered) == (1, 2)
