"""The InfluxDB exporter against Debian's InfluxDB 1.6, and against databases that behave badly."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import urlopen

import pytest

from netspot.config import InfluxConfig
from netspot.errors import ConfigError
from netspot.events import Health
from netspot.exporters import influxdb as influx_module
from netspot.exporters import sender as sender_module
from netspot.exporters.influxdb import InfluxExporter, line
from netspot.record import replace
from tests.broker import free_port, wait_for
from tests.test_exporters import ALARM, CONTEXT, INCIDENT, SAMPLE, T, message

SECOND = 1_000_000_000


def made(config: InfluxConfig) -> InfluxExporter:
    exporter = InfluxExporter(config, CONTEXT)
    exporter.start()
    return exporter


def write(exporter: InfluxExporter, *events) -> None:
    for event in events:
        exporter.write(event, message(event))


@pytest.fixture
def influxd(tmp_path):
    program = shutil.which("influxd")
    if not program:
        pytest.skip("influxdb is not installed")
    port, rpc = free_port(), free_port()
    (tmp_path / "influx.conf").write_text(
        f'reporting-disabled = true\nbind-address = "127.0.0.1:{rpc}"\n[meta]\ndir = "{tmp_path}/meta"\n'
        f'[data]\ndir = "{tmp_path}/data"\nwal-dir = "{tmp_path}/wal"\n'
        f'[http]\nbind-address = "127.0.0.1:{port}"\nlog-enabled = false\n[monitor]\nstore-enabled = false\n'
    )
    process = subprocess.Popen(
        [program, "-config", str(tmp_path / "influx.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: answers(port), 20, "influxd answers")
        query(port, "CREATE DATABASE netspot")
        yield port
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def query(port: int, text: str) -> list:
    url = f"http://127.0.0.1:{port}/query?" + urlencode({"db": "netspot", "q": text})
    with urlopen(url, data=b"" if text.startswith("CREATE") else None, timeout=5) as answer:
        return json.load(answer)["results"][0].get("series", [])


def test_every_point_arrives(influxd):
    exporter = made(InfluxConfig(url=f"http://127.0.0.1:{influxd}", every_s=0.2))
    for number in range(3000):
        write(exporter, replace(SAMPLE, time_ns=T + number * SECOND, value=number / 7))
    write(exporter, replace(SAMPLE, stat="SILENT", value=math.nan, up=None), ALARM, INCIDENT)
    write(exporter, Health(T, {"captured": 12, "dropped": 0, "phase": "watching"}))
    wait_for(lambda: exporter.health()["delivered"] == 3003)
    exporter.close()
    assert exporter.health()["dropped"] == 0
    count, total = query(influxd, "SELECT count(value), sum(value) FROM netspot WHERE stat = 'R_SYN'")[0]["values"][0][
        1:
    ]
    assert count == 3000 and total == pytest.approx(2999 * 3000 / 14)
    found = query(influxd, "SELECT * FROM netspot_alarm")[0]
    alarm = dict(zip(found["columns"], found["values"][0], strict=True))
    assert (alarm["node"], alarm["stat"], alarm["event_type"], alarm["threshold"]) == ("pi", "R_SYN", "up", 0.093)
    assert query(influxd, "SELECT title FROM netspot_incident")[0]["values"][0][1] == "port scan"
    assert query(influxd, "SELECT phase FROM netspot_health")[0]["values"][0][1] == "watching"


def test_waits_until_the_database_is_there(influxd, monkeypatch, caplog):
    monkeypatch.setattr(sender_module, "BACKOFF_S", (0.1, 0.2))
    exporter = made(InfluxConfig(url=f"http://127.0.0.1:{influxd}", database="later", every_s=0.1))
    write(exporter, SAMPLE)
    wait_for(lambda: "database not found" in exporter.health()["reason"])
    query(influxd, "CREATE DATABASE later")
    wait_for(lambda: exporter.health()["delivered"] == 1 and not exporter.health()["reason"])
    exporter.close()
    assert len(caplog.records) == 1


class Strange(BaseHTTPRequestHandler):
    requests: list[tuple[str, dict, bytes]]
    status: int

    def do_POST(self) -> None:
        body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"because")

    def log_message(self, *args) -> None: ...


@pytest.fixture
def strange():
    Strange.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Strange)
    server.status = 204
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_versions_2_and_3_get_a_token(strange):
    exporter = made(InfluxConfig(url=url(strange) + "/base", token="t0k", org="home", database="nets", every_s=0.1))
    write(exporter, SAMPLE)
    wait_for(lambda: Strange.requests)
    path, headers, body = Strange.requests[0]
    assert urlsplit(path).path == "/base/api/v2/write"
    assert parse_qs(urlsplit(path).query) == {"org": ["home"], "bucket": ["nets"], "precision": ["ns"]}
    assert headers["Authorization"] == "Token t0k"
    assert body == f'netspot,node=pi,series=eth0,stat=R_SYN value=0.0417,up=0.093,state="watching" {T}'.encode()
    exporter.close()


@pytest.mark.parametrize(("status", "dropped"), [(400, 1), (401, 0), (429, 0), (503, 0)])
def test_what_is_refused_is_dropped_and_what_may_work_is_tried_again(strange, monkeypatch, status, dropped):
    monkeypatch.setattr(sender_module, "BACKOFF_S", (0.05, 0.1))
    strange.status = status
    exporter = made(InfluxConfig(url=url(strange), username="u", password="p", every_s=0.05))
    write(exporter, SAMPLE)
    wait_for(lambda: f"answers {status}" in exporter.health()["reason"])
    assert Strange.requests[0][1]["Authorization"] == "Basic dTpw"
    assert exporter.health()["dropped"] == dropped
    strange.status = 204
    write(exporter, ALARM)
    wait_for(lambda: exporter.health()["delivered"] == 2 - dropped)
    exporter.close()


def test_a_database_that_never_answers_costs_only_the_oldest_points(monkeypatch):
    monkeypatch.setattr(influx_module, "WAITING", 100)
    monkeypatch.setattr(influx_module, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(sender_module, "BACKOFF_S", (0.1, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        exporter = made(InfluxConfig(url=f"http://127.0.0.1:{deaf.getsockname()[1]}", batch=10, every_s=0.1))
        began = time.monotonic()
        write(exporter, *[SAMPLE] * 500)
        assert time.monotonic() - began < 0.5
        wait_for(lambda: "no answer" in exporter.health()["reason"])
        assert exporter.health()["waiting"] <= 110 and exporter.health()["dropped"] >= 390
        exporter.close()
        assert exporter.health()["dropped"] == 500


def test_line_protocol_is_escaped():
    event = replace(INCIDENT, title='a "b"\\ \n c')
    odd = {**message(event), "node": "a b,c=d\\", "series": "eth 0"}
    assert line(event, odd) == (
        f'netspot_incident,node=a\\ b\\,c\\=d\\\\,series=eth\\ 0 seq=42.0,event_type="opened",'
        f'title="a \\"b\\"\\\\   c",id="pi-6f2c" {T}'
    )
    assert line(replace(SAMPLE, value=math.nan, up=None), message(replace(SAMPLE, value=math.nan, up=None))) is None


def test_an_address_that_can_never_work():
    with pytest.raises(ConfigError, match="http://host:8086"):
        InfluxExporter(InfluxConfig(url="nas:8086"), CONTEXT)
