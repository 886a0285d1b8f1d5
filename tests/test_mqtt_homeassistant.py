"""Home Assistant: discovery messages, and, where one is installed, the real program that reads them."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time

import pytest

from netspot.commands import CommandQueue
from netspot.config import Config, ExporterConfig, HomeAssistantConfig
from netspot.errors import NetspotError
from netspot.events import Health, Sample
from netspot.exporters import mqtt as mqtt_module
from netspot.exporters.base import StatInfo
from netspot.exporters.homeassistant import Discovery, ha_remove
from netspot.exporters.mqtt import MqttExporter
from netspot.exporters.talk import Incoming
from netspot.record import replace
from tests.broker import broker, listening, needs_mosquitto, publish, wait_for
from tests.homeassistant import HomeAssistant, needs_homeassistant
from tests.test_mqtt import ALARM, CONTEXT, HEALTH, INCIDENT, SAMPLE, config, connected, write

STATS = (
    *CONTEXT.stats,
    StatInfo("AVG_PKT_SIZE", "byte", "mean size"),
    StatInfo("FANOUT_PORTS_60s", "ports", "fan-out"),
)
NODE = replace(CONTEXT, stats=STATS)
DEVICE = HomeAssistantConfig()
COMPONENT = HomeAssistantConfig(discovery="component")


@pytest.fixture
def server(tmp_path):
    with broker(tmp_path) as running:
        yield running


def discovery(kind: HomeAssistantConfig = DEVICE, context=NODE) -> Discovery:
    return Discovery(config(1, homeassistant=kind), context)


def test_one_device_with_an_entity_for_everything():
    ((topic, payload),) = discovery().messages()
    assert topic == "homeassistant/device/netspot_pi/config"
    message = json.loads(payload)
    assert message["o"]["name"] == "netspot" and message["dev"]["ids"] == ["netspot_pi"]
    assert all(part["p"] and part["uniq_id"] == f"netspot_pi_{key}" for key, part in message["cmps"].items())
    assert {f"stat_{info.name.lower()}" for info in STATS} <= set(message["cmps"])
    assert message["cmps"]["stat_avg_pkt_size"]["unit_of_meas"] == "B"
    assert "unit_of_meas" not in message["cmps"]["stat_r_syn"]
    assert set(message["cmps"]["phase"]["ops"]) == {"learning", "watching", "degraded", "stopped"}  # of health
    silent = Discovery(config(1, commands=False), NODE)
    assert not {"relearn", "mute"} & set(silent.components())


def test_by_component_every_entity_has_a_message_of_its_own():
    by_device = discovery().components()
    messages = dict(discovery(COMPONENT).messages())
    assert set(messages) == {f"homeassistant/{part['p']}/netspot_pi/{key}/config" for key, part in by_device.items()}
    assert all(json.loads(text)["dev"]["ids"] == ["netspot_pi"] for text in messages.values())


def test_what_is_gone_is_taken_back():
    ((topic, old),) = discovery().messages()
    now = discovery(context=replace(NODE, stats=STATS[:1]))
    first, second = now.leftovers([Incoming(topic, old.encode(), True, None, None)])
    assert json.loads(first[1])["cmps"]["stat_traffic"] == {"p": "sensor"}
    assert second == now.messages()[0]
    assert now.leftovers([Incoming(topic, now.messages()[0][1].encode(), True, None, None)]) == []
    component = discovery(COMPONENT)
    assert component.leftovers([Incoming(topic, old.encode(), True, None, None)]) == [(topic, "")]
    for hostile in (b"[", b"7", b'{"cmps":[1]}', b'{"cmps":{"x":1}}', b'{"cmps":{"x":{"p":[]}}}'):
        assert now.leftovers([Incoming(topic, hostile, True, None, None)]) == []


@needs_mosquitto
def test_retained_topics_of_statistics_that_are_gone_are_cleared(server, monkeypatch):
    monkeypatch.setattr(mqtt_module, "TIDY_S", 0.3)
    before = MqttExporter(config(server.port, homeassistant=DEVICE), NODE)
    before.start()
    connected(before)
    write(before, SAMPLE, replace(SAMPLE, stat="TRAFFIC"))
    wait_for(lambda: before.poll() or before._tidy_at_s == math.inf)
    before.close()
    after = MqttExporter(config(server.port, homeassistant=COMPONENT), replace(NODE, stats=STATS[:1]))
    after.start()
    connected(after)
    wait_for(lambda: after.poll() or after._tidy_at_s == math.inf)
    time.sleep(0.2)
    after.close()
    with listening(server.port, "#") as listener:
        wait_for(lambda: listener.of("netspot/pi/threshold/R_SYN"))
        time.sleep(0.2)  # for the others that are retained
        topics = {m["topic"] for m in listener.messages}
    assert "netspot/pi/threshold/R_SYN" in topics and "netspot/pi/threshold/TRAFFIC" not in topics
    assert "homeassistant/device/netspot_pi/config" not in topics
    assert "homeassistant/sensor/netspot_pi/stat_r_syn/config" in topics


@needs_mosquitto
def test_birth_is_answered_with_discovery_then_online_then_states(server, monkeypatch):
    monkeypatch.setattr(mqtt_module.random, "uniform", lambda low, high: 0.1)
    exporter = MqttExporter(config(server.port, homeassistant=DEVICE), NODE)
    exporter.start()
    connected(exporter)
    write(exporter, SAMPLE, ALARM, HEALTH)
    wait_for(lambda: exporter.poll() or exporter._tidy_at_s == math.inf)
    time.sleep(0.1)
    with listening(server.port, "#") as listener:
        wait_for(lambda: listener.messages)
        time.sleep(0.1)
        known = len(listener.messages)  # what is retained
        publish(server.port, "homeassistant/status", "online")
        states = {f"netspot/pi/{name}" for name in ("alarm", "health", "stat/R_SYN", "threshold/R_SYN")}
        birth = ["homeassistant/device/netspot_pi/config", "netspot/pi/status"]

        def answer() -> list[str]:
            """From the discovery on: on a slow machine a regular value may come before it."""
            topics = [m["topic"] for m in listener.messages[known:]]
            return topics[topics.index(birth[0]) :] if birth[0] in topics else []

        wait_for(lambda: exporter.poll() or states <= set(answer()[2:]))
        assert answer()[:2] == birth
    exporter.close()


@needs_mosquitto
def test_ha_remove_clears_everything_that_is_retained(server):
    settings = config(server.port, homeassistant=DEVICE)
    exporter = MqttExporter(settings, NODE)
    exporter.start()
    connected(exporter)
    write(exporter, SAMPLE, ALARM, HEALTH)
    wait_for(lambda: exporter.poll() or exporter._tidy_at_s == math.inf)
    exporter.close()
    whole = Config(node="pi", exporter=replace(ExporterConfig(), mqtt=settings))
    told = ha_remove(whole, 0.3)
    assert told == f"5 retained topics of node pi cleared on 127.0.0.1:{server.port}"
    with listening(server.port, "#") as listener:
        time.sleep(0.3)
        assert listener.messages == []
    with pytest.raises(NetspotError, match="host is not set"):
        ha_remove(Config())


NODE_PROGRAM = """
import sys, time
from netspot.record import replace
from tests.test_mqtt_homeassistant import events_now, live_exporter
exporter, write = live_exporter(int(sys.argv[1]), sys.argv[2])
write(*events_now())
while True:
    exporter.poll()
    time.sleep(0.02)
"""


def live_exporter(port: int, kind: str, context=NODE):
    settings = config(port, homeassistant=HomeAssistantConfig(discovery=kind), stat_every_s=1.0)
    exporter = MqttExporter(settings, replace(context, commands=CommandQueue()))
    exporter.start()
    return exporter, lambda *events: write(exporter, *events)


def events_now() -> list:
    now = time.time_ns()
    figures = {
        "phase": "watching", "uptime_s": 60, "started": "2026-11-24T10:00:00.000Z", "captured": 1234, "dropped": 5,
    }  # fmt: skip
    samples = [
        Sample("R_SYN", now, 0.0417, "1", 0.093, None, "watching", 1000, 1000),
        Sample("TRAFFIC", now, 812.5, "packet/s", 2000.0, None, "watching", 1000, 1000),
        Sample("AVG_PKT_SIZE", now, math.nan, "byte", None, None, "learning", 3, 1000),
        Sample("FANOUT_PORTS_60s", now, 9.0, "ports", 9.1, None, "watching", 1000, 1000),
    ]
    alarm = replace(ALARM, time_ns=now)
    return [*samples, Health(now, figures), alarm, replace(INCIDENT, time_ns=now)]


@needs_mosquitto
@needs_homeassistant
@pytest.mark.parametrize("kind", ["device", "component"])
def test_real_home_assistant(server, tmp_path, kind):
    """Every entity, commands, kill -9, restarts of Home Assistant and broker, removal: nothing to complain of."""
    home = HomeAssistant(tmp_path / "ha", server.port)

    def node() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", NODE_PROGRAM, str(server.port), kind])

    running = node()
    figures: dict[str, float] = {}
    try:
        home.start()
        expected = {
            "binary_sensor.netspot_pi_network_anomaly": "on",
            "sensor.netspot_pi_r_syn": "0.0417",
            "sensor.netspot_pi_traffic": "812.5",
            "sensor.netspot_pi_avg_pkt_size": "unknown",  # not a number: nothing to compare with
            "sensor.netspot_pi_fanout_ports_60s": "9.0",
            "sensor.netspot_pi_packets_captured": "1234",
            "sensor.netspot_pi_packets_dropped": "5",
            "sensor.netspot_pi_phase": "watching",
            "sensor.netspot_pi_started": "2026-11-24T10:00:00+00:00",
            "switch.netspot_pi_mute_alarms": "off",
            "button.netspot_pi_relearn": "unknown",
            "event.netspot_pi_anomaly": "unknown",
        }

        def right(wanted=expected) -> bool:
            states = home.states()
            return all(key in states and states[key]["state"] == value for key, value in wanted.items())

        def back(what: str, limit: float) -> None:
            began = time.monotonic()
            wait_for(right, limit, f"{what}: {({k: home.state(k) for k in expected})}")
            figures[what] = round(time.monotonic() - began, 1)

        back("every entity has its state", 20)
        mine = {key for key in home.states() if "netspot_pi" in key}
        assert mine == set(expected), mine ^ set(expected)
        attributes = home.states()["binary_sensor.netspot_pi_network_anomaly"]["attributes"]
        assert attributes["title"] == "port scan" and attributes["last"]["evidence"] == ALARM.evidence
        assert home.states()["sensor.netspot_pi_traffic"]["attributes"]["unit_of_measurement"] == "packet/s"

        with listening(server.port, "netspot/pi/request/#") as listener:
            home.call("/api/services/button/press", {"entity_id": "button.netspot_pi_relearn"})
            home.call("/api/services/switch/turn_on", {"entity_id": "switch.netspot_pi_mute_alarms"})
            home.call("/api/services/switch/turn_off", {"entity_id": "switch.netspot_pi_mute_alarms"})
            wait_for(lambda: len(listener.messages) == 3)
            assert listener.of("netspot/pi/request/relearn") == [{"stat": "all"}]
            assert listener.of("netspot/pi/request/mute") == [
                {"stat": "all", "seconds": 86400},
                {"stat": "all", "seconds": 0},
            ]
        expected.pop("button.netspot_pi_relearn")  # now it tells when it was pressed

        running.kill()
        running.wait()
        began = time.monotonic()
        wait_for(lambda: home.state("binary_sensor.netspot_pi_network_anomaly") == "unavailable", 5)
        figures["unavailable after kill -9"] = round(time.monotonic() - began, 1)
        running = node()
        back("back after a new start", 15)

        wait_for(lambda: home.state("event.netspot_pi_anomaly") != "unknown", 5)  # this time Home Assistant was there
        assert home.states()["event.netspot_pi_anomaly"]["attributes"]["event_type"] == "opened"
        expected.pop("event.netspot_pi_anomaly")
        server.restart()
        back("back after a restart of the broker", 15)
        home.stop()
        home.start()
        back("back after a restart of Home Assistant", 15)

        running.kill()
        running.wait()
        fewer = replace(NODE, stats=STATS[:1])
        exporter, tell = live_exporter(server.port, kind, fewer)
        tell(*events_now()[:1])
        wait_for(
            lambda: exporter.poll() or home.state("sensor.netspot_pi_traffic") is None, 10, "a statistic disappears"
        )
        assert home.state("sensor.netspot_pi_r_syn") is not None
        exporter.close()
        whole = Config(node="pi", exporter=replace(ExporterConfig(), mqtt=config(server.port, homeassistant=DEVICE)))
        ha_remove(whole, 0.5)
        wait_for(lambda: not [key for key in home.states() if "netspot_pi" in key], 10, "everything is removed")
        assert home.complaints() == []
        print(json.dumps(figures))
    finally:
        running.kill()
        running.wait()
        home.stop()
        shutil.copy(home.folder / "home-assistant.log", os.environ.get("NETSPOT_KEEP", os.devnull))
