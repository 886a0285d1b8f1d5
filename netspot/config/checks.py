"""What can be said of a configuration as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable

from netspot.config.build import located, place
from netspot.config.kinds import did_you_mean
from netspot.config.options import Config
from netspot.config.tree import Mistakes

SEE_LS = "`netspot ls` shows them"

_LOCAL = ("localhost", "127.0.0.1", "::1")


def warnings(config: Config) -> tuple[str, ...]:
    """What can be used but is probably not meant; one line each."""
    mqtt = config.exporter.mqtt
    found = []
    if mqtt.host and mqtt.password and not mqtt.tls and mqtt.transport != "unix" and mqtt.host not in _LOCAL:
        found.append("exporter.mqtt.password goes over the network unencrypted: set exporter.mqtt.tls: true")
    if mqtt.password and not mqtt.username:
        found.append("exporter.mqtt.password without exporter.mqtt.username: most brokers refuse that")
    if mqtt.host and mqtt.tls and mqtt.tls_insecure:
        found.append("exporter.mqtt.tls_insecure: anybody on the way can pretend to be the broker")
    if not mqtt.tls and any((mqtt.ca, mqtt.cert, mqtt.server_name)):
        found.append("exporter.mqtt.ca, cert and server_name do nothing without exporter.mqtt.tls: true")
    if any(not (spot.up or spot.down) for spot in (config.spot, *config.spot_stats.values())):
        found.append("spot.up and spot.down are both false: nothing is watched for")
    return tuple(found)


def wrong_names(config: Config, stats: Iterable[str], counters: Iterable[str]) -> Mistakes:
    """One line for each name that nothing has, and for each of the owner's own that netspot has already."""
    known = {*stats, *config.stats}
    used = [("analyzer.stats", name, place(config, "analyzer.stats")) for name in config.analyzer.stats or ()]
    used += [(f"spot.{name}", name, place(config, f"spot.{name}")) for name in config.spot_stats]
    used += [
        ("mute", rule["stat"], place(config, f"mute.{row}.stat"))
        for row, rule in enumerate(config.mute)
        if "stat" in rule
    ]
    mistakes = [
        located(where, f"{path}: no statistic is called {name}; {did_you_mean(name, known, SEE_LS)}")
        for path, name, where in used
        if name not in known and name.partition("@")[0] not in known
    ]
    for path, own, taken in (("counters", config.counters, {*counters}), ("stats", config.stats, {*stats})):
        mistakes += [
            located(place(config, f"{path}.{name}"), f"{path}.{name}: netspot has one of that name; take another")
            for name in own
            if name in taken
        ]
    return mistakes


def node_name(config: Config) -> str:
    """The name of this machine in topics and messages: letters, digits, - and _."""
    if config.node != "auto":
        return config.node
    import socket

    return re.sub("[^A-Za-z0-9_-]+", "-", socket.gethostname().partition(".")[0])[:64].strip("-") or "netspot"
