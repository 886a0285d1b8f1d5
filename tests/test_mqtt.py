"""The MQTT exporter against a real mosquitto."""

from __future__ import annotations

import re
import time

import pytest

from netspot.config import HomeAssistantConfig, MqttConfig
from netspot.events import Alarm, Health, Incident, Sample, iso
from netspot.exporters.base import Context, Message, StatInfo
from netspot.exporters.mqtt import MqttExporter
from netspot.record import replace
from tests.broker import Listener, broker, free_port, listening, needs_mosquitto, wait_for

STATS = (StatInfo("R_SYN", "1", "share of SYN"), StatInfo("TRAFFIC", "packet/s", "packets a second"))
CONTEXT = Context(node="pi", series="eth0", version="3.0.0", state_dir=None, stats=STATS, live=True)
T = 1_795_514_401_000_000_000
SAMPLE = Sample("R_SYN", T, 0.0417, "1", 0.093, None, "watching", 1000, 1000)
ALARM = Alarm("R_SYN", T, 0.71, "up", 0.093, 3.1e-7, "pi-6f2c", 41, "high", evidence={"top_src": [["10.0.0.9", 0.9]]})
INCIDENT = Incident("pi-6f2c", T, "opened", 42, "port scan", ("R_SYN",), T, None, {"stat": "R_SYN"})
HEALTH = Health(T, {"phase": "watching", "uptime_s": 60, "captured": 10, "dropped": 0})

pytestmark = needs_mosquitto


def config(port: int, **more) -> MqttConfig:
    plain = {"homeassistant": HomeAssistantConfig(discovery="off"), "keepalive_s": 2.0}
    return MqttConfig(**{"host": "127.0.0.1", "port": port} | plain | more)


def write(exporter: MqttExporter, *events) -> None:
    """As the main loop does: the events of a window, then a turn."""
    for event in events:
        exporter.write(event, Message(event, "pi", "eth0"))
    exporter.poll()


def numbered(first: int, last: int) -> list[Alarm]:
    return [replace(ALARM, seq=number) for number in range(first, last)]


@pytest.fixture
def server(tmp_path):
    with broker(tmp_path) as running:
        yield running


@pytest.fixture
def made():
    """Makes started exporters, and closes them at the end."""
    exporters = []

    def make(settings: MqttConfig, context: Context = CONTEXT) -> MqttExporter:
        exporter = MqttExporter(settings, context)
        exporter.start()
        exporters.append(exporter)
        return exporter

    yield make
    for exporter in exporters:
        exporter.close()


def connected(exporter: MqttExporter, seconds: float = 10.0) -> None:
    wait_for(lambda: exporter.poll() or exporter.health()["connected"], seconds, "connected")
    exporter.poll()


def drained(exporter: MqttExporter, seconds: float = 10.0) -> None:
    wait_for(lambda: exporter.poll() or exporter.health()["spool"] == 0, seconds, "spool is empty")


@pytest.mark.parametrize("protocol", ["auto", "3.1.1", "5"])
def test_every_topic_with_its_qos_and_retain_flag(server, made, protocol):
    with listening(server.port, "netspot/#") as listener:
        exporter = made(config(server.port, protocol=protocol))
        connected(exporter)
        write(exporter, SAMPLE, ALARM, INCIDENT)
        drained(exporter)
        write(exporter, HEALTH)
        wait_for(lambda: listener.of("netspot/pi/health"))
        assert listener.of("netspot/pi/status") == ["online"]
        assert listener.of("netspot/pi/stat/R_SYN")[0]["value"] == 0.0417
        threshold = listener.of("netspot/pi/threshold/R_SYN")[0]
        assert threshold["kind"] == "threshold" and threshold["up"] == 0.093 and "value" not in threshold
        alarm = listener.of("netspot/pi/alarm/R_SYN")[0]
        assert (alarm["seq"], alarm["id"], alarm["kind"]) == (41, "pi-6f2c", "alarm")
        assert listener.of("netspot/pi/incident")[0]["title"] == "port scan"
        state = listener.of("netspot/pi/alarm")[-1]
        assert (state["active"], state["title"], state["stats"]) == (True, "port scan", ["R_SYN"])
        assert state["last"]["evidence"] == ALARM.evidence
        health = listener.of("netspot/pi/health")[-1]
        assert health["mqtt"]["connected"] is True and health["spool"] == 0
        qos = {m["topic"].removeprefix("netspot/pi/"): m["qos"] for m in listener.messages}
        assert qos == {
            "status": 1, "stat/R_SYN": 0, "threshold/R_SYN": 0, "alarm/R_SYN": 1, "incident": 1, "alarm": 1,
            "health": 0,
        }  # fmt: skip
    with listening(server.port, "netspot/#") as late:
        wait_for(lambda: len(late.messages) >= 4)
        assert {m["topic"] for m in late.messages} == {
            f"netspot/pi/{t}" for t in ("status", "threshold/R_SYN", "alarm", "health")
        }


def test_the_state_of_the_node_is_told_once_a_window_with_its_title(server, made):
    names = ["R_SYN", "TRAFFIC", "R_ACK", "R_ICMP"]

    def window(time_ns: int, **more) -> list[Sample]:
        return [replace(SAMPLE, stat=name, time_ns=time_ns, **more) for name in names]

    with listening(server.port, "netspot/pi/alarm") as listener:
        exporter = made(config(server.port))
        connected(exporter)
        exporter._tidy()  # which tells all again
        wait_for(lambda: listener.of("netspot/pi/alarm"))
        before = len(listener.of("netspot/pi/alarm"))
        write(exporter, *window(T), *[replace(ALARM, stat=name) for name in names], INCIDENT)
        write(exporter, *window(T + 10**9, muted=True))  # "mute all"
        late = T + 2 * 10**9  # two windows in one turn of the main loop
        ends = [replace(ALARM, stat=name, event_type="cleared", time_ns=late) for name in names]
        write(exporter, *window(late), *ends, *window(late + 10**9), ALARM)
        time.sleep(0.3)
        told = [(s["title"], len(s["stats"]), len(s["muted"])) for s in listener.of("netspot/pi/alarm")[before:]]
        assert told == [("port scan", 4, 0), ("port scan", 4, 4), ("port scan", 0, 0), ("port scan", 1, 0)]


def test_the_state_of_the_node_waits_where_the_queue_is_full(server, made, monkeypatch):
    """A broker that hangs for a while, and then goes on with the same connection."""
    with listening(server.port, "netspot/pi/alarm") as listener:
        exporter = made(config(server.port, keepalive_s=15.0))
        connected(exporter)
        with monkeypatch.context() as full:
            full.setattr(exporter._link, "send", lambda *args, **more: False)
            write(exporter, ALARM, INCIDENT)
        exporter.poll()
        wait_for(lambda: listener.messages and listener.of("netspot/pi/alarm")[-1]["active"])
        assert listener.of("netspot/pi/alarm")[-1]["title"] == "port scan"


def test_samples_and_thresholds_are_throttled(server, made):
    with listening(server.port, "netspot/#") as listener:
        exporter = made(config(server.port, stat_every_s=0.5))
        connected(exporter)
        time.sleep(1.1)
        exporter.poll()  # once after a second, all is told again
        for number in range(10):
            write(exporter, replace(SAMPLE, up=0.093 * (1 + number / 5000)), replace(SAMPLE, stat="TRAFFIC"))
            time.sleep(0.1)
        time.sleep(0.5)
        write(exporter, replace(SAMPLE, up=0.2))
        wait_for(lambda: listener.of("netspot/pi/threshold/R_SYN")[-1]["up"] == 0.2)
        assert 2 <= len(listener.of("netspot/pi/stat/R_SYN")) <= 5
        assert len(listener.of("netspot/pi/threshold/R_SYN")) == 3  # first, +0.1 %, 0.2
        assert len(listener.of("netspot/pi/threshold/TRAFFIC")) == 1


def test_says_offline_before_a_clean_stop_and_by_its_will_otherwise(server, made, tmp_path):
    with listening(server.port, "netspot/pi/status") as listener:
        exporter = made(config(server.port))
        connected(exporter)
        began = time.monotonic()
        exporter.close()
        assert time.monotonic() - began < 1.0
        wait_for(lambda: listener.of("netspot/pi/status") == ["online", "offline"])
        log = tmp_path / "broker.log"
        wait_for(lambda: "Client netspot-pi disconnected." in log.read_text())  # cleanly: no will was due


def test_a_missing_broker_slows_nothing_and_alarms_wait_for_it(tmp_path, made):
    port = free_port()
    exporter = made(config(port))
    began = time.monotonic()
    write(exporter, *[SAMPLE] * 1000, *numbered(0, 100))
    assert time.monotonic() - began < 0.5
    wait_for(lambda: "nothing listens" in exporter.health()["reason"])
    assert exporter.health()["spool"] == 100 and exporter.health()["dropped"] == 0
    with broker(tmp_path, port=port) as running, listening(running.port, "netspot/#") as listener:
        connected(exporter)
        drained(exporter)
        wait_for(lambda: len(listener.of("netspot/pi/alarm/R_SYN")) >= 100)
        assert [a["seq"] for a in listener.of("netspot/pi/alarm/R_SYN")] == list(range(100))
        assert len(listener.of("netspot/pi/stat/")) <= 1  # stats are not queued; the newest is told


def test_alarms_that_end_with_the_process_are_told(tmp_path, made, caplog):
    (tmp_path / "mqtt-spool.db").mkdir()  # a disk that takes nothing
    for folder, says in ((tmp_path, "cannot be written"), (None, "set state.dir")):
        exporter = made(config(free_port()), replace(CONTEXT, state_dir=folder and str(folder)))
        write(exporter, *numbered(0, 3))
        exporter.close()
        assert re.search(f"3 alarms have not reached the broker and are gone; .*{says}", caplog.text)


def test_reconnects_by_itself_and_tells_everything_again(server, made):
    exporter = made(config(server.port))
    connected(exporter)
    write(exporter, SAMPLE, ALARM)
    drained(exporter)
    server.kill()
    wait_for(lambda: not exporter.health()["connected"])
    write(exporter, *numbered(50, 60))
    server.start()
    listener = Listener(server.port, "netspot/#")
    connected(exporter)
    drained(exporter)
    wait_for(lambda: listener.of("netspot/pi/threshold/R_SYN") and listener.of("netspot/pi/status"))
    assert listener.of("netspot/pi/status")[-1] == "online"
    assert listener.of("netspot/pi/alarm")[-1]["active"] is True
    wait_for(lambda: len(listener.of("netspot/pi/alarm/R_SYN")) >= 8)
    listener.close()


def test_names_of_statistics_are_made_fit_for_topics(server, made):
    with listening(server.port, "netspot/#") as listener:
        exporter = made(config(server.port))
        connected(exporter)
        write(exporter, replace(SAMPLE, stat="FANOUT@60s"), replace(ALARM, stat="FANOUT@60s"))
        drained(exporter)
        wait_for(lambda: listener.of("netspot/pi/alarm/FANOUT_60s"))
        assert listener.of("netspot/pi/stat/FANOUT_60s")[0]["stat"] == "FANOUT@60s"
        assert listener.of("netspot/pi/threshold/FANOUT_60s")


def test_an_alarm_that_began_before_the_exporter_is_active(server, made):
    with listening(server.port, "netspot/pi/alarm") as listener:
        open_ = {"active": {"R_SYN": T - 10**9}, "title": "port scan"}
        exporter = made(config(server.port), replace(CONTEXT, **open_))
        connected(exporter)  # before any sample: R_SYN may have a long span
        wait_for(lambda: listener.of("netspot/pi/alarm"))
        state = listener.of("netspot/pi/alarm")[0]
        assert state["active"] and state["title"] == "port scan" and state["since"] == iso(T - 10**9)
        write(exporter, replace(SAMPLE, stat="R_ACK", state="alarm"))  # which a rule mutes: not told
        write(exporter, replace(SAMPLE, stat="TRAFFIC", state="learning", muted=True))
        wait_for(lambda: listener.of("netspot/pi/alarm")[-1]["muted"] == ["TRAFFIC"])
        assert listener.of("netspot/pi/alarm")[-1]["stats"] == ["R_SYN"]
        write(exporter, replace(ALARM, event_type="cleared"))
        wait_for(lambda: listener.of("netspot/pi/alarm")[-1]["active"] is False)


def test_without_a_spool_alarms_pass_through_memory(server, made, tmp_path):
    with listening(server.port, "netspot/#") as listener:
        exporter = made(config(server.port, spool=0), replace(CONTEXT, state_dir=str(tmp_path)))
        connected(exporter)
        write(exporter, *numbered(0, 200))
        drained(exporter)
        wait_for(lambda: listener.of("netspot/pi/alarm/R_SYN"))
        assert not list(tmp_path.glob("mqtt-spool*"))


@pytest.mark.parametrize("protocol", ["auto", "5"])
def test_a_broker_that_takes_small_packets_only_gets_them_all(tmp_path, protocol):
    """And is not told what it would hang up on, again and again."""
    with (
        broker(tmp_path, "allow_anonymous true\nmax_packet_size 2000") as server,
        listening(server.port, "netspot/pi/#") as listener,
    ):
        exporter = MqttExporter(config(server.port, protocol=protocol), CONTEXT)
        exporter.start()
        connected(exporter)
        large = {"names": ["x" * 100] * 30}
        title = replace(INCIDENT, title="x" * 3000)
        write(exporter, ALARM, replace(ALARM, seq=42, evidence=large), title, replace(ALARM, seq=44))
        wait_for(lambda: exporter.poll() or len(listener.of("netspot/pi/alarm/R_SYN")) == 3)
        wait_for(lambda: exporter.poll() or "the broker takes 2000 bytes at most" in exporter.health()["reason"])
        wait_for(lambda: exporter.poll() or exporter.health()["spool"] == 1, what="the incident waits")
        assert exporter.health()["connects"] == 1
        assert [alarm["evidence"] for alarm in listener.of("netspot/pi/alarm/R_SYN")] == [
            ALARM.evidence,
            {},
            ALARM.evidence,
        ]
        exporter.close()


def test_an_alarm_that_is_too_large_goes_without_its_evidence(server, made):
    with listening(server.port, "netspot/pi/alarm/+") as listener:
        exporter = made(config(server.port))
        connected(exporter)
        write(exporter, replace(ALARM, evidence={"names": ["x" * 100] * 1000}))
        drained(exporter)
        wait_for(lambda: listener.messages)
        assert listener.of("netspot/pi/alarm/R_SYN")[0]["evidence"] == {}
