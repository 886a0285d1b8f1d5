"""What stands in examples/ is loaded, or run, as a user would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from netspot.config import HomeAssistantConfig
from netspot.exporters.mqtt import MqttExporter
from netspot.record import replace
from tests.broker import Broker, broker, free_port, listening, needs_mosquitto, publish, wait_for
from tests.homeassistant import HomeAssistant, needs_homeassistant
from tests.test_mqtt import ALARM, CONTEXT, INCIDENT, SAMPLE, config, connected, drained, write

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NODE_RED = os.environ.get("NETSPOT_NODE_RED")


class Tagged(yaml.SafeLoader):
    """Knows Home Assistant's ``!input``."""


Tagged.add_constructor("!input", lambda loader, node: ("input", node.value))


@pytest.fixture
def secured(tmp_path):
    """A broker as examples/mosquitto sets it up, with nodes pi and attic and a reader."""
    if not (shutil.which("openssl") and shutil.which("mosquitto_passwd")):
        pytest.skip("openssl or mosquitto_passwd is not installed")
    folder = tmp_path / "netspot"
    setup = EXAMPLES / "mosquitto" / "setup"

    def run(*args: str) -> str:
        return subprocess.run([setup, folder, *args], capture_output=True, text=True, check=True).stdout.strip()

    run("init", "localhost", "127.0.0.1")
    passwords = {name: run("node", name) for name in ("pi", "attic", "pi")} | {"home": run("reader", "home")}
    text = (EXAMPLES / "mosquitto" / "netspot.conf").read_text().replace("/etc/mosquitto/netspot", str(folder))
    assert (folder / "acl").read_text().count("user pi\n") == 1
    made = Broker(tmp_path)
    made.configure("")
    own = "user root\n" if os.geteuid() == 0 else ""
    log = f"log_dest file {tmp_path}/broker.log\n"
    (tmp_path / "mosquitto.conf").write_text(
        own + log + text.replace("listener 8883", f"listener {made.port} 127.0.0.1")
    )
    made.start()
    yield made, passwords, str(folder / "ca.crt")
    made.kill()


@needs_mosquitto
def test_the_mosquitto_example_lets_no_node_speak_for_another(secured):
    server, passwords, ca = secured
    tls = config(server.port, tls=True, ca=ca, username="pi", password=passwords["pi"])
    tls = replace(tls, homeassistant=HomeAssistantConfig())
    reader = ("--cafile", ca, "-u", "home", "-P", passwords["home"])
    with listening(server.port, "netspot/#", "homeassistant/#", options=reader) as listener:
        exporter = MqttExporter(tls, CONTEXT)
        exporter.start()
        connected(exporter)
        write(exporter, SAMPLE, ALARM)
        drained(exporter)
        wait_for(lambda: exporter.poll() or listener.of("homeassistant/device/netspot_pi/config"))
        wait_for(lambda: listener.of("netspot/pi/alarm/R_SYN"))
        for topic in (
            "netspot/attic/alarm/R_SYN",
            "homeassistant/device/netspot_attic/config",
            "netspot/attic/request/stop",
        ):
            login = ("--cafile", ca, "-u", "pi", "-P", passwords["pi"])
            publish(server.port, topic, "x", *login, "-q", "1")
        time.sleep(0.2)
        assert not [m for m in listener.messages if "attic" in m["topic"]]
        exporter.close()


@needs_mosquitto
def test_the_bridge_example_brings_alarms_of_a_site_to_headquarters(tmp_path):
    for name in ("north", "head"):
        (tmp_path / name).mkdir()
    with broker(tmp_path / "head") as head:
        text = (EXAMPLES / "mosquitto" / "bridge.conf").read_text()
        text = text.replace("headquarters.example:8883", f"127.0.0.1:{head.port}")
        text = "\n".join(
            line for line in text.splitlines() if not line.startswith(("bridge_cafile", "remote_pass", "remote_user"))
        )
        with broker(tmp_path / "north", f"allow_anonymous true\n{text}") as north:
            exporter = MqttExporter(config(north.port), CONTEXT)
            exporter.start()
            connected(exporter)
            with listening(head.port, "netspot/#") as listener:
                write(exporter, SAMPLE, ALARM, INCIDENT)
                drained(exporter)
                wait_for(lambda: listener.of("netspot/pi/alarm/R_SYN") and listener.of("netspot/pi/incident"))
                assert listener.of("netspot/pi/status")[-1] == "online"
            with listening(north.port, "netspot/pi/request/#") as below:
                publish(head.port, "netspot/pi/request/health", "{}", "-q", "1")
                wait_for(lambda: below.messages)
            head.kill()  # the line is down: alarms of that time follow
            write(exporter, *[replace(ALARM, seq=number) for number in range(100, 120)])
            drained(exporter)
            head.start()
            with listening(head.port, "netspot/pi/alarm/+") as listener:
                wait_for(lambda: len(listener.messages) >= 20, 15)
                assert {a["seq"] for a in listener.of("netspot/pi/alarm/R_SYN")} >= set(range(101, 120))
            exporter.close()


@needs_mosquitto
@pytest.mark.skipif(not NODE_RED, reason="NETSPOT_NODE_RED names no folder with node-red in node_modules")
def test_real_node_red_runs_the_flow(tmp_path):
    assert NODE_RED
    page = free_port()
    with broker(tmp_path) as server:
        flow = (EXAMPLES / "node-red" / "flows.json").read_text()
        flow = flow.replace('"port": "1883"', f'"port": "{server.port}"')
        (tmp_path / "flows.json").write_text(flow)
        (tmp_path / "settings.js").write_text(
            f'module.exports = {{uiHost: "127.0.0.1", uiPort: {page}, flowFile: "flows.json", httpAdminRoot: false,'
            " credentialSecret: false, diagnostics: {enabled: false},"
            " telemetry: {enabled: false, updateNotification: false}, externalModules: {autoInstall: false}}"
        )
        command = ["node", f"{NODE_RED}/node_modules/node-red/red.js", "-u", str(tmp_path)]
        red = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            wait_for(lambda: "netspot/+/incident" in (tmp_path / "broker.log").read_text(), 30, "Node-RED listens")
            exporter = MqttExporter(config(server.port), CONTEXT)
            exporter.start()
            connected(exporter)
            write(exporter, ALARM, INCIDENT, ALARM)  # one twice
            drained(exporter)
            file = tmp_path / "netspot-alarms.jsonl"
            wait_for(lambda: file.exists() and len(file.read_text().splitlines()) == 2)
            assert [json.loads(line)["kind"] for line in file.read_text().splitlines()] == ["alarm", "incident"]
            html = urlopen(f"http://127.0.0.1:{page}/netspot", timeout=5).read().decode()
            assert "port scan" in html and "R_SYN" in html and "0.71" in html
            exporter.close()
        finally:
            red.send_signal(signal.SIGTERM)
            red.wait(10)


def blueprint() -> dict:
    return yaml.load((EXAMPLES / "home-assistant" / "netspot-notify.yaml").read_text(), Tagged)


def test_the_blueprint_declares_all_inputs_that_it_uses():
    text = (EXAMPLES / "home-assistant" / "netspot-notify.yaml").read_text()
    loaded = blueprint()
    used = {line.split("!input ")[1].strip() for line in text.splitlines() if "!input " in line}
    assert used == set(loaded["blueprint"]["input"]) and loaded["blueprint"]["domain"] == "automation"


def test_the_card_names_entities_that_discovery_makes():
    from netspot.exporters.homeassistant import Discovery

    text = (EXAMPLES / "home-assistant" / "dashboard-card.yaml").read_text()
    card = yaml.safe_load(text)
    node = replace(CONTEXT, node="pi-kitchen")
    names = {
        f"{part['p']}.netspot_pi_kitchen_{part['name'].lower().replace(' ', '_')}"
        for part in Discovery(config(1), node).components().values()
    }
    words = text.replace('"', " ").replace("'", " ").split()
    used = {word for word in words if "netspot_pi_kitchen" in word}
    assert card["type"] == "vertical-stack" and used and used <= names


@needs_mosquitto
@needs_homeassistant
def test_real_home_assistant_runs_the_blueprint(tmp_path):
    with broker(tmp_path) as server:
        home = HomeAssistant(tmp_path / "ha", server.port, AUTOMATION)
        folder = home.folder / "blueprints" / "automation" / "netspot"
        folder.mkdir(parents=True)
        shutil.copy(EXAMPLES / "home-assistant" / "netspot-notify.yaml", folder)
        exporter = MqttExporter(replace(config(server.port), homeassistant=HomeAssistantConfig()), CONTEXT)
        exporter.start()
        try:
            home.start()
            wait_for(lambda: exporter.poll() or home.state("event.netspot_pi_anomaly") == "unknown", 15)
            with listening(server.port, "told") as listener:
                write(exporter, INCIDENT)
                drained(exporter)
                wait_for(lambda: listener.of("told") == ["port scan on pi (R_SYN)"])
                write(exporter, replace(INCIDENT, event_type="updated"), replace(INCIDENT, event_type="closed"))
                drained(exporter)
                time.sleep(0.5)
                assert len(listener.of("told")) == 1
            assert home.complaints() == []
            assert not [line for line in home.log().splitlines() if "automation" in line and " ERROR " in line]
        finally:
            exporter.close()
            home.stop()


AUTOMATION = """
automation:
  - alias: tell
    use_blueprint:
      path: netspot/netspot-notify.yaml
      input:
        anomaly: event.netspot_pi_anomaly
        then:
          - action: mqtt.publish
            data: {topic: told, payload: "{{ title }} on {{ node }} ({{ statistics }})"}
"""
