"""The configuration: what is accepted, and that every mistake is one clear line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netspot import config as c
from netspot.config.kinds import seconds, time_text
from netspot.config.options import OPTIONS
from netspot.config.text import PACKAGED, defaults, manpage, reference
from netspot.errors import ConfigError
from netspot.record import replace

EFFORT = 100 if os.environ.get("NETSPOT_LONG") else 1
ROOT = Path(__file__).parents[1]


def mistakes(text, **more):
    with pytest.raises(ConfigError) as caught:
        c.parse(text, "f.yaml", **more)
    return str(caught.value).splitlines()


# What is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read", "value"),
    [
        ("miner: {device: eth0}", lambda x: x.miner.device, "eth0"),
        ("miner.device: eth0", lambda x: x.miner.device, "eth0"),
        ("analyzer: {period: 500ms}", lambda x: x.analyzer.period_ns, 500_000_000),
        ("analyzer: {period: 1}", lambda x: x.analyzer.period_ns, 1_000_000_000),
        ("analyzer: {period: 0.1}", lambda x: x.analyzer.period_ns, 100_000_000),
        ("analyzer: {stats: [R_SYN, 'R_ACK@10']}", lambda x: x.analyzer.stats, ("R_SYN", "R_ACK@10")),
        ("analyzer: {stats: 'R_SYN, R_ACK'}", lambda x: x.analyzer.stats, ("R_SYN", "R_ACK")),
        ("analyzer: {stats: default}", lambda x: x.analyzer.stats, None),
        ("spot: {q: 1e-4}", lambda x: x.spot.q, 1e-4),  # a text for YAML 1.1
        ("spot: {q: auto}", lambda x: x.spot.q, None),
        ("spot: {down: yes}", lambda x: x.spot.down, True),
        ("exporter: {mqtt: {stat_every: 0}}", lambda x: x.exporter.mqtt.stat_every_s, 0.0),
        (
            "exporter: {mqtt: {homeassistant: {discovery: off}}}",
            lambda x: x.exporter.mqtt.homeassistant.discovery,
            "off",
        ),
        ("exporter: {mqtt: {host: '::1', port: auto}}", lambda x: x.exporter.mqtt.host, "::1"),
        ("exporter: {mqtt: {password: 0123}}", lambda x: x.exporter.mqtt.password, "0123"),  # not a number
        ("exporter: {mqtt: {password: 2024-01-01}}", lambda x: x.exporter.mqtt.password, "2024-01-01"),
        ("exporter: {mqtt: {password: 'on'}}", lambda x: x.exporter.mqtt.password, "on"),
        ("state: {save_every: 15m}", lambda x: x.state.save_every_s, 900.0),
        ("web: {listen: off}", lambda x: x.web.listen, None),
        ("web: {listen: '[::]:80'}", lambda x: x.web.listen, "[::]:80"),
        ("web: {listen: unix:/run/netspot.sock}", lambda x: x.web.listen, "unix:/run/netspot.sock"),
        ("web: {tls: {cert: a, key: b}}", lambda x: (x.web.cert, x.web.key), ("a", "b")),
        (
            "miner: {home_nets: [192.168.1.7/24, 'fd00::/8']}",
            lambda x: x.miner.home_nets,
            ("192.168.1.0/24", "fd00::/8"),
        ),
        ("counters: {MQTT: tcp and dport == 1883}", lambda x: x.counters, {"MQTT": "tcp and dport == 1883"}),
        ("stats: {A: {value: B / C, range: [0, null]}}", lambda x: x.stats["A"]["range"], (0.0, None)),
        ('mute: [{stat: R_ICMP, between: "22:00-06:00"}]', lambda x: x.mute[0]["between"], "22:00-06:00"),
        ("miner:\nanalyzer:\n", lambda x: x, c.Config()),
        ("", lambda x: x, c.Config()),
        ("# nothing\n", lambda x: x, c.Config()),
    ],
)
def test_value(text, read, value):
    assert read(c.parse(text)) == value


def test_a_statistic_has_whole_settings_of_its_own():
    config = c.parse("spot:\n  q: 1e-3\n  n_init: 500\n  R_SYN: {q: 1e-5}\n  'R_ACK@10': {down: true}")
    assert config.spot_stats["R_SYN"] == replace(config.spot, q=1e-5)
    assert config.spot_stats["R_ACK@10"] == replace(config.spot, down=True)
    assert config.spot_stats["R_SYN"].n_init == 500


def test_the_classic_profile_brings_its_own_defaults():
    config = c.parse("analyzer: {profile: classic}\nspot: {depth: 7, R_SYN: {q: 1e-6}}")
    assert (config.spot.depth, config.spot.q, config.spot.max_excess) == (7, 1e-4, 200)
    assert (config.spot_stats["R_SYN"].depth, config.spot_stats["R_SYN"].q) == (7, 1e-6)


def test_overrides_win_and_are_texts():
    pairs = [
        ("miner.device", "wlan0"),
        ("spot.R_SYN.q", "1e-5"),
        ("analyzer.stats", "[R_SYN]"),
        ("miner.filter", "a: *b"),
    ]
    config = c.parse("miner: {device: eth0}", overrides=[*pairs, ("exporter.mqtt.host", "null")])
    assert (config.miner.device, config.miner.filter) == ("wlan0", "a: *b")
    assert (config.spot_stats["R_SYN"].q, config.analyzer.stats) == (1e-5, ("R_SYN",))
    assert config.exporter.mqtt.host is None


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nod: x", "f.yaml:1: nod: unknown; did you mean node?"),
        ("\ndevice: x", "f.yaml:2: device: unknown; did you mean miner.device?"),
        ("miner:\n  devise: x", "f.yaml:2: miner.devise: unknown; did you mean miner.device?"),
        ("spot: {R_SYN: {lvl: 1}}", "f.yaml:1: spot.R_SYN.lvl: unknown; did you mean spot.R_SYN.level?"),
        ("spot: {dept: 1}", "f.yaml:1: spot.dept: unknown; did you mean spot.depth?"),
        ("state: {qqqqqq: 1}", "f.yaml:1: state.qqqqqq: unknown; known here: dir, save_every"),
        ("miner: eth0", "f.yaml:1: miner = eth0: a section, with its options below it, such as miner.device"),
        ("miner: {ring_mib: 999}", "miner.ring_mib = 999: accepted: a whole number from 1 to 256 [MiB]"),
        ("miner: {ring_mib: 4.5}", "a whole number from 1 to 256"),
        ("miner: {snapshot_len: 63}", "from 64 to 65535 [byte]"),
        ("miner: {device: on}", 'miner.device = on: without quotes YAML takes it for true or false: write "on"'),
        ("miner: {device: }", "miner.device = (nothing): accepted: the name of an interface"),
        ("miner: {device: [a, b]}", "miner.device = (a list): (a list) stands where one value is wanted"),
        ("miner: {backend: rign}", "miner.backend = rign: did you mean ring?; accepted: auto, ring or libpcap"),
        ("miner: {home_nets: [a, 10.0.0.0/8]}", "a: not an address or a prefix"),
        ("analyzer: {period: 5ms}", "a time from 10ms to 1d"),
        ("analyzer: {period: 1 week}", "analyzer.period = 1 week: accepted: a time"),
        ("analyzer: {period: .nan}", "analyzer.period = .nan: accepted: a time"),
        ("analyzer: {stats: []}", "0 items"),
        ("spot: {q: 0.5}", "f.yaml:1: spot.q = 0.5: must lie in ]0, 0.02[ (1 - level)"),
        (
            "spot:\n  q: 1e-3\n  A:\n    level: 0.9999",
            "f.yaml:4: spot.A.q = 0.001: must lie in ]0, 0.0001[ (1 - level)",
        ),
        ("spot: {n_init: 10}", "a whole number from 50"),
        ("spot: {depth: -1}", "spot.depth = -1: accepted: a whole number from 0"),
        ("spot: {level: 1}", "spot.level = 1: accepted: a number in ]0, 1["),
        ("node: küche", "node = küche: accepted: letters, digits, - and _, at most 64"),
        ("exporter: {mqtt: {base: a/b}}", "letters, digits"),
        ("exporter: {mqtt: {host: 'mqtt://nas'}}", "only the host belongs here"),
        ("exporter: {mqtt: {host: 'nas:1883'}}", "only the host belongs here"),
        ("exporter: {mqtt: {port: 65536}}", "a whole number from 1 to 65535"),
        ("exporter: {mqtt: {cert: a}}", "exporter.mqtt.key is missing"),
        ("exporter: {mqtt: {host: a, transport: unix}}", "the path of a socket as host go together"),
        ("exporter: {socket: {data: 'nas:99'}}", "tcp://host:port, udp://host:port or unix:///path"),
        ("exporter: {influxdb: {url: 'http://u:hush@nas'}}", "options of its own"),
        ("exporter: {file: {data: 'a%d'}}", "a path, in which %s is the series"),
        ("web: {listen: 0.0.0.0}", "the port is missing"),
        ("web: {listen: '::1:80'}", "an IPv6 address stands in brackets"),
        ("web: {tls: {key: a}}", "f.yaml:1: web.tls.cert is missing"),
        ("mute: [{}]", "a rule without any condition would mute everything"),
        ("mute: [{stat: A, statt: B}]", "unknown key statt; did you mean stat?"),
        ("mute: [{between: 22:00}]", "between: 22:00: expected HH:MM-HH:MM"),
        ("mute: [{until: 0001-01-01}]", "f.yaml:1: mute = (a list): until: 0001-01-01: year 0 is out of range"),
        ("stats: {A: {unit: x}}", "the key value is missing"),
        ("stats: {A: {value: x, range: [2, 1]}}", "the second number must be greater"),
        ("counters: {A.B: x}", "f.yaml:1: counters.A.B: a name is made of at most 64"),
        ("stats: {A-B: {value: x}}", "f.yaml:1: stats.A-B: a name is made of at most 64 letters, digits and _"),
        ("node: a\nnode: b", "f.yaml:2: node is given twice, first in line 1"),
        ("miner: {device: a}\nminer.device: b", "f.yaml:2: miner.device is given twice, first at f.yaml:1"),
        ("miner:\n\tdevice: x", "f.yaml:2: a tab: indent with spaces"),
        ("miner:\n  device: x\n device: y", "f.yaml:3: not YAML: "),
        ("a: b: c", "f.yaml:1: not YAML: mapping values are not allowed"),
        ("- a", "f.yaml:1: a configuration is made of lines like `key: value`, not of (a list)"),
        ("hello", "not of hello"),
        ("node: a\n---\nnode: b", "f.yaml:2: --- begins a second document"),
        ("node: *x", "f.yaml:1: a value that begins with * needs quotes"),
        ("a: &x [1]\nb: *x", "f.yaml:2: a value that begins with * needs quotes"),
        ("node: !!python/name:os.system x", "is unknown here; known: !secret"),
        ("node: !secret x", "!secret is for user names, passwords and tokens only"),
        ("? [a]\n: b", "(a list) cannot be a key"),
        ("node: a\x07b", "f.yaml:1: "),
        ("node: \ud800", "f.yaml:1: half a UTF-16 pair is not text"),
        ("[" * 100_000, "inside one another"),
        ("{a: " * 100_000, "inside one another"),
        ("a: [" + "1," * 30_000 + "]", "more than 20000 values"),
        ("node: " + "x" * 900_000, "longer than 4096 characters"),
        ('node: "a\\x1b[31m"', "node = a\\x1b[31m: accepted"),
    ],
)
def test_mistake(text, expected):
    found = mistakes(text)
    assert any(expected in line for line in found), found
    assert all(line.startswith("f.yaml:") and len(line) < 500 and line.isprintable() for line in found)


def test_every_mistake_at_once_in_the_order_of_lines():
    found = mistakes("spot: {q: 2}\nminer: {ring_mib: x}\nfoo: 1\n", overrides=[("miner.device", ""), ("no.such", "1")])
    assert [line.partition(": ")[0] for line in found] == [
        "f.yaml:1",
        "f.yaml:2",
        "f.yaml:3",
        "--no.such",
        "--miner.device (nothing)",
    ]


@pytest.mark.parametrize("option", ["miner.filter", "miner.device", "exporter.mqtt.username", "exporter.file.data"])
def test_half_a_character_is_no_text(option):
    assert "not UTF-8 text" in mistakes("", overrides=[(option, "\udcff")])[0]
    with pytest.raises(ConfigError, match="request: .*not UTF-8 text"):
        c.changed(c.Config(), {option: "\ud800"})


def test_hundreds_of_mistakes_are_told_in_part_and_at_once():
    found = mistakes("".join(f"key{number}: 1\n" for number in range(6000)))
    assert len(found) == 101
    assert found[-1] == "and 5900 more"
    assert "201 names; 200 are possible" in mistakes("".join(f"counters.A{number}: tcp\n" for number in range(201)))[0]


def test_names_are_checked_against_those_that_exist():
    config = c.parse(
        "analyzer:\n  stats: [R_SIN, MINE, R_ACK@10]\nspot:\n  R_ACKK: {q: 1e-5}\nmute:\n  - stat: NOPE\n"
        "counters: {SYN: tcp, OWN: udp}\nstats: {MINE: {value: OWN / SYN}}",
        "f.yaml",
    )
    assert c.wrong_names(config, ["R_SYN", "R_ACK"], ["SYN"]) == [
        "f.yaml:2: analyzer.stats: no statistic is called R_SIN; did you mean R_SYN?",
        "f.yaml:4: spot.R_ACKK: no statistic is called R_ACKK; did you mean R_ACK?",
        "f.yaml:6: mute: no statistic is called NOPE; `netspot ls` shows them",
        "f.yaml:7: counters.SYN: netspot has one of that name; take another",
    ]


@pytest.mark.parametrize("name", ["R_SYN@0", "R_SYN@007", "R_SYN@10000", "R_SYN@"])
@pytest.mark.parametrize("text", ["analyzer: {stats: [%s]}", "spot: {%s: {q: 1e-4}}", "mute: [{stat: %s}]"])
def test_a_span_is_a_number_of_windows(text, name):
    (mistake,) = mistakes(text % name)
    assert name in mistake and ("R_SYN@10 over 10 windows (1 to 9999)" in mistake or text.startswith("spot"))


def test_wrong_names_are_told_with_all_the_rest(folder):
    (folder / "conf.d/a.yaml").write_text("nod: x\nspot: {R_SIN: {q: 1e-5}}\n")
    with pytest.raises(ConfigError, match="(?s)a.yaml:1: nod: .*a.yaml:2: spot.R_SIN: .*R_SYN"):
        c.load(folder / "netspot.yaml", env={}, further=lambda config: c.wrong_names(config, ["R_SYN"], ["SYN"]))


def test_warnings():
    mqtt = "exporter: {mqtt: {host: nas, username: a, password: b, %s}}"
    assert "unencrypted" in c.warnings(c.parse(mqtt % "port: 1"))[0]
    assert c.warnings(c.parse(mqtt % "tls: true")) == ()
    assert c.warnings(c.Config()) == ()


# Files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "netspot.yaml").write_text("include: conf.d/*.yaml\nnode: a\nminer: {device: eth0}\n")
    return tmp_path


def load(folder, **env):
    return c.load(folder / "netspot.yaml", env=env)


def errors(folder, **env):
    with pytest.raises(ConfigError) as caught:
        load(folder, **env)
    return str(caught.value)


def test_includes_come_in_order_and_the_last_one_wins(folder):
    assert load(folder).node == "a"  # a pattern without a match is no mistake
    (folder / "conf.d/20.yaml").write_text("node: c\n")
    (folder / "conf.d/10.yaml").write_text("node: b\nminer: {ring_mib: 8}\n")
    config = load(folder)
    assert (config.node, config.miner.ring_mib, config.miner.device) == ("c", 8, "eth0")
    assert c.load(folder / "netspot.yaml", [("node", "z")], {}).node == "z"


def test_an_included_file_must_be_there_and_a_pattern_need_not_match(folder):
    (folder / "netspot.yaml").write_text("node: a\ninclude: [more/*.yaml, more.yaml]\n")
    assert errors(folder) == f"{folder}/netspot.yaml:2: include = {folder}/more.yaml: there is no such file"
    (folder / "more.yaml").write_text("node: b\n")
    assert load(folder).node == "b"


def test_a_mistake_in_an_included_file_names_it(folder):
    (folder / "conf.d/10.yaml").write_text("\nnode: [x]\n")
    assert errors(folder).startswith(f"{folder}/conf.d/10.yaml:2: node = ")


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("netspot.yaml", b"include: '*.yaml'\n", "netspot.yaml itself"),
        ("netspot.yaml", b"include: [1, {a: b}]\n", "netspot.yaml:1: include = (a list)"),
        ("conf.d/a.yaml", b"include: b.yaml\n", "a.yaml:1: include belongs into"),
        ("conf.d/a.yaml", b"node: a\nminer: {device: \xff}\n", "a.yaml:2: byte 0xff is not UTF-8"),
        ("conf.d/a.yaml", b"#" * (1 << 20) + b"\n", "larger than 1 MiB"),
        ("conf.d/a.yaml", b"\xff\xfen\x00", "is not UTF-8"),
    ],
)
def test_files_that_cannot_be_used(folder, name, data, expected):
    (folder / name).write_bytes(data)
    assert expected in errors(folder)


def test_files_that_cannot_be_read(folder):
    (folder / "conf.d/a.yaml").mkdir()
    (folder / "conf.d/b.yaml").symlink_to("b.yaml")
    text = errors(folder)
    named = f"{folder}/netspot.yaml:1: include = {folder}/conf.d"
    assert f"{named}/a.yaml: is a folder; name files, as in {folder}/conf.d/a.yaml/*.yaml" in text
    assert f"{named}/b.yaml: cannot be read: Too many levels of symbolic links" in text
    for name in ("missing.yaml", "a\0b", ""):
        with pytest.raises(ConfigError, match="cannot be read"):
            c.load(name and folder / name)


def test_a_byte_order_mark_is_welcome(folder):
    (folder / "conf.d/a.yaml").write_bytes(b"\xef\xbb\xbfnode: b\n")
    assert load(folder).node == "b"


# Secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_comes_from_the_first_place_that_has_it(folder):
    credentials = folder / "credentials"
    credentials.mkdir()
    (credentials / "mqtt-password").write_text("from credential\n")
    places = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert load(folder, **places).exporter.mqtt.password == "from credential"
    (credentials / "mqtt-password").write_text("\n")
    assert load(folder, **places).exporter.mqtt.password is None
    places["NETSPOT_MQTT_PASSWORD"] = "from environment"
    assert load(folder, **places).exporter.mqtt.password == "from environment"
    (folder / "word").write_text("from file\n")
    (folder / "conf.d/a.yaml").write_text("exporter: {mqtt: {password_file: word}}")
    assert load(folder, **places).exporter.mqtt.password == "from file"
    (folder / "secrets.yaml").write_text("broker: from secrets\n")
    (folder / "conf.d/a.yaml").write_text("exporter: {mqtt: {password: !secret broker}}")
    assert load(folder, **places).exporter.mqtt.password == "from secrets"
    (folder / "conf.d/a.yaml").write_text("exporter: {mqtt: {password: from option}}")
    assert load(folder, **places).exporter.mqtt.password == "from option"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{password: !secret brokre}", "secrets.yaml holds no brokre; did you mean broker?"),
        ("{password: !secret list}", "exporter.mqtt.password = (secret): accepted: text, or null"),
        ("{password_file: nothing}", "nothing: cannot be read: No such file"),
        ("{password_file: empty}", "exporter.mqtt.password = (secret): accepted: text, or null"),
        ("{password_file: binary}", "binary: is not UTF-8 text"),
        ("{password_file: [a]}", "cannot be read"),
        ("{password_file: empty, password: hush}", "password is given too"),
        ("{password: on}", "password = (secret): put it in quotes"),
        ("{password: [hush]}", "password = (secret)"),
        ("{password: hush, pasword: hush, username: [hush]}", "pasword: unknown"),
    ],
)
def test_a_mistake_never_shows_a_secret(folder, text, expected):
    (folder / "secrets.yaml").write_text("broker: hush\nlist: [hush]\n")
    (folder / "empty").write_text("\n")
    (folder / "binary").write_bytes(b"hush\xff")
    (folder / "conf.d/a.yaml").write_text(f"exporter: {{mqtt: {text}}}")
    found = errors(folder)
    assert expected in found
    assert "hush" not in found


def test_a_broken_secrets_file_tells_its_line_only(folder):
    (folder / "secrets.yaml").write_text("a: b\nbroker: hush: hush\n")
    (folder / "conf.d/a.yaml").write_text("exporter: {mqtt: {password: !secret broker}}")
    found = errors(folder)
    assert "secrets.yaml:2: not YAML" in found
    assert "hush" not in found


def test_secrets_are_not_shown():
    text = "exporter: {mqtt: {password: hush}, influxdb: {token: hush, password: hush}}"
    config = c.parse(text)
    assert "hush" not in repr(config) + str(config.exporter) + json.dumps(c.to_dict(config))
    assert config.exporter.influxdb.token == "hush"
    assert c.to_dict(config, secrets=True)["exporter"]["mqtt"]["password"] == "hush"


# Changes ----------------------------------------------------------------------------------------------------------


def test_a_change_keeps_what_was_given():
    config = c.parse("miner: {device: eth0}\nspot: {R_SYN: {q: 1e-5}}\ncounters: {A: tcp}", overrides=[("node", "x")])
    new = c.changed(config, {"spot": {"n_init": 99}, "miner.ring_mib": 8})
    assert (new.node, new.miner, new.counters) == ("x", replace(config.miner, ring_mib=8), {"A": "tcp"})
    assert new.spot_stats["R_SYN"] == replace(new.spot, q=1e-5)
    assert new.spot.n_init == 99
    assert c.changed(new, {"spot": {"R_SYN": None, "n_init": None}, "counters": {"A": None}, "miner": None}) == c.parse(
        "node: x"
    )


def test_a_change_of_a_configuration_that_no_file_gave():
    config = replace(c.Config(), miner=c.MinerConfig(device="eth9"))
    assert c.changed(config, {"node": "x"}) == replace(config, node="x")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"miner": {"ring_mib": 0}}, "request: miner.ring_mib = 0: accepted"),
        ({"spot": {"q": 0.5}}, "request: spot.q = 0.5: must lie in"),
        ({"exporter": {"mqtt": {"password_file": "/etc/shadow"}}}, "can be set in a configuration file only"),
        ({"include": "/etc/*"}, "can be set in a configuration file only"),
        ({"miner": {"ring_mib": float("nan")}}, "request: miner.ring_mib = nan"),
        ({"miner": {"ring_mib": 10**5000}}, "request: miner.ring_mib = a number of more"),
        ({"node": {"a": 1}}, "request: node = (a mapping)"),
        ({1: 2}, "request: 1: unknown"),
        ("node", "request: node: a mapping of options is wanted"),
        (None, "a mapping of options is wanted"),
    ],
)
def test_a_change_is_checked_whole(change, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        c.changed(c.Config(), change)


def test_a_saved_change_stands_in_a_file_of_its_own(folder):
    own = (folder / "netspot.yaml").read_bytes()
    target = c.save(
        folder / "netspot.yaml", {"node": "kitchen", "spot": {"R_SYN": {"q": 1e-5}}, "mute": [{"stat": "A"}]}, {}
    )
    assert target == folder / "conf.d/90-api.yaml"
    assert (folder / "netspot.yaml").read_bytes() == own
    assert target.stat().st_mode & 0o777 == 0o600
    c.save(folder / "netspot.yaml", {"exporter": {"mqtt": {"password": "on", "tls": True}}, "mute": None}, {})
    config = load(folder)
    assert (config.node, config.spot_stats["R_SYN"].q, config.mute) == ("kitchen", 1e-5, ())
    assert (config.exporter.mqtt.password, config.exporter.mqtt.tls, config.miner.device) == ("on", True, "eth0")
    assert sorted(path.name for path in (folder / "conf.d").iterdir()) == ["90-api.yaml"]


def test_what_cannot_be_saved_leaves_everything_as_it_was(folder):
    with pytest.raises(ConfigError, match="ring_mib = 0"):
        c.save(folder / "netspot.yaml", {"miner": {"ring_mib": 0}}, {})
    (folder / "netspot.yaml").write_text("node: a\n")
    with pytest.raises(ConfigError, match="`include: conf.d/\\*.yaml` is missing"):
        c.save(folder / "netspot.yaml", {"node": "b"}, {})
    assert not list((folder / "conf.d").iterdir())


def test_the_values_that_apply_give_the_same_configuration_again():
    text = (
        "analyzer: {profile: classic, stats: [R_SYN]}\nspot: {R_SYN: {q: 1e-5}}\nweb: {listen: off}\nmute: [stat: A]\n"
    )
    config = c.parse(text + "stats: {A: {value: B, range: [0, null]}}\nexporter: {mqtt: {host: nas, password: p}}")
    told = c.to_dict(config, secrets=True)
    assert c.changed(c.Config(), json.loads(json.dumps(told))) == config


def test_times():
    assert [seconds(text) for text in ("500ms", "1 s", "1.5m", "2h", "1d", "3")] == [0.5, 1, 90, 7200, 86400, 3]
    assert [time_text(value) for value in (0.5, 1, 90, 900, 86400, 0.0)] == ["500ms", "1s", "90s", "15m", "1d", "0"]


def test_node_name():
    assert re.fullmatch("[A-Za-z0-9_-]{1,64}", c.node_name(c.Config()))
    assert c.node_name(c.Config(node="kitchen")) == "kitchen"


# Hostile text -----------------------------------------------------------------------------------------------------

WORDS = [
    *OPTIONS,
    *(part for path in OPTIONS for part in path.split(".")),
    "R_SYN",
    "include",
    "on",
    "null",
    "1e-4",
    "10s",
]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(WORDS))
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PIECES = st.sampled_from(
    [*WORDS, ": ", "\n", "  ", "\t", "- ", "[", "]", "{", "}", "'", '"', "#", "!secret ", "&a ", "*a", "|", "%"]
)


@settings(max_examples=100 * EFFORT, deadline=None)
@given(st.text() | st.lists(PIECES, max_size=40).map("".join) | TREES.map(lambda tree: json.dumps(tree)))
def test_any_text_is_a_configuration_or_a_clear_error(text):
    try:
        c.parse(text, "f.yaml")
    except ConfigError as error:
        assert all(line.startswith(("f.yaml:", "and ")) and line.isprintable() for line in str(error).split("\n"))


@settings(max_examples=100 * EFFORT, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS) | st.text(), TREES, max_size=5))
def test_any_change_is_a_configuration_or_a_clear_error(tree):
    try:
        config = c.changed(c.Config(), tree)
    except ConfigError as error:
        assert all(line.isprintable() for line in str(error).split("\n"))
    else:
        assert c.changed(c.Config(), json.loads(json.dumps(c.to_dict(config, secrets=True)))) == config


@settings(max_examples=100 * EFFORT, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WORDS) | st.text(), st.text() | PIECES), max_size=4))
def test_any_option_of_the_command_line_is_taken_or_a_clear_error(pairs):
    try:
        c.parse("", overrides=pairs)
    except ConfigError as error:
        assert all(line.startswith("--") or line.isprintable() for line in str(error).split("\n"))


@settings(max_examples=100 * EFFORT, deadline=None)
@given(data=st.binary())
def test_any_file_is_a_configuration_or_a_clear_error(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    try:
        c.load(path, env={})
    except ConfigError as error:
        assert str(path) in str(error)


# What is made from the declarations -------------------------------------------------------------------------------


def test_the_default_text_says_what_the_defaults_are():
    assert c.parse(defaults()) == c.Config()
    live = re.sub(r"^( *)#(?!#)", r"\1", defaults(), flags=re.M)
    assert c.parse(live) == c.Config()
    assert {path for path in c.parse(live).given if path != "include"} == set(OPTIONS)


@pytest.mark.parametrize(
    ("file", "text"),
    [("etc/netspot.yaml", defaults(PACKAGED)), ("docs/configuration.md", reference())],
    ids=["etc/netspot.yaml", "docs/configuration.md"],
)
def test_what_is_generated_is_up_to_date(file, text):
    assert text in (ROOT / file).read_text(), "run: python tools/generate.py docs"


def test_the_packaged_file_differs_where_it_should():
    config = c.load(ROOT / "etc/netspot.yaml", env={})
    default = c.Config()
    expected = replace(
        default, web=replace(default.web, listen="0.0.0.0:11000"), state=replace(default.state, dir="/var/lib/netspot")
    )
    assert config == expected


def test_the_man_page_is_clean(tmp_path):
    page = tmp_path / "netspot.yaml.5"
    page.write_text(manpage("3.0.0", "2026-11-24"))
    for path in OPTIONS:
        assert path.replace("-", "\\-") in page.read_text()
    try:
        done = subprocess.run(["man", "--warnings", "-l", str(page)], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("man is not installed")
    assert done.stderr == ""


def test_importing_is_cheap():
    heavy = "{'yaml', 'numpy', 'difflib', 'socket', 'asyncio'}"
    code = f"import sys, netspot.config; print(*sorted({heavy} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == ""
