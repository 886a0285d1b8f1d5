"""Commands by request and response, and many nodes at a glance, over a real mosquitto."""

from __future__ import annotations

import io
import json
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

from netspot.commands import PENDING, CommandError, CommandQueue
from netspot.config import ExporterConfig, MqttConfig
from netspot.errors import NetspotError
from netspot.events import Health, iso
from netspot.exporters.base import Context
from netspot.exporters.fanout import Exporters
from netspot.exporters.mqtt import MqttExporter
from netspot.exporters.requests import REQUEST_BYTES, parse
from netspot.fleet import Fleet, Node, kind_of, merged, only_node, request, show, table
from netspot.record import replace
from tests.broker import PUBLISH, broker, listening, needs_mosquitto, publish, wait_for
from tests.test_mqtt import ALARM, CONTEXT, INCIDENT, config, connected, write


@pytest.fixture
def server(tmp_path):
    with broker(tmp_path) as running:
        yield running


@contextmanager
def obeying(port: int, name: str = "pi", **more):
    """A node whose main loop carries out commands."""
    commands = CommandQueue()
    done: list[tuple[str, dict]] = []

    def handler(command):
        def carry_out(args):
            done.append((command, dict(args)))
            if args.get("stat") == "NONE":
                raise CommandError("no statistic NONE; known: R_SYN")
            return {"command": command, "ratio": float("nan")}

        return carry_out

    names = ("relearn", "mute", "unmute", "health", "stats")
    handlers = {command: handler(command) for command in names}
    exporter = MqttExporter(config(port, **more), replace(CONTEXT, node=name, commands=commands))
    exporter.start()
    stop = threading.Event()

    def main_loop():
        while not stop.wait(0.02):
            commands.serve(handlers)
            exporter.poll()

    loop = threading.Thread(target=main_loop)
    connected(exporter)
    loop.start()
    try:
        yield exporter, done
    finally:
        stop.set()
        loop.join()
        exporter.close()


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_request_and_response(server, protocol):
    settings = config(server.port, protocol=protocol)
    with obeying(server.port, protocol=protocol) as (_, done):
        assert request(settings, "pi", "relearn", {"stat": "all"}) == {"command": "relearn", "ratio": None}
        request(settings, "pi", "mute", {"stat": "all", "seconds": 0})
        assert done == [("relearn", {"stat": "all"}), ("unmute", {"stat": "all"})]
        with pytest.raises(CommandError, match="no statistic NONE"):
            request(settings, "pi", "relearn", {"stat": "NONE"})
        with pytest.raises(CommandError, match="unknown command 'reboot'"):
            request(settings, "pi", "reboot")
        assert only_node(settings) == "pi"
    with pytest.raises(NetspotError, match="did not answer"):
        request(settings, "pi", "health", timeout_s=0.5)


@contextmanager
def rebuilding(now: MqttConfig, after: MqttConfig):
    """As the service does: a change closes the exporters and starts others while the request is carried out."""
    commands, stop = CommandQueue(), threading.Event()
    context = Context("pi", "eth0", "3.0.0", None, commands=commands, live=True)
    running = [Exporters(ExporterConfig(mqtt=now), context)]

    def change(args):
        running[0].close()
        running[0] = Exporters(ExporterConfig(mqtt=after), context)
        running[0].start()
        return {"changed": True}

    def main_loop():
        running[0].start()
        while not stop.wait(0.02):
            commands.serve({"config": change, "health": lambda args: running[0].health()})
            running[0].poll()

    loop = threading.Thread(target=main_loop)
    loop.start()
    try:
        yield running
    finally:
        stop.set()
        loop.join()
        running[0].close()


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["3.1.1", "auto"])
@pytest.mark.parametrize("after", ["same", "none"])
def test_a_request_that_rebuilds_the_exporters_is_answered(server, protocol, after):
    """Over the broker that it came from, also where the new configuration has none."""
    settings = config(server.port, protocol=protocol)
    with rebuilding(settings, settings if after == "same" else replace(settings, host=None)) as running:
        wait_for(lambda: running[0].health()["mqtt"]["connected"], what="connected")
        with listening(server.port, "netspot/pi/response/#") as listener:
            publish(server.port, "netspot/pi/request/config", '{"transaction": 1}')
            wait_for(lambda: listener.of("netspot/pi/response/config"), what="answered")
            answer = {"status": "ok", "data": {"changed": True}, "transaction": 1}
            assert listener.of("netspot/pi/response/config") == [answer]
        if after == "same":
            wait_for(lambda: running[0].health()["mqtt"]["connected"], what="connected again")
            assert "mqtt" in request(settings, "pi", "health")


@needs_mosquitto
def test_bad_requests_get_an_answer_or_nothing(server):
    with obeying(server.port) as (_, done), listening(server.port, "netspot/pi/response/#", "else/#") as listener:
        publish(server.port, "netspot/pi/request/stats", "{")
        publish(server.port, "netspot/pi/request/stats", "[1]")
        publish(server.port, "netspot/pi/request/stats", '{"transaction": {"a": 1}}')
        publish(server.port, "netspot/pi/request/stats", "{}")
        wait_for(lambda: len(listener.messages) == 4)
        answers = listener.of("netspot/pi/response/stats")
        assert [a["status"] for a in answers] == ["error"] * 3 + ["ok"]
        assert "JSON object" in answers[0]["error"] and "transaction" in answers[2]["error"]
        publish(server.port, "netspot/pi/request/stats", "{}", "-r")  # retained later: only the live copy counts
        wait_for(lambda: len(done) == 2)
        publish(server.port, "netspot/pi/request/relearn", "{}", "-r")
        wait_for(lambda: len(done) == 3)
    with obeying(server.port) as (_, done):
        publish(server.port, "netspot/pi/request/relearn", "", "-r")  # clears it, and is no request
        time.sleep(0.3)
        assert done == []


@needs_mosquitto
def test_response_topic_and_correlation_data_of_version_5(server):
    options = ("-V", "5", "-q", "1", "-D", "publish", "response-topic")
    with (
        obeying(server.port, protocol="5"),
        listening(server.port, "else/#", "netspot/pi/#", options=("-V", "5")) as heard,
    ):
        data = ("-D", "publish", "correlation-data", "abc")
        publish(server.port, "netspot/pi/request/stats", '{"transaction":7}', *options, "else/answers", *data)
        wait_for(lambda: heard.of("else/answers"))
        assert heard.of("else/answers")[0] == {
            "status": "ok",
            "data": {"command": "stats", "ratio": None},
            "transaction": 7,
        }
        found = next(m for m in heard.messages if m["topic"] == "else/answers")
        assert found.get("properties", {}).get("correlation-data", "abc") == "abc"
        publish(server.port, "netspot/pi/request/stats", "{}", *options, "netspot/pi/status")  # in this node's name: no
        wait_for(lambda: heard.of("netspot/pi/response/stats"))
        assert set(map(str, heard.of("netspot/pi/status"))) <= {"online"}


@needs_mosquitto
def test_a_flood_of_requests_costs_nothing(server):
    commands = CommandQueue()
    exporter = MqttExporter(config(server.port), replace(CONTEXT, commands=commands))
    exporter.start()
    connected(exporter)
    with listening(server.port, "netspot/pi/response/#") as heard:
        script = "".join("{}\n" for _ in range(500))
        subprocess.run(
            [*PUBLISH, "-p", str(server.port), "-t", "netspot/pi/request/stats", "-l"],
            input=script,
            text=True,
            check=True,
        )
        wait_for(lambda: len(heard.messages) >= 500 - PENDING)
        assert "wait already" in heard.of("netspot/pi/response/stats")[0]["error"]
    exporter.close()


@needs_mosquitto
def test_commands_can_be_turned_off(server, tmp_path):
    exporter = MqttExporter(config(server.port, commands=False), replace(CONTEXT, commands=CommandQueue()))
    exporter.start()
    connected(exporter)
    exporter.close()
    assert "request/+" not in (tmp_path / "broker.log").read_text()


@pytest.mark.parametrize("payload", [b"x" * (REQUEST_BYTES + 1), b"[" * 10_000, b"\xff", b'"a"', b"NaN"])
def test_hostile_payloads(payload):
    with pytest.raises(CommandError):
        parse(payload)


@needs_mosquitto
def test_the_fleet_at_a_glance(server):
    settings = config(server.port)
    now_ns = time.time_ns()
    with obeying(server.port, "attic") as (attic, _), obeying(server.port, "cellar") as (cellar, _):
        for node in (attic, cellar):
            figures = {"phase": "watching", "dropped": 3, "captured": 12, "version": "3.0.0"}
            write(
                node,
                Health(now_ns, figures),
                replace(ALARM, time_ns=now_ns),
                replace(INCIDENT, title="port scan from 10.0.0.9"),
            )
        out = io.StringIO()
        show(settings, out=out)
        text = out.getvalue()
        assert [line.split()[:6] for line in text.splitlines()[1:3]] == [
            ["attic", "online", "watching", "3", "12", "3.0.0"],
            ["cellar", "online", "watching", "3", "12", "3.0.0"],
        ]
        assert "2 nodes since" in text and "(attic, cellar)" in text and " s ago" in text
        out = io.StringIO()
        show(settings, as_json=True, out=out)
        assert [n["node"] for n in json.loads(out.getvalue())["nodes"]] == ["attic", "cellar"]
        with pytest.raises(NetspotError, match="2 nodes are known"):
            only_node(settings)
        with Fleet(settings) as fleet:
            write(attic, replace(ALARM, event_type="cleared"))
            wait_for(lambda: len(fleet.incidents()[0].nodes) == 1)
            attic.close()
            wait_for(lambda: fleet.nodes["attic"].status == "offline")


def node(name: str, title: str, at_s: float, stats=("R_SYN",)) -> Node:
    return Node(name, alarm={"active": True, "title": title, "stats": list(stats), "since": iso(int(at_s * 1e9))})


def test_a_table_fits_the_terminal_with_incidents_first():
    fleet = Fleet(config(1))
    nodes = [Node(f"n{i:02}", "online") for i in range(30)]
    nodes += [Node("off", "offline"), node("x", "port scan", 1000), node("y", "port scan", 1001)]
    fleet.nodes = {each.name: each for each in nodes}
    lines = table(fleet, 2000.0, 10).splitlines()
    assert [line.split()[0] for line in lines] == "NODE x y off n00 n01 n02 n03 ... 2".split()
    assert lines[8] == "... and 26 more"
    assert len(table(fleet, 2000.0).splitlines()) == 1 + 33 + 1


def test_incidents_of_one_kind_within_a_minute_are_one():
    nodes = [
        node("a", "port scan from 10.0.0.9: 412 ports on 10.0.0.1", 1000),
        node("b", "port scan from 10.0.0.9: 9 ports on 10.0.0.2", 1050),
        node("c", "port scan from 10.0.0.9: 9 ports on 10.0.0.3", 1105),
        node("d", "port scan from 10.0.0.9", 1200),
        node("e", "SYN flood on 10.0.0.1", 1001),
    ]
    found = [(one.kind, one.nodes) for one in merged(nodes)]
    assert found == [("port scan", ("d",)), ("syn flood", ("e",)), ("port scan", ("a", "b", "c"))]
    assert kind_of({"title": None, "stats": ["B", "A"]}) == "A,B"
    assert kind_of({}) == "anomaly"


@needs_mosquitto
def test_hostile_nodes_do_not_break_the_view(server):
    publish(server.port, "netspot/a/alarm", '{"active":true,"title":"\\u001b]0;x\\u0007"}', "-r")
    publish(server.port, "netspot/b/health", "[1,2", "-r")
    publish(server.port, "netspot/c/alarm", '{"active":true,"since":"yesterday","stats":7,"title":["x"]}', "-r")
    publish(server.port, "netspot/d/health", '{"time_ns":"soon","phase":{"a":1}}', "-r")
    publish(server.port, "netspot/e/alarm", '{"active":true,"title":"","stats":7}', "-r")
    publish(server.port, "netspot/f/health", f'{{"time_ns":1{"0" * 400}}}', "-r")
    out = io.StringIO()
    show(config(server.port), out=out)
    assert "\x1b" not in out.getvalue() and len(out.getvalue().splitlines()) == 7
