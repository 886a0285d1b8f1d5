"""Every option, declared once: attribute, type, default, what is accepted, and the text that a person reads.

From these declarations follow the defaults, the checks, ``netspot defaults``, etc/netspot.yaml, the reference in
docs/configuration.md and netspot.yaml(5). The key in YAML is the attribute without its unit (``_s``, ``_ns``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, cast

from netspot.config import addresses, kinds, rules
from netspot.config.kinds import Given, Kind, optional
from netspot.record import Record

T = TypeVar("T")


class Option(Record):
    """One declaration. ``path`` is the dotted key in YAML; ``outside``: also from file, credential, environment."""

    kind: Kind[Any]
    doc: str
    key: str = ""
    outside: bool = False
    path: str = ""
    default: Any = None
    attribute: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that may hold the value."""
        return "NETSPOT_" + self.path.removeprefix("exporter.").replace(".", "_").upper()

    @property
    def credential(self) -> str:
        """The name of systemd's credential that may hold the value."""
        return self.path.removeprefix("exporter.").replace(".", "-")


def option(default: T, kind: Kind[T], doc: str, *, key: str = "", outside: bool = False) -> T:
    """A field of ``Settings`` that a person sets."""
    declared: Any = Option(kind, doc, key, outside, default=default)
    return cast(T, declared)


class Section(Record):
    """Names that the owner of the configuration chooses; ``doc`` is the text that a person reads."""

    doc: str
    default: Mapping[str, Any] = {}


def section(doc: str) -> Mapping[str, Any]:
    """A field of ``Settings`` that holds what has no declaration of its own."""
    declared: Any = Section(doc)
    return cast(Mapping[str, Any], declared)


class Settings(Record):
    """A section: its fields are options, sections (whose text is the docstring of their class), and the rest."""

    options: ClassVar[Mapping[str, Option]] = {}
    sections: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        declared = {name: value for name, value in vars(cls).items() if isinstance(value, Option | Section)}
        for name, value in declared.items():
            setattr(cls, name, value.default)
        super().__init_subclass__()
        cls.options = {name: value for name, value in declared.items() if isinstance(value, Option)}
        cls.sections = {
            name: declared[name].doc if name in declared else str(type(default).__doc__)
            for name, default in cls.defaults.items()
            if isinstance(declared.get(name, default), Section | Settings)
        }

    def _shown(self) -> Iterable[str]:
        return [name for name in self.fields if name not in self.options or not self.options[name].kind.secret]


class MinerConfig(Settings):
    """Where packets come from."""

    device: str = option(
        "auto",
        kinds.text("the name of an interface, any or auto"),
        "The interface to watch, as in `netspot devices`; auto: the one of the default route, else the first that is "
        "up; any: all of them. `netspot run` also takes a capture file.",
    )
    backend: str = option(
        "auto",
        kinds.choice("auto", "ring", "libpcap"),
        "How packets are captured: ring is Linux's AF_PACKET ring, libpcap needs python-libpcap; auto takes the ring.",
    )
    promiscuous: bool = option(
        False, kinds.flag(), "Also take frames that are not meant for this machine (on a mirror port of a switch)."
    )
    snapshot_len: int = option(
        192, kinds.whole(64, 65535, "byte"), "Bytes of each frame that are captured; headers are all that is looked at."
    )
    filter: str = option(
        "",
        kinds.text("a pcap filter expression", r"[^\x00]*"),
        "Take only the packets that match this pcap filter, such as `not port 22`; empty: all.",
    )
    ring_mib: int = option(
        4, kinds.whole(1, 256, "MiB"), "Memory of the capture ring: what it holds bridges a busy moment."
    )
    home_nets: tuple[str, ...] | None = option(
        None,
        optional(addresses.prefixes(), "auto"),
        "The networks that are home, which tell upload from download; auto: those of the interface.",
    )
    direction: str = option(
        "both",
        kinds.choice("both", "in", "out"),
        "Which packets of the interface count. On any, a packet that crosses a bridge is seen twice: take in or out.",
    )
    loopback: bool = option(False, kinds.flag(), "With device any, also watch the loopback interface.")


class AnalyzerConfig(Settings):
    """What is watched."""

    period_ns: int = option(
        1_000_000_000, kinds.duration_ns("10ms", "1d"), "Length of a window: what is counted in it makes one value."
    )
    profile: str = option(
        "default",
        kinds.choice("default", "classic"),
        "Which statistics are watched and how; classic: those of netspot 2 with its defaults of spot.",
    )
    stats: tuple[str, ...] | None = option(
        None,
        optional(kinds.stat_names(), "default"),
        "The statistics to watch, as in `netspot ls`, such as [R_SYN, R_ACK]; default: those of the profile.",
    )
    false_alarms_per_day: float = option(
        1.0,
        kinds.number(0.001, 100_000),
        "The budget of false alarms, shared by all statistics whose q is auto. More: earlier and more wrong ones.",
    )
    clear_after: int = option(
        10, kinds.whole(1, 100_000, "window"), "Quiet windows in a row after which an alarm is over."
    )


class SpotConfig(Settings):
    """How normal is learned, for all statistics. A statistic may have its own: `R_SYN: {q: 1e-5, down: true}`."""

    depth: int = option(
        0,
        kinds.whole(0, 100_000, "window"),
        "The mean of so many last normal values is taken off first, which follows a drift; 0: no drift.",
    )
    q: float | None = option(
        None,
        optional(kinds.number(0, 1, open_ends=True), "auto"),
        "Probability of a false alarm in one window; less than 1 - level; auto: from the budget of false alarms.",
    )
    n_init: int = option(
        1000, kinds.whole(50, 1_000_000, "window"), "Windows from which a detector learns what is normal."
    )
    level: float = option(
        0.98,
        kinds.number(0, 1, open_ends=True),
        "The share of normal values that lie below the tail; values above it are what the threshold is fitted to.",
    )
    up: bool = option(True, kinds.flag(), "Watch for values that are too high.")
    down: bool = option(False, kinds.flag(), "Watch for values that are too low.")
    alert: bool = option(True, kinds.flag(), "Raise alarms; false: only learn, and show thresholds.")
    bounded: bool = option(True, kinds.flag(), "Keep at most max_excess values of the tail, the newest ones.")
    max_excess: int = option(200, kinds.whole(10, 100_000), "Values of the tail that a detector keeps.")
    relearn_after: int = option(
        600,
        kinds.whole(0, 1_000_000, "window"),
        "Alarmed windows in a row after which a detector learns the new level as normal; 0: never.",
    )


class ConsoleConfig(Settings):
    """Standard output: the journal, for the service."""

    data: bool = option(False, kinds.flag(), "Print every value.")
    alarm: bool = option(True, kinds.flag(), "Print alarms and incidents.")


class FileConfig(Settings):
    """Files of JSON lines; %s in a path is the interface or the capture's name."""

    data: str | None = option(None, optional(kinds.data_file()), "File of all values, as JSON lines; null: none.")
    alarm: str | None = option(
        None, optional(kinds.data_file()), "File of alarms and incidents, as JSON lines; null: none."
    )
    rotate_mib: float = option(10.0, kinds.number(0.01, 100_000, unit="MiB"), "Begin a new file at this size.")
    rotate_every_s: float = option(
        0.0, kinds.duration("1m", "366d", zero=True), "Begin a new file at this age; 0: never."
    )
    keep: int = option(3, kinds.whole(0, 1000, "file"), "Old files that are kept.")


class HomeAssistantConfig(Settings):
    """Entities in Home Assistant."""

    discovery: str = option(
        "device",
        kinds.choice("device", "component", "off"),
        "How Home Assistant finds the entities: device for 2024.12 and later, component for older ones.",
    )
    prefix: str = option(
        "homeassistant", kinds.text("a topic", r"[^\x00+#\s/]+(/[^\x00+#\s/]+)*"), "Home Assistant's discovery prefix."
    )
    birth_topic: str = option(
        "homeassistant/status",
        kinds.text("a topic", r"[^\x00+#\s/]+(/[^\x00+#\s/]+)*"),
        "Where Home Assistant says that it has started.",
    )


class MqttConfig(Settings):
    """A broker, and what reads from it: Home Assistant, Node-RED, a fleet."""

    host: str | None = option(
        None, optional(addresses.host()), "The broker's host name or address, or the path of its socket; null: no MQTT."
    )
    port: int | None = option(
        None, optional(kinds.whole(1, 65535), "auto"), "The broker's port; auto: 1883, with TLS 8883."
    )
    base: str = option("netspot", kinds.slug(), "First level of all topics; the second is the node.")
    protocol: str = option(
        "auto", kinds.choice("auto", "3.1.1", "5"), "MQTT version; auto: 5 where the broker knows it."
    )
    transport: str = option("tcp", kinds.choice("tcp", "websockets", "unix"), "How the broker is reached.")
    ws_path: str = option("/mqtt", kinds.text(), "Path of the broker's websocket.")
    client_id: str | None = option(
        None,
        optional(kinds.text("text of at most 128 characters", r"[^\x00\s]{1,128}"), "auto"),
        "auto: netspot- and the node.",
    )
    username: str | None = option(None, optional(kinds.text()), "User at the broker; null: anonymous.", outside=True)
    password: str | None = option(
        None,
        optional(kinds.secret_text()),
        "Password at the broker. Better kept apart: password_file, !secret, a credential or the environment.",
        outside=True,
    )
    tls: bool = option(False, kinds.flag(), "Encrypt the connection.")
    ca: str | None = option(
        None, optional(kinds.path()), "Authorities that sign the broker's certificate; null: the system's."
    )
    cert: str | None = option(None, optional(kinds.path()), "Certificate that this client shows to the broker.")
    key: str | None = option(None, optional(kinds.path()), "Private key of that certificate.")
    server_name: str | None = option(
        None, optional(addresses.host()), "Name that the broker's certificate must carry; null: the host above."
    )
    tls_insecure: bool = option(
        False, kinds.flag(), "Do not check the broker's name in its certificate. Only for a test."
    )
    keepalive_s: float = option(
        15.0, kinds.duration("1s", "1h"), "A broker that is silent for longer is taken for gone, and so are we by it."
    )
    stat_every_s: float = option(
        10.0, kinds.duration("10ms", "1d", zero=True), "How often values and thresholds are sent; 0: every window."
    )
    health_every_s: float = option(60.0, kinds.duration("1s", "1d"), "How often the program tells how it does.")
    commands: bool = option(True, kinds.flag(), "Obey requests that arrive over MQTT.")
    echo: bool = option(
        True,
        kinds.flag(),
        "Check at each connect that the broker hands on what is published; off for an account that may only write.",
    )
    spool: int = option(
        10_000, kinds.whole(0, 1_000_000, "event"), "Alarms and incidents that wait on disk while the broker is away."
    )
    homeassistant: HomeAssistantConfig = HomeAssistantConfig()


class SocketConfig(Settings):
    """A program that listens: tcp://host:port, udp://host:port or unix:///path."""

    data: str | None = option(None, optional(addresses.endpoint()), "Where every value is sent; null: nowhere.")
    alarm: str | None = option(
        None, optional(addresses.endpoint()), "Where alarms and incidents are sent; null: nowhere."
    )
    format: str = option("json", kinds.choice("json", "csv"), "How an event is written, one a line.")
    tag: str = option("netspot", kinds.slug(), "A word that goes with every event, to tell senders apart.")


class InfluxConfig(Settings):
    """InfluxDB, versions 1 to 3."""

    url: str | None = option(
        None, optional(addresses.url()), "The database's address, such as http://nas:8086; null: none."
    )
    database: str = option("netspot", kinds.text("a name"), "Database (version 1) or bucket (version 2 and 3).")
    token: str | None = option(
        None,
        optional(kinds.secret_text()),
        "Token of version 2 and 3; see mqtt.password on where to keep it.",
        outside=True,
    )
    org: str | None = option(None, optional(kinds.text()), "Organisation of version 2.")
    username: str | None = option(None, optional(kinds.text()), "User of version 1.", outside=True)
    password: str | None = option(None, optional(kinds.secret_text()), "Password of version 1.", outside=True)
    batch: int = option(500, kinds.whole(1, 10_000, "point"), "Points that are sent together at most.")
    every_s: float = option(10.0, kinds.duration("100ms", "1h"), "How long a point waits at most.")


class ExporterConfig(Settings):
    """Where values and alarms go."""

    console: ConsoleConfig = ConsoleConfig()
    file: FileConfig = FileConfig()
    mqtt: MqttConfig = MqttConfig()
    socket: SocketConfig = SocketConfig()
    influxdb: InfluxConfig = InfluxConfig()


class EvidenceConfig(Settings):
    """What is kept of an incident."""

    pcap: bool = option(True, kinds.flag(), "Keep the headers of an incident's packets as a capture file.")
    mib: int = option(32, kinds.whole(1, 100_000, "MiB"), "Disk that those captures may take; the oldest make room.")
    addresses: str = option(
        "whole",
        kinds.choice("whole", "shortened", "hashed"),
        "How addresses are kept and told: shortened to their network, or as a hash.",
    )


class StateConfig(Settings):
    """What outlives a restart."""

    dir: str | None = option(
        None,
        optional(kinds.text("an absolute path", r"/[^\x00\r\n]*")),
        "Folder for what outlives a restart: learned detectors, waiting alarms, captures, the token; null: nothing.",
    )
    save_every_s: float = option(
        900.0, kinds.duration("10s", "7d"), "How often the detectors are saved (SD cards wear)."
    )


class WebConfig(Settings):
    """The status page and the REST API."""

    listen: str | None = option(
        "127.0.0.1:11000",
        optional(addresses.listen(), "off"),
        "Where the status page and the REST API listen: host:port, [v6]:port or unix:/path.",
    )
    read: str = option(
        "open", kinds.choice("open", "token"), "Who may look: everybody who reaches the page, or who has the token."
    )
    base: str = option(
        "/",
        kinds.text("a path such as / or /netspot", r"/([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*/?)?"),
        "Path of the page, behind a reverse proxy.",
    )
    hosts: tuple[str, ...] | None = option(
        None,
        optional(kinds.listed(kinds.text("a host name", r"[A-Za-z0-9.-]{1,253}"), "host names"), "none"),
        "More names under which the page is reached, as behind a proxy; addresses and local names always work.",
    )
    cert: str | None = option(None, optional(kinds.path()), "Certificate (PEM), for HTTPS.", key="tls.cert")
    key: str | None = option(None, optional(kinds.path()), "Private key of that certificate (PEM).", key="tls.key")


class Config(Settings):
    """All settings; immutable."""

    node: str = option("auto", kinds.slug(), "Name of this machine in topics and messages; auto: its host name.")
    miner: MinerConfig = MinerConfig()
    analyzer: AnalyzerConfig = AnalyzerConfig()
    spot: SpotConfig = SpotConfig()
    spot_stats: Mapping[str, SpotConfig] = {}  # whole settings of the statistics that differ
    exporter: ExporterConfig = ExporterConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    state: StateConfig = StateConfig()
    web: WebConfig = WebConfig()
    mute: tuple[Mapping[str, Any], ...] = option(
        (),
        rules.mutes(),
        "What is counted but raises no alarm. Conditions of one rule hold together: "
        '`[{stat: R_ICMP, source: 192.168.1.5, between: "22:00-06:00", until: 2026-12-24T18:00}]`.',
    )
    counters: Mapping[str, str] = section("Your own counters, over header columns: `MQTT: tcp and dport == 1883`.")
    stats: Mapping[str, Mapping[str, Any]] = section(
        'Your own statistics, over counters: `R_MQTT: {value: MQTT / TCP, unit: "1", range: [0, 1]}`.'
    )
    given: Mapping[str, Given] | None = None  # what was written, by path; no part of what ``repr`` and ``==`` look at

    def _values(self) -> tuple[Any, ...]:
        return super()._values()[:-1]

    def _shown(self) -> Iterable[str]:
        return self.fields[:-1]


CLASSIC: Mapping[str, Any] = {
    "depth": 50,
    "q": 1e-4,
    "max_excess": 200,
    "relearn_after": 120,
}  # what netspot 2 did, for profile: classic
INCLUDE = Option(
    kinds.listed(kinds.path(), "a pattern such as conf.d/*.yaml, or a list of them"),
    "Files that are read after this one, in the order of their names; a later value wins.",
    path="include",
)


def _declared(cls: type[Settings], prefix: str = "", names: str = "") -> Iterator[Option]:
    for name, default in cls.defaults.items():
        found = cls.options.get(name)
        if found is not None:
            key = found.key or re.sub("_n?s$", "", name)
            yield Option(found.kind, found.doc, key, found.outside, prefix + key, found.default, names + name)
        elif isinstance(default, Settings):
            yield from _declared(type(default), f"{prefix}{name}.", f"{names}{name}.")


def _sections(cls: type[Settings], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, text in cls.sections.items():
        yield prefix + name, text
        default = cls.defaults[name]
        if isinstance(default, Settings):
            yield from _sections(type(default), f"{prefix}{name}.")


OPTIONS: dict[str, Option] = {option.path: option for option in _declared(Config)}
SECTIONS: dict[str, str] = {}  # path -> text
for _path, _text in _sections(Config):
    SECTIONS[_path] = _text
    if _path == "web":
        SECTIONS["web.tls"] = "HTTPS instead of HTTP."
