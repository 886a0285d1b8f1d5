"""How the exporter reaches a broker, what it says when it cannot, and how it notices that nothing arrives."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from netspot.config import MqttConfig
from netspot.errors import ConfigError, NetspotError
from netspot.exporters import delivery as delivery_module
from netspot.exporters import link as link_module
from netspot.exporters import talk as talk_module
from netspot.exporters.client import PAHO_2
from netspot.exporters.link import Link
from netspot.exporters.mqtt import MqttExporter
from netspot.exporters.talk import Presence
from netspot.record import replace
from tests.broker import broker, free_port, listening, needs_mosquitto, publish, wait_for
from tests.test_mqtt import ALARM, CONTEXT, INCIDENT, config, connected, drained, numbered, write

pytestmark = [
    needs_mosquitto,
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates"),
]

TLS = "cafile {dir}/ca.crt\ncertfile {dir}/server.crt\nkeyfile {dir}/server.key\n"
PASSWORD = "allow_anonymous false\npassword_file {dir}/passwd\nacl_file {dir}/acl\n"
ACL = "user pi\ntopic readwrite netspot/pi/#\ntopic read homeassistant/status\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """ca, server (localhost, 127.0.0.1), client, expired server, another ca."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    def authority(name: str) -> None:
        key = ("-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key")
        openssl("req", "-x509", *key, "-out", f"{name}.crt", "-days", "30", "-subj", f"/CN={name}")

    def issued(name: str, names: str, *when: str) -> None:
        openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=pi"
        )
        (folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *sign, *(when or ("-days", "30")))

    authority("ca")
    authority("other")
    issued("server", "DNS:localhost,DNS:broker.example,IP:127.0.0.1")
    issued("client", "DNS:pi")
    issued("expired", "DNS:localhost,IP:127.0.0.1", "-days", "-1")
    return folder


@pytest.fixture
def folder(tmp_path, certificates):
    for file in certificates.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "acl").write_text(ACL)
    (tmp_path / "passwd").write_text("")
    set_password(tmp_path, "secret")
    return tmp_path


def set_password(folder, password: str) -> None:
    subprocess.run(["mosquitto_passwd", "-b", str(folder / "passwd"), "pi", password], check=True, capture_output=True)
    (folder / "passwd").chmod(0o644)


def reason_of(settings: MqttConfig, wanted: str, seconds: float = 8.0) -> str:
    exporter = MqttExporter(settings, CONTEXT)
    exporter.start()
    try:
        wait_for(lambda: wanted in exporter.health()["reason"], seconds, f"{wanted!r} in the reason")
        return exporter.health()["reason"]
    except AssertionError:
        raise AssertionError(f"{wanted!r} is not in {exporter.health()}") from None
    finally:
        exporter.close()


def delivers(settings: MqttConfig, server, options: tuple[str, ...] = ()) -> None:
    exporter = MqttExporter(settings, CONTEXT)
    exporter.start()
    try:
        with listening(server.port, "netspot/#", options=options) as listener:
            connected(exporter)
            write(exporter, *numbered(0, 10))
            drained(exporter)
            wait_for(lambda: len(listener.of("netspot/pi/alarm/R_SYN")) == 10)
    finally:
        exporter.close()


def authenticated(folder, *more: str) -> tuple[str, ...]:
    return ("--cafile", str(folder / "ca.crt"), "-u", "pi", "-P", "secret", *more)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_password_and_acl_over_tls(folder, protocol):
    with broker(folder, TLS + PASSWORD) as server:
        settings = config(server.port, tls=True, ca=str(folder / "ca.crt"), username="pi", password="secret")
        settings = replace(settings, protocol=protocol)
        delivers(settings, server, authenticated(folder))
        assert "not authorised" in reason_of(replace(settings, password="wrong"), "not authorised")
        reason_of(replace(settings, ca=str(folder / "other.crt")), "not signed by a known authority")
        reason_of(replace(settings, server_name="elsewhere.example"), "is for another name")
        delivers(replace(settings, server_name="broker.example"), server, authenticated(folder))
        delivers(replace(settings, server_name="elsewhere.example", tls_insecure=True), server, authenticated(folder))
        reason_of(replace(settings, tls=False), "closed the connection before it answered")


def test_mutual_tls(folder):
    with broker(folder, TLS + "require_certificate true\nuse_identity_as_username true\n") as server:
        own = {"cert": str(folder / "client.crt"), "key": str(folder / "client.key")}
        settings = config(server.port, tls=True, ca=str(folder / "ca.crt"), **own)
        delivers(settings, server, ("--cafile", str(folder / "ca.crt"), "--cert", own["cert"], "--key", own["key"]))
        reason = reason_of(replace(settings, cert=None, key=None), "client certificate")
        assert "give mqtt.cert" in reason or "a missing client certificate" in reason


def test_expired_certificate(folder):
    with broker(folder, TLS.replace("server", "expired") + "allow_anonymous true\n") as server:
        reason_of(config(server.port, tls=True, ca=str(folder / "ca.crt")), "certificate has expired")


def test_websockets(tmp_path):
    plain = free_port()
    with broker(tmp_path, f"protocol websockets\nlistener {plain} 127.0.0.1\nallow_anonymous true") as server:
        settings = config(server.port, transport="websockets")
        server.port = plain  # mosquitto_sub speaks no websockets
        delivers(settings, server)


def test_websockets_over_tls(folder):
    plain = free_port()
    extra = "protocol websockets\n" + TLS + f"listener {plain} 127.0.0.1\nallow_anonymous true\n"
    with broker(folder, extra) as server:
        settings = config(server.port, transport="websockets", tls=True, ca=str(folder / "ca.crt"))
        server.port = plain
        delivers(settings, server)


def test_unix_socket(tmp_path):
    path = tmp_path / "mqtt.sock"
    with broker(tmp_path, f"listener 0 {path}\nallow_anonymous true") as server:
        settings = replace(config(0), transport="unix", host=str(path))
        if PAHO_2:
            delivers(settings, server)
            reason_of(replace(settings, host=str(tmp_path / "none")), "no such file")
        else:
            with pytest.raises(ConfigError, match="needs paho-mqtt 2"):
                MqttExporter(settings, CONTEXT)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"tls": True, "ca": "/nowhere/ca.crt"}, "give PEM files"),
        ({"base": "a/#"}, r"without \+ and #"),
        ({"transport": "pigeon"}, "tcp, websockets or unix"),
    ],
)
def test_settings_that_can_never_work(more, match):
    with pytest.raises(ConfigError, match=match):
        MqttExporter(config(1, **more), CONTEXT)


def test_reasons_for_what_is_no_broker():
    reason_of(config(free_port()), "nothing listens on 127.0.0.1")
    reason_of(replace(config(1883), host="no-such-host.invalid"), "is unknown")
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, and says nothing
        threading.Thread(target=lambda: deaf.accept()[0].close(), daemon=True).start()
        reason_of(config(deaf.getsockname()[1]), "closed the connection before it answered")


def test_each_reason_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(link_module, "BACKOFF_S", (0.1, 0.3))
    exporter = MqttExporter(config(free_port()), CONTEXT)
    exporter.start()
    wait_for(lambda: exporter._link.failures >= 3)
    exporter.close()
    assert len([r for r in caplog.records if "nothing listens" in r.message]) == 1


def test_a_changed_password_keeps_the_alarms(folder, monkeypatch):
    monkeypatch.setattr(link_module, "BACKOFF_S", (0.1, 0.3))
    with broker(folder, PASSWORD) as server:
        settings = config(server.port, username="pi", password="secret")
        exporter = MqttExporter(settings, CONTEXT)
        exporter.start()
        connected(exporter)
        set_password(folder, "changed")
        server.restart()
        wait_for(lambda: "not authorised" in exporter.health()["reason"], what="refused")
        write(exporter, *numbered(0, 20))
        set_password(folder, "secret")
        server.signal(signal.SIGHUP)
        with listening(server.port, "netspot/#", options=("-u", "pi", "-P", "secret")) as listener:
            connected(exporter)
            drained(exporter)
            wait_for(lambda: [a["seq"] for a in listener.of("netspot/pi/alarm/R_SYN")] == list(range(20)))
        exporter.close()


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_access_rules_that_swallow_everything_are_noticed(folder, protocol, monkeypatch):
    monkeypatch.setattr(talk_module, "ECHO_S", 0.5)
    monkeypatch.setattr(link_module, "BACKOFF_S", (0.1, 0.3))
    (folder / "acl").write_text("user pi\ntopic readwrite other/#\n")
    with broker(folder, PASSWORD) as server:
        exporter = MqttExporter(config(server.port, username="pi", password="secret", protocol=protocol), CONTEXT)
        exporter.start()
        write(exporter, ALARM)
        told = "not authorised" if protocol == "5" and PAHO_2 else "does not pass on netspot/pi/status"
        wait_for(lambda: told in exporter.health()["reason"], what=told)
        exporter.poll()
        assert exporter.health()["spool"] == 1  # an acknowledgement alone is not believed
        assert not exporter.health()["connected"]
        (folder / "acl").write_text(ACL)
        server.signal(signal.SIGHUP)
        connected(exporter)
        drained(exporter)
        exporter.close()


@pytest.mark.skipif(not PAHO_2, reason="paho 1.6 does not tell the reason code of an acknowledgement")
def test_an_alarm_that_is_refused_waits_and_lets_others_pass(folder, monkeypatch):
    monkeypatch.setattr(delivery_module, "RETRY_S", 0.3)
    login = ("-u", "pi", "-P", "secret")
    (folder / "acl").write_text("user pi\ntopic readwrite netspot/pi/status\ntopic readwrite netspot/pi/incident\n")
    with broker(folder, PASSWORD) as server, listening(server.port, "netspot/#", options=login) as listener:
        exporter = MqttExporter(config(server.port, username="pi", password="secret", protocol="5"), CONTEXT)
        exporter.start()
        write(exporter, *numbered(0, 80), INCIDENT)
        wait_for(lambda: exporter.poll() or listener.of("netspot/pi/incident"))
        assert "netspot/pi/alarm/R_SYN is refused" in exporter.health()["reason"]
        wait_for(lambda: exporter.poll() or exporter.health()["spool"] == 80)
        assert exporter.health()["connected"]
        (folder / "acl").write_text(ACL)
        server.signal(signal.SIGHUP)
        drained(exporter)
        wait_for(lambda: [a["seq"] for a in listener.of("netspot/pi/alarm/R_SYN")][-1:] == [79])
        exporter.close()


def test_a_frozen_broker_is_noticed_and_nothing_is_lost(tmp_path):
    with broker(tmp_path) as server:
        exporter = MqttExporter(config(server.port, keepalive_s=1), CONTEXT)
        exporter.start()
        connected(exporter)
        with listening(server.port, "netspot/#") as listener:
            server.freeze()
            write(exporter, *numbered(0, 100))
            wait_for(lambda: exporter.poll() or not exporter.health()["connected"], 6, "half-open link noticed")
            server.thaw()
            connected(exporter, 20)
            drained(exporter)
            wait_for(lambda: {a["seq"] for a in listener.of("netspot/pi/alarm/R_SYN")} == set(range(100)))
        exporter.close()


def test_the_network_thread_survives_bugs_and_is_started_again(tmp_path, caplog):
    with broker(tmp_path) as server:
        exporter = MqttExporter(config(server.port), CONTEXT)

        def bug(message):
            raise RuntimeError("bug")

        exporter._link.receive = bug
        exporter._link.subscriptions += ("netspot/bug",)
        exporter.start()
        connected(exporter)
        publish(server.port, "netspot/bug", "x")
        wait_for(lambda: "could not be handled" in caplog.text)
        write(exporter, ALARM)
        drained(exporter)
        run, exporter._link._run = exporter._link._run, lambda: None
        server.restart()  # ends the talk; then the thread
        wait_for(lambda: not exporter.health()["connected"])
        exporter._link.closing = True
        wait_for(lambda: not exporter._link.alive)
        exporter._link.closing, exporter._link._run = False, run
        connected(exporter)
        assert "started again" in caplog.text
        exporter.close()


def test_auto_falls_back_for_a_broker_that_knows_no_version_5(tmp_path):
    """A proxy that hangs up on CONNECT packets of version 5, as brokers of old do."""
    with broker(tmp_path) as server, socket.create_server(("127.0.0.1", 0)) as door:
        script = subprocess.Popen(
            [sys.executable, "-c", PROXY, str(door.fileno()), str(server.port)], pass_fds=[door.fileno()]
        )
        try:
            exporter = MqttExporter(config(door.getsockname()[1]), CONTEXT)
            exporter.start()
            connected(exporter)
            exporter.close()
        finally:
            script.kill()
            script.wait()
    assert "as netspot-pi (p2" in (tmp_path / "broker.log").read_text()


PROXY = """
import socket, sys, threading
door = socket.socket(fileno=int(sys.argv[1]))
def pipe(a, b):
    while data := a.recv(65536):
        b.sendall(data)
while True:
    near, _ = door.accept()
    first = near.recv(4096)
    if first[8] == 5:
        near.close()
        continue
    far = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    far.sendall(first)
    for pair in ((near, far), (far, near)):
        threading.Thread(target=pipe, args=pair, daemon=True).start()
"""


def test_a_link_waits_for_a_command_line():
    link = Link(config(free_port()), "cli")
    link.start()
    began = time.monotonic()
    with pytest.raises(NetspotError, match="nothing listens"):
        link.wait(5)
    assert time.monotonic() - began < 2
    link.close()


def test_two_clients_of_one_name_back_off(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(link_module, "BACKOFF_S", (0.3, 120))
    with broker(tmp_path) as server:
        pair = [Link(config(server.port), "same", Presence("netspot/pi/status")) for _ in range(2)]
        for one in pair:
            one.start()
        wait_for(lambda: "does another client call itself same?" in caplog.text, 20)
        assert sum(one.connects for one in pair) < 12
        for one in pair:
            one.close()


def test_a_peer_that_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        reason_of(config(deaf.getsockname()[1], keepalive_s=1), "no answer from 127.0.0.1")
