"""Values by dotted path -> Config, with what contradicts itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from netspot.config.kinds import LIST_ITEMS, Given, Parts
from netspot.config.options import CLASSIC, OPTIONS, Config, Settings, SpotConfig
from netspot.config.settings import Values, complaints, is_below, option_at
from netspot.config.tree import MISTAKES, Mistakes
from netspot.errors import ConfigError
from netspot.record import replace

ATTRIBUTES = {option.attribute: option for option in OPTIONS.values()}


def build(found: Values, mistakes: Mistakes, further: Callable[[Config], Mistakes] | None = None) -> Config:
    """The configuration, or ConfigError with all of ``mistakes``, those of the values and what ``further`` finds."""
    values: dict[str, Any] = {}
    bad: set[str] = set()
    for path, given in found.items():
        option = option_at(path)
        assert option, path
        try:
            values[path] = option.kind.parse(given)
        except ValueError as error:
            bad.add(path)
            mistakes += complaints(given, option, error)
            if isinstance(error, Parts) and error.found:
                values[path] = error.found  # for the eyes of ``further`` alone
    if values.get("analyzer.profile") == "classic":
        values = {f"spot.{name}": value for name, value in CLASSIC.items()} | values
    names = dict.fromkeys(path.split(".")[1] for path in values if path.startswith("spot.") and path.count(".") == 2)
    config: Config = replace(
        _make(Config, values),
        spot_stats={name: _spot(name, values) for name in names},
        counters={path[9:]: value for path, value in values.items() if path.startswith("counters.")},
        stats={path[6:]: value for path, value in values.items() if path.startswith("stats.")},
        given=found,
    )
    mistakes += [text for paths, text in _contradictions(config) if not bad.intersection(paths)]
    mistakes += further(config) if further else []
    raise_all(mistakes)
    return config


def _make(cls: Any, values: Mapping[str, Any], names: str = "") -> Any:
    given: dict[str, Any] = {}
    for name, default in cls.defaults.items():
        option = ATTRIBUTES.get(names + name)
        if option and option.path in values:
            given[name] = values[option.path]
        elif isinstance(default, Settings):
            given[name] = _make(type(default), values, f"{names}{name}.")
    return cls(**given)


def _spot(name: str, values: Mapping[str, Any]) -> SpotConfig:
    own = {
        f"spot.{path.rpartition('.')[2]}": value for path, value in values.items() if path.startswith(f"spot.{name}.")
    }
    spot: SpotConfig = _make(SpotConfig, {**values, **own}, "spot.")
    return spot


def _contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Values that are good alone and cannot be together: (their paths, the error)."""
    for prefix, spot in {"spot": config.spot, **{f"spot.{n}": s for n, s in config.spot_stats.items()}}.items():
        paths = (f"{prefix}.q", f"{prefix}.level", "spot.q", "spot.level")
        if spot.q is not None and not spot.q < 1 - spot.level:
            text = f"{prefix}.q = {spot.q:g}: must lie in ]0, {1 - spot.level:g}[ (1 - level)"
            yield paths, f"{place(config, *paths)}: {text}"
    for path, own in (("spot", config.spot_stats), ("counters", config.counters), ("stats", config.stats)):
        if len(own) > LIST_ITEMS:
            yield (), f"{place(config, path)}: {path}: {len(own)} names; {LIST_ITEMS} are possible"
    for path, part in (("exporter.mqtt", config.exporter.mqtt), ("web.tls", config.web)):
        pair = (f"{path}.cert", f"{path}.key")
        if (part.cert is None) != (part.key is None):
            missing = pair[part.key is None]
            yield pair, f"{place(config, *pair)}: {missing} is missing: a certificate and its key go together"
    mqtt, pair = config.exporter.mqtt, ("exporter.mqtt.host", "exporter.mqtt.transport")
    if mqtt.host is not None and mqtt.host.startswith("/") != (mqtt.transport == "unix"):
        text = "exporter.mqtt.transport: unix and the path of a socket as host go together"
        yield pair, f"{place(config, *pair)}: {text}"


def place(config: Config, *paths: str) -> str:
    """Where the first of ``paths`` that was given stands; a path may lead into a value that is a list or a mapping."""
    given = config.given or {}
    for path in paths:
        for name, value in given.items():
            if is_below(name, (path,)):
                return value.where
            if is_below(path, (name,)):
                return _part(value, path[len(name) + 1 :].split(".")).where
    return "configuration"


def located(where: str, text: str) -> str:
    """An error, which begins with its option, behind its place; on the command line the option is the place."""
    return f"--{text}" if where.startswith("--") else f"{where}: {text}"


def _part(given: Given, path: list[str]) -> Given:
    """What ``path`` leads to in a value of a file, as far as it leads."""
    key, *rest = path
    inner = given.value[int(key)] if given.tag == "seq" else given.value.get(key) if given.tag == "map" else None
    if inner is None or given.where.startswith("--"):
        return given
    return _part(inner, rest) if rest else inner


def raise_all(mistakes: Mistakes) -> None:
    """Raise ConfigError if there are any, those of one file in the order of its lines."""
    if mistakes:
        places = [_file_and_line(text) for text in mistakes]
        order = {file: rank for rank, file in enumerate(dict.fromkeys(file for file, _ in places))}
        mistakes.sort(key=lambda text: (order[_file_and_line(text)[0]], _file_and_line(text)[1]))
        more = [f"and {len(mistakes) - MISTAKES} more"] if len(mistakes) > MISTAKES else []
        raise ConfigError("\n".join(mistakes[:MISTAKES] + more))


def _file_and_line(mistake: str) -> tuple[str, int]:
    match = re.match(r"(.*?):(\d+): ", mistake)
    return (match[1], int(match[2])) if match else (mistake.partition(" ")[0], 0)
