"""The service as systemd, a broker and the network meet it: a real process on real packets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from netspot import state
from netspot.config import Config, ExporterConfig, FileConfig, MqttConfig
from netspot.errors import ConfigError
from netspot.fleet import Fleet
from netspot.record import replace
from netspot.service import Paused, Service
from tests.broker import broker, free_port, listening, needs_mosquitto, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to capture")

CONFIG = """
node: test
miner: {device: lo, loopback: true, filter: "udp port 5 or udp port 6"}
analyzer: {period: 100ms, stats: [TRAFFIC, AVG_PKT_SIZE], clear_after: 3}
spot: {q: 1e-3, n_init: 50, depth: 0, level: 0.9, relearn_after: 0}
exporter: {mqtt: {host: MQTT_HOST, port: MQTT_PORT, stat_every: 0, homeassistant: {discovery: off}}}
state: {dir: STATE_DIR}
web: {listen: "127.0.0.1:WEB_PORT"}
"""


class Served:
    """``netspot serve`` in ``folder``, and what it tells systemd."""

    def __init__(self, folder: Path, text: str, stdout: int = subprocess.DEVNULL, **env: str) -> None:
        self.file = folder / "netspot.yaml"
        self.web_port = free_port()
        self.text = text.replace("WEB_PORT", str(self.web_port)).replace("STATE_DIR", str(folder / "state"))
        self.file.write_text(self.text)
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = folder / "notify"
        address.unlink(missing_ok=True)
        self._notified.bind(str(address))
        self._notified.setblocking(False)
        self.told: list[str] = []
        self._errors = (folder / "stderr").open("a+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "netspot", "serve", "-c", str(self.file)],
            stdout=stdout,
            stderr=self._errors,
            env=os.environ | {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "600000"} | env,
        )
        wait_for(lambda: self.notified("READY=1"), 20, "READY=1")
        wait_for(lambda: self.status()["windows"], 5, "the first window")

    def notified(self, word: str) -> int:
        """How many times systemd was told a line that begins with ``word``."""
        while True:
            try:
                self.told += self._notified.recv(4096).decode().splitlines()
            except BlockingIOError:
                return sum(line.startswith(word) for line in self.told)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=5) as answer:
            return json.load(answer)

    def status(self) -> Any:
        return self.get("/api/status")

    @property
    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@contextmanager
def served(folder: Path, text: str = CONFIG, mqtt_port: int = 1, **more: Any) -> Iterator[Served]:
    text = text.replace("MQTT_HOST", "127.0.0.1").replace("MQTT_PORT", str(mqtt_port))
    service = Served(folder, text, **more)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.end(signal.SIGKILL)


def send(count: int, port: int = 5) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(count):
            sock.sendto(b"x" * 100, ("127.0.0.1", port))


def steady(service: Served, until_learned: int, seconds: float = 20) -> None:
    """A few packets every window until so many windows are learned."""
    end = time.monotonic() + seconds
    while service.status()["learned"] < until_learned:
        assert time.monotonic() < end, f"still learning: {service.status()}"
        for i in range(10):
            send(3 + i % 3)
            time.sleep(0.05)


@needs_mosquitto
def test_a_burst_on_the_wire_becomes_an_alarm_at_the_broker(tmp_path: Path) -> None:
    with broker(tmp_path) as mosquitto, listening(mosquitto.port, "netspot/#") as heard:
        with served(tmp_path, mqtt_port=mosquitto.port) as service:
            steady(service, 50)
            send(3000)
            wait_for(lambda: heard.of("netspot/test/alarm/TRAFFIC"), 5, "an alarm")
            alarm = heard.of("netspot/test/alarm/TRAFFIC")[0]
            assert (alarm["kind"], alarm["event_type"], alarm["stat"]) == ("alarm", "up", "TRAFFIC")
            assert alarm["value"] > alarm["threshold"] and 0 < alarm["probability"] <= 1
            wait_for(lambda: service.status()["alarms"], 5, "the alarm on the page")
            assert heard.of("netspot/test/stat/TRAFFIC") and heard.of("netspot/test/health")
            assert service.end() == 0
        wait_for(lambda: heard.of("netspot/test/status")[-1] == "offline", 5, "offline")
        assert heard.of("netspot/test/status")[0] == "online"


@needs_mosquitto
def test_a_broker_that_was_killed_is_found_again(tmp_path: Path) -> None:
    with broker(tmp_path) as mosquitto, served(tmp_path, mqtt_port=mosquitto.port) as service:
        wait_for(lambda: service.status()["mqtt"].get("connected"), 10, "connected")
        mosquitto.kill()
        wait_for(lambda: not service.status()["mqtt"].get("connected"), 20, "the loss is noticed")
        before = service.status()["windows"]
        wait_for(lambda: service.status()["windows"] >= before + 5, 3, "windows go on without a broker")
        mosquitto.start()
        wait_for(lambda: service.status()["mqtt"].get("connected"), 20, "connected again")
        with listening(mosquitto.port, "netspot/test/status") as heard:
            wait_for(lambda: heard.of("netspot/test/status") == ["online"], 5, "online is retained again")


def test_without_a_broker_windows_close_on_time_and_systemd_hears_of_it(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        wait_for(lambda: service.notified("WATCHDOG=1") >= 5, 5, "the watchdog is fed")
        before, began = service.status()["windows"], time.monotonic()
        time.sleep(2)
        assert service.status()["windows"] - before == pytest.approx((time.monotonic() - began) * 10, abs=2)
        assert any(line.startswith("STATUS=learning") for line in service.told)
        assert service.end() == 0
        assert service.notified("STOPPING=1")


def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        steady(service, 20)
        assert service.end() == 0
    with served(tmp_path) as service:
        assert service.status()["learned"] >= 20
        assert "go on with what they learned" in service.errors
    with served(tmp_path, CONFIG.replace("udp port 5 or udp port 6", "udp port 5")) as service:
        assert service.status()["learned"] < 20
        assert "what was learned with another filter is left" in service.errors


def test_reload_keeps_detectors_whose_settings_did_not_change(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        steady(service, 20)
        service.file.write_text(service.text.replace("q: 1e-3,", "q: 1e-3, AVG_PKT_SIZE: {q: 1e-4},"))
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "read again" in service.errors, 5, "the reload")
        before = service.status()["windows"]
        wait_for(lambda: service.status()["windows"] > before + 1, 5, "a window after the reload")
        stats = {name: service.get(f"/api/stats/{name}") for name in ("TRAFFIC", "AVG_PKT_SIZE")}
        assert stats["TRAFFIC"]["learned"] >= 20
        assert stats["AVG_PKT_SIZE"]["learned"] < 20


def test_a_bad_configuration_is_refused_on_reload_and_the_old_one_goes_on(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        service.file.write_text("spot: {q: 2}\n")
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "stays as it was" in service.errors, 5, "the refusal")
        before = service.status()["windows"]
        wait_for(lambda: service.status()["windows"] > before, 3, "windows go on")
        assert "spot.q" in service.errors and "Traceback" not in service.errors


def test_a_configuration_that_cannot_work_here_is_rolled_back_and_nothing_is_forgotten(tmp_path: Path) -> None:
    with socket.socket() as taken, served(tmp_path) as service:
        steady(service, 20)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = service.text.replace(str(service.web_port), str(taken.getsockname()[1])).replace("q: 1e-3", "q: 1e-4")
        service.file.write_text(text)
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "stays as it was" in service.errors, 5, "the refusal")
        before = service.status()["windows"]
        wait_for(lambda: service.status()["windows"] > before, 3, "the page and the windows go on")
        assert service.status()["learned"] >= 20


@needs_mosquitto
def test_new_exporters_go_on_with_what_is_open(tmp_path: Path) -> None:
    text = CONFIG.replace("clear_after: 3", "clear_after: 1000")
    with (
        broker(tmp_path) as mosquitto,
        listening(mosquitto.port, "netspot/test/alarm") as heard,
        served(tmp_path, text, mqtt_port=mosquitto.port) as service,
    ):
        steady(service, 50)
        send(3000)
        wait_for(lambda: heard.messages and heard.of("netspot/test/alarm")[-1]["active"], what="an alarm")
        before, count = heard.of("netspot/test/alarm")[-1], len(heard.messages)
        service.file.write_text(service.text.replace("stat_every: 0", "stat_every: 1"))
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(heard.messages) > count + 1, 10, "the state, by the new connection")
        for state_now in heard.of("netspot/test/alarm")[count:]:
            assert [state_now[key] for key in ("active", "title", "since", "stats")] == [
                before[key] for key in ("active", "title", "since", "stats")
            ]


@needs_mosquitto
def test_a_change_that_is_refused_ends_nothing_that_is_open(tmp_path: Path) -> None:
    """Neither an incident nor an exporter, not even one that could not be made again now."""
    file = tmp_path / "out" / "alarms.jsonl"
    text = CONFIG.replace("clear_after: 3", "clear_after: 1000").replace(
        "exporter: {", f"exporter: {{file: {{alarm: {file}}}, "
    )
    with broker(tmp_path) as mosquitto, listening(mosquitto.port, "netspot/#") as heard, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with served(tmp_path, text, mqtt_port=mosquitto.port) as service:
            steady(service, 50)
            send(3000)
            wait_for(lambda: heard.of("netspot/test/incident"), 5, "an incident")
            shutil.rmtree(file.parent)
            file.parent.write_text("in the way")
            stricter = service.text.replace("q: 1e-3", "q: 1e-4")
            port = str(taken.getsockname()[1])
            for times, other in enumerate((service.text.replace(str(service.web_port), port), stricter), 1):
                service.file.write_text(other)
                service.process.send_signal(signal.SIGHUP)
                wait_for(lambda: service.errors.count("stays as it was") == times, 5, "the refusal")  # noqa: B023
            before = service.status()["windows"]
            wait_for(lambda: service.status()["windows"] > before + 3, 3, "windows go on")
            assert service.status()["active"] == ["TRAFFIC"]
            assert service.status()["mqtt"]["connected"] and service.status()["mqtt"]["connects"] == 1
            assert [incident["event_type"] for incident in heard.of("netspot/test/incident")] == ["opened"]


def test_an_interface_that_moves_ends_no_service_whose_file_cannot_follow(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "wlan0").mkdir()
    config = replace(Config(), exporter=ExporterConfig(file=FileConfig(data=str(tmp_path / "%s"))))
    service = Service(config, lambda config: Paused("eth0"))
    service.source.series = "wlan0"
    service._housekeep()
    service._housekeep()
    assert caplog.text.count("the exporters go on as they were: exporter.file.data") == 1
    service.exporters.close()


def test_its_start_is_told_by_the_clock_as_it_was_set_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pi starts with the time of its last shutdown."""
    now_ns = [1_795_000_000 * 10**9]
    monkeypatch.setattr("netspot.service.time.time_ns", lambda: now_ns[0])
    service = Service(Config(), lambda config: Paused("eth0"))
    assert service.health.figures["started"] == "2026-11-18T11:06:40.000Z"
    now_ns[0] += 10**9  # which is no more than a busy machine
    assert service.health._measure(0.0)["started"] == "2026-11-18T11:06:40.000Z"
    now_ns[0] += 86_400 * 10**9
    assert service.health._measure(0.0)["started"][:10] == "2026-11-19"


def test_numbers_of_alarms_never_come_twice(tmp_path: Path) -> None:
    def burst(service: Served) -> list[int]:
        steady(service, 50)
        before = service.status()["alarms"]
        send(3000)
        wait_for(lambda: service.status()["alarms"] > before, 5, "an alarm")
        return [alarm["seq"] for alarm in service.get("/api/alarms")["alarms"] if alarm["kind"] == "alarm"]

    with served(tmp_path) as service:
        first = burst(service)
        service.end(signal.SIGTERM)
    with served(tmp_path) as service:
        second = burst(service)
        service.end(signal.SIGKILL)
    with served(tmp_path) as service:
        third = burst(service)
    assert max(first) < min(second) and max(second) < min(third)


def test_a_change_over_the_api_is_kept_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    with served(tmp_path, CONFIG + 'include: "conf.d/*.yaml"\n') as service:
        url = ["--url", f"http://127.0.0.1:{service.web_port}", "--token-file", str(tmp_path / "state" / "token")]
        command = [sys.executable, "-m", "netspot.ctl", *url, "config", "set", "analyzer.clear_after=7", "--save"]
        done = subprocess.run(command, capture_output=True, timeout=20)
        assert done.returncode == 0, done.stderr
        assert service.get("/api/config")["analyzer"]["clear_after"] == 7
    with served(tmp_path, CONFIG + 'include: "conf.d/*.yaml"\n') as service:
        assert service.get("/api/config")["analyzer"]["clear_after"] == 7


def told_to(service: Served, path: str, folder: str = "state", **body: object) -> None:
    """Post a change, with the token of the service."""
    token = (service.file.parent / folder / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{service.web_port}{path}"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=5).close()


def test_while_it_is_stopped_it_learns_nothing(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        steady(service, 10)
        told_to(service, "/api/run", action="stop")
        learned, windows = service.status()["learned"], service.status()["windows"]
        wait_for(lambda: service.status()["windows"] > windows + 5, 5, "windows go on")
        assert service.status()["learned"] <= learned + 1
        told_to(service, "/api/run", action="start")
        steady(service, learned + 3)


@needs_mosquitto
def test_what_was_asked_for_shows_before_it_is_answered(tmp_path: Path) -> None:
    slow = CONFIG.replace("period: 100ms", "period: 5s")
    with broker(tmp_path) as server, served(tmp_path, slow, server.port) as service:
        wait_for(lambda: service.status()["mqtt"].get("connected"), 10, "a connection")
        with Fleet(MqttConfig(host="127.0.0.1", port=server.port)) as fleet:
            for action, phase in (("stop", "stopped"), ("start", "learning")):
                told_to(service, "/api/run", action=action)
                assert service.status()["phase"] == phase
                wait_for(lambda phase=phase: fleet.nodes["test"].health.get("phase") == phase, 1, f"{phase} over MQTT")


def test_a_reload_ends_what_was_open_and_forgets_neither_alarms_nor_muting(tmp_path: Path) -> None:
    with served(tmp_path, CONFIG.replace("clear_after: 3", "clear_after: 1000")) as service:
        steady(service, 50)
        send(3000)
        wait_for(lambda: service.get("/api/incidents")["incidents"], 5, "an incident")
        service.file.write_text(service.text.replace("q: 1e-3", "q: 1e-4"))
        told_to(service, "/api/mute", stat="TRAFFIC", seconds=3600)
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: service.get("/api/incidents")["incidents"][0]["event_type"] == "closed", 5, "its end")
        assert service.status()["alarms"] == 1
        assert service.get("/api/stats/TRAFFIC")["state"] == "muted"


def test_a_second_service_on_the_same_folder_ends_at_once_and_says_which_has_it(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        wait_for(lambda: (tmp_path / "state" / state.FILE).exists(), 5, "the first save")
        files = sorted((tmp_path / "state").iterdir())
        again = subprocess.run(
            [sys.executable, "-m", "netspot", "serve", "-c", str(service.file)], capture_output=True, timeout=20
        )
        assert again.returncode == 2
        assert f"{tmp_path}/state: another netspot, process {service.process.pid}, has" in again.stderr.decode()
        assert again.stderr.count(b"\n") == 1 and not again.stdout
        assert sorted((tmp_path / "state").iterdir()) == files
        service.end(signal.SIGKILL)
    with served(tmp_path) as service:
        assert service.end() == 0


def test_a_service_goes_on_when_nothing_reads_what_it_prints(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with served(tmp_path, CONFIG.replace("exporter: {", "exporter: {console: {data: true}, "), stdout=write) as service:
        os.close(write)
        wait_for(lambda: "exporter console: " in service.errors, 5, "one warning")
        before = service.status()["windows"]
        wait_for(lambda: service.status()["windows"] > before + 3, 5, "windows go on")
        assert service.errors.count("exporter console: ") == 1
        assert service.end() == 0


def test_a_folder_that_moves_takes_its_token_along(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "token").write_text("a token of its own\n")
    with served(tmp_path) as service:
        for moves, folder in enumerate(("new", "own"), 1):
            service.file.write_text(service.text.replace(f"{tmp_path}/state", f"{tmp_path}/{folder}"))
            service.process.send_signal(signal.SIGHUP)
            wait_for(lambda moves=moves: service.errors.count("read again") == moves, 5, "the move")
            told_to(service, "/api/mute", folder, stat="all", seconds=60)
            if folder == "new":
                told_to(service, "/api/mute", "state", stat="all", seconds=60)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            told_to(service, "/api/mute", "new", stat="all", seconds=60)


def test_a_folder_that_cannot_be_had_is_no_change(tmp_path: Path) -> None:
    with state.hold(tmp_path / "taken"), served(tmp_path) as service:
        url = ["--url", f"http://127.0.0.1:{service.web_port}", "--token-file", str(tmp_path / "state" / "token")]
        for folder, says in (("/proc/nope", "No such file"), (tmp_path / "taken", "another netspot")):
            command = [sys.executable, "-m", "netspot.ctl", *url, "config", "set", f"state.dir={folder}"]
            done = subprocess.run(command, capture_output=True, timeout=20)
            assert done.returncode == 1 and says in done.stderr.decode()
            assert service.get("/api/config")["state"]["dir"] == f"{tmp_path}/state"
        service.file.write_text(service.text.replace(f"{tmp_path}/state", f"{tmp_path}/taken"))
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "stays as it was" in service.errors, 5, "the refusal")
        with pytest.raises(ConfigError):
            state.hold(tmp_path / "state")
        service.file.write_text(service.text.replace(f"{tmp_path}/state", f"{tmp_path}/other"))
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "read again" in service.errors, 5, "the move")
        state.hold(tmp_path / "state").close()
        with pytest.raises(ConfigError):
            state.hold(tmp_path / "other")
