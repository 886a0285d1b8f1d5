"""The configuration: YAML -> frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class MinerConfig:
    device: str = "auto"
    backend: str = "auto"  # auto | ring | libpcap
    promiscuous: bool = False
    snapshot_len: int = 192
    filter: str = ""
    ring_mib: int = 4
    home_nets: tuple[str, ...] | None = None  # None: auto, from the interface
    direction: str = "both"  # both | in | out
    loopback: bool = False


@dataclass(frozen=True, slots=True)
class AnalyzerConfig:
    period_ns: int = 1_000_000_000
    profile: str = "default"  # default | classic
    stats: tuple[str, ...] | None = None  # None: those of the profile
    false_alarms_per_day: float = 1.0
    clear_after: int = 10  # quiet windows after which an alarm is cleared


@dataclass(frozen=True, slots=True)
class SpotConfig:
    """Parameters of one detector; ``None`` for q: from the budget."""

    depth: int = 50
    q: float | None = None
    n_init: int = 1000
    level: float = 0.98
    up: bool = True
    down: bool = False
    alert: bool = True
    bounded: bool = True
    max_excess: int = 200
    relearn_after: int = 120


@dataclass(frozen=True, slots=True)
class ConsoleConfig:
    data: bool = False
    alarm: bool = True


@dataclass(frozen=True, slots=True)
class FileConfig:
    data: str | None = None
    alarm: str | None = None
    rotate_mib: float = 10.0
    rotate_every_s: float = 0.0  # 0: never by age
    keep: int = 3


@dataclass(frozen=True, slots=True)
class HomeAssistantConfig:
    discovery: str = "device"  # device | component | off
    prefix: str = "homeassistant"
    birth_topic: str = "homeassistant/status"


@dataclass(frozen=True, slots=True)
class MqttConfig:
    host: str | None = None  # None: off
    port: int | None = None  # None: 1883, with TLS 8883
    base: str = "netspot"
    protocol: str = "auto"  # auto | 3.1.1 | 5
    transport: str = "tcp"  # tcp | websockets | unix
    client_id: str | None = None
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    tls_insecure: bool = False
    keepalive_s: float = 15.0
    stat_every_s: float = 10.0
    health_every_s: float = 60.0
    commands: bool = True
    spool: int = 10_000
    homeassistant: HomeAssistantConfig = HomeAssistantConfig()


@dataclass(frozen=True, slots=True)
class SocketConfig:
    data: str | None = None  # tcp://host:port, udp://host:port, unix:///path
    alarm: str | None = None
    format: str = "json"  # json | csv
    tag: str = "netspot"


@dataclass(frozen=True, slots=True)
class InfluxConfig:
    url: str | None = None
    database: str = "netspot"
    token: str | None = None
    org: str | None = None
    username: str | None = None
    password: str | None = None
    batch: int = 500
    every_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ExporterConfig:
    console: ConsoleConfig = ConsoleConfig()
    file: FileConfig = FileConfig()
    mqtt: MqttConfig = MqttConfig()
    socket: SocketConfig = SocketConfig()
    influxdb: InfluxConfig = InfluxConfig()


@dataclass(frozen=True, slots=True)
class EvidenceConfig:
    pcap: bool = True
    mib: int = 32
    addresses: str = "whole"  # whole | shortened | hashed


@dataclass(frozen=True, slots=True)
class StateConfig:
    dir: str | None = None
    save_every_s: float = 900.0


@dataclass(frozen=True, slots=True)
class WebConfig:
    listen: str | None = "127.0.0.1:11000"  # host:port, [v6]:port, unix:/path; None: off
    read: str = "open"  # open | token
    base: str = "/"
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    node: str = "auto"
    miner: MinerConfig = MinerConfig()
    analyzer: AnalyzerConfig = AnalyzerConfig()
    spot: SpotConfig = SpotConfig()
    spot_stats: Mapping[str, SpotConfig] = field(default_factory=dict)  # whole settings of the statistics that differ
    exporter: ExporterConfig = ExporterConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    state: StateConfig = StateConfig()
    web: WebConfig = WebConfig()
    mute: tuple[Mapping[str, Any], ...] = ()
    counters: Mapping[str, str] = field(default_factory=dict)  # the owner's own, as expressions over header columns
    stats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # the owner's own
