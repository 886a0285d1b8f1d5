"""The configuration: YAML, environment and command line -> immutable records. Nothing else reads them."""

from netspot.config.addresses import split_address
from netspot.config.build import located, place, raise_all
from netspot.config.change import changed, save, to_dict
from netspot.config.checks import node_name, warnings, wrong_names
from netspot.config.load import load, parse
from netspot.config.options import (
    AnalyzerConfig,
    Config,
    ConsoleConfig,
    EvidenceConfig,
    ExporterConfig,
    FileConfig,
    HomeAssistantConfig,
    InfluxConfig,
    MinerConfig,
    MqttConfig,
    SocketConfig,
    SpotConfig,
    StateConfig,
    WebConfig,
)
from netspot.config.text import defaults

__all__ = [
    "AnalyzerConfig",
    "Config",
    "ConsoleConfig",
    "EvidenceConfig",
    "ExporterConfig",
    "FileConfig",
    "HomeAssistantConfig",
    "InfluxConfig",
    "MinerConfig",
    "MqttConfig",
    "SocketConfig",
    "SpotConfig",
    "StateConfig",
    "WebConfig",
    "changed",
    "defaults",
    "load",
    "located",
    "node_name",
    "parse",
    "place",
    "raise_all",
    "save",
    "split_address",
    "to_dict",
    "warnings",
    "wrong_names",
]
