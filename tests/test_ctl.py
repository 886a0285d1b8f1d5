"""netspotctl against a server with made-up statistics, over TCP, TLS, a unix socket, and MQTT."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netspot import ctl
from netspot.client import Mqtt, broker
from netspot.errors import ConfigError
from netspot.events import Health
from tests.broker import broker as mosquitto
from tests.broker import needs_mosquitto
from tests.test_mqtt import write
from tests.test_mqtt_fleet import obeying
from tests.web.feed import MADE, Served


@pytest.fixture(scope="module")
def served():
    with Served(past=300, attacks=["R_SYN"]) as served:
        yield served


@pytest.fixture
def run(served, capsys):
    """Run netspotctl: its exit status, its output, its errors."""

    def run(*arguments):
        where = ["--url", f"http://127.0.0.1:{served.server.port}", "--token-file", f"{served.folder.name}/token"]
        status = ctl.main([*where, *arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def test_status(run, served):
    status, out, _ = run("status")
    assert status == 0
    assert "pi-kitchen on eth0, netspot 3.0.0" in out and "watching" in out
    status, out, _ = run("status", "--json")
    assert json.loads(out)["node"] == "pi-kitchen"


def test_an_alarm_is_an_exit_status(run, served):
    served.feed.attacked["DNS_NX"] = 40
    try:
        while not served.feed.alarms:
            pass
        status, out, _ = run("status")
        assert (status, "DNS_NX" in out) == (4, True)
    finally:
        served.feed.attacked.clear()


def test_stats(run):
    status, out, _ = run("stats")
    assert status == 0
    assert len(out.splitlines()) == 1 + len(MADE)
    assert out.splitlines()[0].split() == ["STATISTIC", "VALUE", "LOW", "HIGH", "UNIT", "STATE"]
    status, out, _ = run("stats", "R_SYN")
    assert "share of TCP segments" in out
    assert "None" not in run("stats", "UP_BYTES")[1] + run("stats", "R_SYN")[1]
    status, _, err = run("stats", "R_SIN")
    assert status == 1
    assert "there is no statistic 'R_SIN'" in err


def test_incidents(run):
    _, out, _ = run("incidents")
    head, first = out.splitlines()[:2]
    assert head.split() == ["INCIDENT", "BEGAN", "ENDED", "WHAT"] and first.index("port scan") == head.index("WHAT")
    key = first.split()[0]
    assert "port scan from 192.168.1.23" in out
    _, out, _ = run("incidents", key)
    assert not set("[]{}'\"") & set(out)
    assert dict(line.split(maxsplit=1) for line in out.splitlines())["sources"] == "192.168.1.23 94 %, 192.168.1.7 3 %"
    assert json.loads(run("incidents", "--json")[1])["incidents"][0]["id"] == key
    assert run("incidents", "nope")[0] == 1


def test_watch_draws_sparklines(run):
    status, out, _ = run("watch", "-n", "1")
    lines = out.splitlines()
    assert status == 0
    assert len(lines) == 2 + len(MADE)
    assert set(ctl.BARS[1:]) & set(lines[2])
    assert json.loads(run("watch", "-n", "1", "--json")[1])["reset"]


def test_a_view_fits_the_terminal_with_alarms_first(monkeypatch):
    def column(state):
        return {"v": [1.0] * 300, "now": [state]}

    states = {"QUIET": "learning", **dict.fromkeys([f"S{i}" for i in range(30)], "watching"), "LOUD": "alarm"}
    stats = {name: column(state) for name, state in states.items()}
    news = {"reset": True, "status": {"node": "pi", "phase": "watching"}, "stats": stats}
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for rows, columns in ((24, 80), (10, 50), (4, 20), (60, 200)):
        monkeypatch.setenv("LINES", str(rows))
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = ctl._view(news, {}).splitlines()
        plain = [line.removeprefix("\x1b[31m").removesuffix("\x1b[0m") for line in lines]
        assert len(lines) < rows and max(map(len, plain)) <= columns
        assert (plain[2].split()[0], plain[3:][:1] and plain[3].split()[0]) in (("LOUD", "S0"), ("...", []))
        assert plain[-1] == f"... and {len(states) - (len(lines) - 3)} more" or plain[-1].startswith("QUIET")
    assert len(lines) == 2 + len(states)


def test_sparkline():
    assert ctl.sparkline([0.0, None, 7.0, 3.5]) == "\u2581 \u2588\u2585"
    assert ctl.sparkline([5.0, 5.0]) == "\u2581\u2581"
    assert ctl.sparkline([]) == "" and ctl.sparkline([None]) == " "


def test_changes(run, served):
    assert run("mute", "R_IP", "2m")[:2] == (0, "done\n")
    assert served.feed.muted["R_IP"]
    assert run("unmute", "R_IP")[0] == 0
    assert run("relearn", "R_SYN")[0] == 0
    assert run("stop")[0] == 0
    assert not served.feed.running
    assert json.loads(run("start", "--json")[1]) == {"running": True}
    status, _, err = run("mute", "NO", "2m")
    assert (status, "no statistic 'NO'" in err) == (1, True)


def test_config(run, served):
    assert json.loads(run("config", "get")[1])["analyzer"] == {"period": "1s"}
    assert run("config", "set", "spot.q=1e-6", "analyzer.period=2s")[0] == 0
    assert served.feed.settings["spot"] == {"q": 1e-6}
    assert run("config", "get", "spot.q")[1] == "1e-06\n"
    assert run("config", "set", "--save", "spot.q", "1e-7", "analyzer.stats=a=b", "analyzer.period", "1s")[0] == 0
    assert served.feed.settings["spot"] == {"q": 1e-7}
    assert served.feed.settings["analyzer"] == {"stats": "a=b", "period": "1s"}
    for arguments, status in (
        (("get", "spot.x"), 2),
        (("set", "spot.q"), 2),
        (("set", "a=1", "a.b=2"), 2),
        (("set", "no=1"), 1),
        (("set", "spot.q=1e-6", "spot.level"), 2),
        (("set", "spot.q", "=", "1e-6"), 2),
        (("set", "=1"), 2),
    ):
        assert run("config", *arguments)[0] == status
    assert "spot.q: must be KEY=VALUE or KEY VALUE, as in" in run("config", "set", "spot.q")[2]


def test_devices_and_token(run, served):
    head, first, second = run("devices")[1].splitlines()
    assert head.split() == ["DEVICE", "STATE", "KIND", "ADDRESSES"]
    assert first.startswith("eth0    up     ethernet  192.168.1.2/24 fd00::2/64 (default route)")
    assert second.startswith("lo      up     loopback  127.0.0.1/8")
    assert run("token")[1].strip() == served.token


def test_a_token_where_reading_needs_one(tmp_path, capsys):
    with Served(read="token") as served:
        url = f"http://127.0.0.1:{served.server.port}"
        assert ctl.main(["status", "--url", url, "--token-file", f"{served.folder.name}/token"]) == 0
        (tmp_path / "token").write_text("x" * 20)
        assert ctl.main(["status", "--url", url, "--token-file", str(tmp_path / "token")]) == 2
        assert "wrong token" in capsys.readouterr().err


def test_over_a_unix_socket(tmp_path, capsys):
    path = str(tmp_path / "web.sock")
    with Served(listen=f"unix:{path}") as served:
        assert ctl.main(["--socket", path, "status"]) == 0
        assert ctl.main(["mute", "R_SYN", "--socket", path, "--token-file", f"{served.folder.name}/token"]) == 0
    assert ctl.main(["--socket", path, "status"]) == 3
    assert "is netspot running" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--url", "http://127.0.0.1:1", "status"], 3, "Connection refused"),
        (["--url", "ftp://x", "status"], 2, "must be http"),
        (["--url", "http://", "status"], 2, "must be http"),
        (["--token-file", "/nowhere", "token"], 2, "No such file"),
        (["fleet"], 2, "--mqtt"),
        (["--mqtt", "http://x", "status"], 2, "must be HOST"),
        (["--mqtt", "h:99999999", "status"], 2, "must be HOST"),
        (["--url", "https://127.0.0.1:1", "--ca", "/nowhere", "status"], 2, "--ca /nowhere"),
    ],
)
def test_mistakes_are_told(arguments, status, words, capsys):
    assert ctl.main(arguments) == status
    shown = capsys.readouterr().err
    assert words in shown and shown.startswith("netspotctl: ") and shown.count("\n") == 1


@pytest.mark.parametrize("command", ["status", "mute R_SYN", "config get"])
def test_an_unknown_argument_is_told_with_the_usage_of_its_command(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        ctl.main([*command.split(), "-x"])
    says, command = capsys.readouterr().err, command.removesuffix(" R_SYN")
    assert says.startswith(f"usage: netspotctl {command} ") and f"\nnetspotctl {command}: error: unrecog" in says


def test_a_broker_address():
    config = broker("mqtts://me%40home@broker.lan:8884", "net", "/ca.pem", None)
    assert (config.host, config.port, config.username, config.tls, config.ca) == (
        "broker.lan",
        8884,
        "me@home",
        True,
        "/ca.pem",
    )
    assert broker("broker", "netspot", None, None).port is None
    with pytest.raises(ConfigError, match="password-file"):
        broker("broker", "netspot", None, "/nowhere")


def test_output_that_cannot_be_written_is_an_error(served):
    command = [sys.executable, "-m", "netspot.ctl", "--url", f"http://127.0.0.1:{served.server.port}", "stats"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=20)
    assert (done.returncode, done.stderr) == (1, b"netspotctl: output: No space left on device\n")


def test_times():
    assert [ctl.seconds(text) for text in ("90", "90s", "1.5m", "2h", "1d")] == [90, 90, 90, 7200, 86400]
    for text in ("", "x", "-5", "0", "5w", "1e9"):
        with pytest.raises(argparse.ArgumentTypeError):
            ctl.seconds(text)


def test_what_a_server_says_cannot_drive_the_terminal():
    assert ctl._safe("a\x1b[2Jb\nc") == "a?[2Jb?c"


def test_it_starts_without_the_heavy_parts():
    heavy = "('numpy', 'bottle', 'paho', 'yaml')"
    code = f"import sys, netspot.ctl; netspot.ctl.parser(); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_one_statistic_and_what_is_not_possible_over_mqtt(capsys, monkeypatch):
    known = {"R_SYN": {"value": 0.25, "unit": "1", "help": "share of SYN"}, "R_ACK": {"unit": "1", "help": "of ACK"}}
    monkeypatch.setattr(Mqtt, "command", lambda peer, name, args: known)
    assert ctl.main(["--mqtt", "pi", "stats", "R_SYN"]) == 0
    out = capsys.readouterr().out
    assert "0.25" in out and "share of SYN" in out and "R_ACK" not in out
    for command, says in (
        (["watch"], "netspotctl: watch: not possible over MQTT; use --url or --socket\n"),
        (["incidents", "7"], "netspotctl: incidents: not possible over MQTT; use --url or --socket\n"),
        (["stats", "R_XYZ"], "netspotctl: there is no statistic 'R_XYZ'; there are: R_SYN, R_ACK\n"),
    ):
        assert ctl.main(["--mqtt", "pi", *command]) == 1
        assert capsys.readouterr().err == says


@needs_mosquitto
def test_over_mqtt(tmp_path, capsys):
    with mosquitto(tmp_path) as server, obeying(server.port) as (exporter, done):
        where = ["--mqtt", f"127.0.0.1:{server.port}"]
        write(exporter, Health(1_795_514_401_000_000_000, {"phase": "watching", "captured": 7, "dropped": 0}))
        time.sleep(0.3)
        assert ctl.main([*where, "status"]) == 0
        assert "watching" in capsys.readouterr().out
        assert ctl.main([*where, "--node", "pi", "mute", "R_SYN", "1m"]) == 0
        assert done[-1] == ("mute", {"stat": "R_SYN", "seconds": 60.0})
        assert ctl.main([*where, "relearn", "NONE"]) == 1
        assert "known: R_SYN" in capsys.readouterr().err
        assert ctl.main([*where, "incidents"]) == 1
        assert ctl.main([*where, "fleet"]) == 0
        assert "pi" in capsys.readouterr().out
        assert ctl.main([*where, "--node", "other", "status"]) == 3
    capsys.readouterr()
    assert ctl.main(["--mqtt", "127.0.0.1:1", "--node", "pi", "stats"]) == 3
    assert capsys.readouterr().err.count("nothing listens") == 1
