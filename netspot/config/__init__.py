"""The configuration: YAML, environment and command line -> frozen dataclasses. Nothing else reads them."""

from netspot.config.load import changed, check_names, load, node_name, parse, save, to_dict, warnings
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
    "check_names",
    "load",
    "node_name",
    "parse",
    "save",
    "to_dict",
    "warnings",
]
