"""Files, environment and command line -> Config. Every mistake is told at once, with its place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from netspot.config import kinds, tree
from netspot.config.kinds import Given, nearest
from netspot.config.options import CLASSIC, INCLUDE, OPTIONS, SECTIONS, Config, Option, SpotConfig
from netspot.config.tree import Mistakes
from netspot.errors import ConfigError

MISTAKES = 100  # told at most
INCLUDED = 100  # files
SEE_LS = "`netspot ls` shows them"
SAVED = "conf.d/90-api.yaml"  # what a change that is kept is written to; never the person's own file
REQUEST = "request"  # the place of a value that came over REST or MQTT

OUTSIDE = {path: option for path, option in OPTIONS.items() if option.outside}
FILES = {f"{path}_file": Option(kinds.path(), "", path=f"{path}_file") for path in OUTSIDE}
ATTRIBUTES = {option.attribute: option for option in OPTIONS.values()}
Values = dict[str, Given]  # by dotted path


def load(
    path: str | os.PathLike[str] | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    env: Mapping[str, str] | None = None,
) -> Config:
    """The configuration of the file (None: of no file), what it includes, the environment, and the command line.

    ``overrides`` are pairs such as ("miner.device", "eth0"), which win. Raises ConfigError, one line a mistake.
    """
    return _load(path, overrides, env, {})


def parse(text: str, name: str = "text", overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """``load`` for a text that stands in no file; without environment and includes."""
    mistakes: Mistakes = []
    found: Values = {}
    _flatten(tree.parse(text, name, mistakes), found, mistakes)
    found |= _overrides(overrides, mistakes)
    return _build(found, mistakes)


def changed(config: Config, mapping: Mapping[str, Any]) -> Config:
    """``config`` with the values of ``mapping`` (nested, or with dotted keys); null takes a value back to its default.

    What was given in files and on the command line stays. Raises ConfigError; then nothing has changed.
    """
    mistakes: Mistakes = []
    given = dict(config.given) if config.given is not None else _given(to_dict(config, secrets=True), mistakes)
    return _build(_patch(given, _given(mapping, mistakes)), mistakes)


def save(path: str | os.PathLike[str], mapping: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Path:
    """Keep the values of ``mapping`` for the next start, in conf.d/90-api.yaml beside the file; returns its path.

    The person's own file is never touched. Raises ConfigError where the result would not be valid, where the
    file does not include that folder, or where it cannot be written.
    """
    import yaml

    mistakes: Mistakes = []
    target = Path(path).absolute().parent / SAVED
    own = tree.read(Path(path), mistakes)
    found: Values = {}
    _flatten(tree.read(target, mistakes) if target.exists() else None, found, mistakes)
    found = _patch(found, _given(mapping, mistakes))
    if own and not any(target.match(pattern) for pattern in _patterns(own, target.parent.parent, mistakes)):
        mistakes.append(f"{path}: the line `include: conf.d/*.yaml` is missing, so {target} would not be read")
    _raise(mistakes)
    head = "## Written by netspot when a change was saved. Delete a line, or the file, to take it back.\n"
    values = {name: tree.bare(value) for name, value in sorted(found.items())}
    text = head + yaml.safe_dump(values, allow_unicode=True, width=100_000) if values else head
    _load(path, (), env, {target: text})
    _write(target, text)
    return target


def to_dict(config: Config, secrets: bool = False) -> dict[str, Any]:
    """The values that apply, as nested mappings of JSON with the keys of the YAML; secrets only if asked."""
    result: dict[str, Any] = {}
    for option in OPTIONS.values():
        if secrets or not option.kind.secret:
            value: Any = config
            for name in option.attribute.split("."):
                value = getattr(value, name)
            _put(result, option.path, option.kind.plain(value))
    for stat_name, spot in config.spot_stats.items():
        own = {item.name: ATTRIBUTES[f"spot.{item.name}"].kind.plain(getattr(spot, item.name)) for item in fields(spot)}
        result["spot"][stat_name] = own
    result["counters"] = dict(config.counters)
    result["stats"] = {name: {**value} for name, value in config.stats.items()}
    return result


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


def check_names(config: Config, stats: Iterable[str], counters: Iterable[str]) -> None:
    """Raise ConfigError for names that are neither among ``stats`` and ``counters`` nor the owner's own."""
    known = {*stats, *config.stats}
    used = [("analyzer.stats", name) for name in config.analyzer.stats or ()]
    used += [(f"spot.{name}", name) for name in config.spot_stats]
    used += [("mute", rule["stat"]) for rule in config.mute if "stat" in rule]
    mistakes = [
        f"{_place(config, path)}: {path}: no statistic is called {name}; {_did_you_mean(name, known, SEE_LS)}"
        for path, name in used
        if name not in known and name.partition("@")[0] not in known
    ]
    for path, own, taken in (("counters", config.counters, {*counters}), ("stats", config.stats, {*stats})):
        mistakes += [
            f"{_place(config, f'{path}.{name}')}: {path}.{name}: netspot has one of that name; take another"
            for name in own
            if name in taken
        ]
    _raise(mistakes)


def node_name(config: Config) -> str:
    """The name of this machine in topics and messages: letters, digits, - and _."""
    if config.node != "auto":
        return config.node
    import socket

    return re.sub("[^A-Za-z0-9_-]+", "-", socket.gethostname().partition(".")[0])[:64].strip("-") or "netspot"


_LOCAL = ("localhost", "127.0.0.1", "::1")


def _load(
    path: str | os.PathLike[str] | None,
    overrides: Sequence[tuple[str, str]],
    env: Mapping[str, str] | None,
    texts: Mapping[Path, str],
) -> Config:
    env = os.environ if env is None else env
    mistakes: Mistakes = []
    found: Values = {}
    if path is not None:
        _flatten_files(Path(path), found, mistakes, texts)
    found |= _overrides(overrides, mistakes)
    folder = Path(path).parent if path is not None else Path()
    _outside(found, folder, env, mistakes)
    return _build(found, mistakes)


def _flatten_files(path: Path, found: Values, mistakes: Mistakes, texts: Mapping[Path, str]) -> None:
    root = tree.read(path, mistakes)
    _flatten(root, found, mistakes)
    found.pop("include", None)
    files = _included(path, root, mistakes) if root else []
    for file in sorted({*files, *(text for text in texts if root)}):
        own: Values = {}
        text = texts.get(file)
        part = tree.read(file, mistakes) if text is None else tree.parse(text, str(file), mistakes)
        _flatten(part, own, mistakes)
        if "include" in own:
            mistakes.append(f"{own.pop('include').where}: include belongs into {path} alone")
        found |= own


def _included(path: Path, root: Given, mistakes: Mistakes) -> list[Path]:
    """The files that the patterns match; none is no mistake, the file itself is one."""
    import glob

    files: list[Path] = []
    for pattern in _patterns(root, path.absolute().parent, mistakes):
        for name in sorted(glob.iglob(pattern)):  # noqa: PTH207 (Path.glob takes no absolute pattern)
            if Path(name).resolve() == path.resolve() or Path(name).name == "secrets.yaml":
                mistakes.append(f"{root.value['include'].where}: include = {pattern}: would include {name} itself")
            elif len(files) < INCLUDED:
                files.append(Path(name))
            else:
                mistakes.append(f"{root.value['include'].where}: include = {pattern}: more than {INCLUDED} files")
                return []
    return files


def _patterns(root: Given, folder: Path, mistakes: Mistakes) -> list[str]:
    given = root.value.get("include")
    if given is None or given.tag == "null":
        return []
    try:
        return [str(folder / pattern) for pattern in INCLUDE.kind.parse(given)]
    except ValueError as error:
        mistakes.append(_complaint(given, INCLUDE, str(error)))
        return []


def _option(path: str) -> Option | None:
    """The declaration of the option at ``path``, those of statistics and the owner's own included."""
    option = OPTIONS.get(path) or FILES.get(path)
    if option or path == "include":
        return option or INCLUDE
    head, _, rest = path.partition(".")
    if head in ("counters", "stats") and kinds.NAME.fullmatch(rest):
        return Option(kinds.own_counter if head == "counters" else kinds.own_stat, "", path=path)
    name, _, key = rest.partition(".")
    spot = OPTIONS.get(f"spot.{key}") if head == "spot" and kinds.STAT.fullmatch(name) else None
    return spot and replace(spot, path=path)


def _is_section(path: str, given: Given) -> bool:
    head, _, name = path.partition(".")
    own = head == "spot" and given.tag in ("map", "null") and kinds.STAT.fullmatch(name) is not None
    return path in SECTIONS or own


def _flatten(given: Given | None, found: Values, mistakes: Mistakes, prefix: str = "") -> None:
    """Mappings in mappings -> ``found`` by dotted path."""
    for key, value in given.value.items() if given else ():
        path = prefix + key
        if _option(path):
            if path in found:
                mistakes.append(f"{value.where}: {path} is given twice, first at {found[path].where}")
            found[path] = value
        elif not _is_section(path, value):
            mistakes.append(_unknown(path, key, prefix, value.where))
        elif value.tag == "map":
            _flatten(value, found, mistakes, path + ".")
        elif value.tag != "null":
            below = next((name for name in OPTIONS if name.startswith(path + ".")), f"{path}.NAME")
            mistakes.append(
                f"{value.where}: {path} = {value.shown()}: a section, with its options below it, such as {below}"
            )
        elif value.where == REQUEST:
            found[path] = value


def _unknown(path: str, key: str, prefix: str, where: str) -> str:
    shown = where if where.startswith("--") else f"{where}: {Given(path, 'str', '').shown()}"
    names = [*OPTIONS, *FILES, *SECTIONS, "include"]
    if prefix.startswith("spot.") and prefix.count(".") == 2:
        names = [prefix + name.removeprefix("spot.") for name in OPTIONS if name.startswith("spot.")]
    siblings = [name for name in names if name.startswith(prefix) and "." not in name[len(prefix) :]]
    elsewhere = [name for name in names if name.rpartition(".")[2] == key]
    near = elsewhere[0] if elsewhere else nearest(path, siblings) or nearest(path, names)
    if near:
        return f"{shown}: unknown; did you mean {near}?"
    return f"{shown}: unknown; known here: {', '.join(name[len(prefix) :] for name in siblings) or 'nothing'}"


def _overrides(overrides: Sequence[tuple[str, str]], mistakes: Mistakes) -> Values:
    """Options of the command line; the last one of a name wins. A list or a mapping is written as in YAML."""
    found: Values = {}
    for key, text in overrides:
        where = f"--{key}"
        option = _option(key)
        if option is None or key == "include":
            prefix = key.rpartition(".")[0]
            mistakes.append(_unknown(key, key.rpartition(".")[2], prefix and prefix + ".", where))
        elif text.startswith(("[", "{")):
            root = tree.parse(f"value: {text}", where, mistakes)
            if root:
                found[key] = replace(root.value["value"], where=where)
        else:
            found[key] = Given(text, "null" if text in ("", "null", "~") else "str", where)
    return found


def _outside(found: Values, folder: Path, env: Mapping[str, str], mistakes: Mistakes) -> None:
    """Names, passwords and tokens from secrets.yaml, files of their own, the environment, systemd's credentials."""
    secrets: Given | None = None
    for path, option in OUTSIDE.items():
        given, file = found.get(path), found.pop(f"{path}_file", None)
        credential = Path(env.get("CREDENTIALS_DIRECTORY", ""), option.credential)
        if given and file:
            mistakes.append(f"{file.where}: {path}_file: {path} is given too, at {given.where}; one of them is enough")
        elif file:
            _put_given(found, path, _secret_file(file, folder, mistakes))
        elif given and given.tag == "!secret":
            secrets = secrets or tree.read(folder / "secrets.yaml", mistakes, secret=True) or Given({}, "map", "")
            _put_given(found, path, _from_secrets(given, path, secrets, mistakes))
        elif not given and env.get(option.variable):
            found[path] = Given(env[option.variable], "str", f"${option.variable}", secret=True)
        elif not given and "CREDENTIALS_DIRECTORY" in env and credential.is_file():
            _put_given(
                found, path, _secret_file(Given(str(credential), "str", "$CREDENTIALS_DIRECTORY"), folder, mistakes)
            )


def _put_given(found: Values, path: str, given: Given | None) -> None:
    if given:
        found[path] = given
    else:
        found.pop(path, None)


def _from_secrets(given: Given, path: str, secrets: Given, mistakes: Mistakes) -> Given | None:
    value: Given | None = secrets.value.get(given.value)
    if value is None:
        hint = _did_you_mean(given.value, secrets.value, "it stands beside the configuration, as lines `name: value`")
        mistakes.append(f"{given.where}: {path}: secrets.yaml holds no {Given(given.value, 'str', '').shown()}; {hint}")
    return value


def _secret_file(given: Given, folder: Path, mistakes: Mistakes) -> Given | None:
    """The one line that the file holds."""
    try:
        file = folder / FILES["exporter.mqtt.password_file"].kind.parse(given)
        with file.open("rb") as opened:
            text = opened.read(kinds.TEXT_LENGTH + 1).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        mistakes.append(f"{given.where}: {given.shown()}: is not UTF-8 text")
    except (OSError, ValueError) as error:
        mistakes.append(
            f"{given.where}: {given.shown()}: cannot be read: {getattr(error, 'strerror', None) or 'no path'}"
        )
    else:
        return Given(text, "str", f"{given.where}: {file}", secret=True)
    return None


def _given(mapping: Mapping[str, Any], mistakes: Mistakes) -> Values:
    """A mapping of JSON by dotted path; a request names no files to be read."""
    found: Values = {}
    _flatten(tree.plain(dict(mapping), REQUEST), found, mistakes)
    for path in [path for path in found if path in FILES or path == "include"]:
        mistakes.append(f"{found.pop(path).where}: {path} can be set in a configuration file only")
    return found


def _patch(found: Values, change: Values) -> Values:
    """``found`` with ``change``, whose nulls take away what they name and what is below it (RFC 7396)."""
    gone = tuple(path for path, given in change.items() if given.tag == "null")
    kept = {path: given for path, given in found.items() if not _is_below(path, gone)}
    return kept | {path: given for path, given in change.items() if given.tag != "null"}


def _is_below(path: str, parents: tuple[str, ...]) -> bool:
    return any(path == parent or path.startswith(parent + ".") for parent in parents)


def _build(found: Values, mistakes: Mistakes) -> Config:
    values: dict[str, Any] = {}
    bad: set[str] = set()
    for path, given in found.items():
        option = _option(path)
        assert option, path
        try:
            values[path] = option.kind.parse(given)
        except ValueError as error:
            bad.add(path)
            mistakes.append(_complaint(given, option, str(error)))
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
    _raise(mistakes)
    return config


def _make(cls: Any, values: Mapping[str, Any], names: str = "") -> Any:
    given: dict[str, Any] = {}
    for item in fields(cls):
        option = ATTRIBUTES.get(names + item.name)
        if option and option.path in values:
            given[item.name] = values[option.path]
        elif is_dataclass(item.default):
            given[item.name] = _make(type(item.default), values, f"{names}{item.name}.")
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
            yield paths, f"{_place(config, *paths)}: {text}"
    for path, part in (("exporter.mqtt", config.exporter.mqtt), ("web.tls", config.web)):
        pair = (f"{path}.cert", f"{path}.key")
        if (part.cert is None) != (part.key is None):
            missing = pair[part.key is None]
            yield pair, f"{_place(config, *pair)}: {missing} is missing: a certificate and its key go together"
    mqtt, pair = config.exporter.mqtt, ("exporter.mqtt.host", "exporter.mqtt.transport")
    if mqtt.host is not None and mqtt.host.startswith("/") != (mqtt.transport == "unix"):
        text = "exporter.mqtt.transport: unix and the path of a socket as host go together"
        yield pair, f"{_place(config, *pair)}: {text}"


def _place(config: Config, *paths: str) -> str:
    """Where the first of ``paths`` that was given stands."""
    given = config.given or {}
    for path in paths:
        for name, value in given.items():
            if _is_below(name, (path,)):
                return value.where
    return "configuration"


def _complaint(given: Given, option: Option, hint: str) -> str:
    hidden = given.secret or option.kind.secret
    given = replace(given, secret=hidden)
    head = (
        f"{given.where} {given.shown()}"
        if given.where.startswith("--")
        else f"{given.where}: {option.path} = {given.shown()}"
    )
    hint = "put it in quotes; " if hidden and given.tag == "bool" else f"{hint}; " if hint and not hidden else ""
    return f"{head}: {hint}accepted: {option.kind.accepted}"


def _did_you_mean(word: str, words: Iterable[str], otherwise: str) -> str:
    near = nearest(word, words)
    return f"did you mean {near}?" if near else otherwise


def _put(result: dict[str, Any], path: str, value: Any) -> None:
    *parents, key = path.split(".")
    for parent in parents:
        result = result.setdefault(parent, {})
    result[key] = value


def _raise(mistakes: Mistakes) -> None:
    """Raise ConfigError if there are any, those of one file in the order of its lines."""
    if mistakes:
        files = list(dict.fromkeys(_file_and_line(text)[0] for text in mistakes))
        mistakes.sort(key=lambda text: (files.index(_file_and_line(text)[0]), _file_and_line(text)[1]))
        more = [f"and {len(mistakes) - MISTAKES} more"] if len(mistakes) > MISTAKES else []
        raise ConfigError("\n".join(mistakes[:MISTAKES] + more))


def _file_and_line(mistake: str) -> tuple[str, int]:
    match = re.match(r"(.*?):(\d+): ", mistake)
    return (match[1], int(match[2])) if match else (mistake.partition(" ")[0], 0)


def _write(target: Path, text: str) -> None:
    """Replace the file as a whole: after a power cut it is the old or the new one. Only its owner may read it."""
    new = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(exist_ok=True)
        new.unlink(missing_ok=True)
        new.touch(0o600, exist_ok=False)
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from None
