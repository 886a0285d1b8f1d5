"""Values by dotted path: ``miner: {device: eth0}`` and ``miner.device: eth0`` are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netspot.config import kinds, rules, tree
from netspot.config.kinds import Given, nearest
from netspot.config.options import INCLUDE, OPTIONS, SECTIONS, Option
from netspot.config.tree import MISTAKES, Mistakes
from netspot.errors import ConfigError
from netspot.record import replace

REQUEST = "request"  # the place of a value that came over REST or MQTT

OUTSIDE = {path: option for path, option in OPTIONS.items() if option.outside}

FILES = {f"{path}_file": Option(kinds.path(), "", path=f"{path}_file") for path in OUTSIDE}

Values = dict[str, Given]  # by dotted path


def option_at(path: str) -> Option | None:
    """The declaration of the option at ``path``, those of statistics and the owner's own included."""
    option = OPTIONS.get(path) or FILES.get(path)
    if option or path == "include":
        return option or INCLUDE
    head, _, rest = path.partition(".")
    if head in ("counters", "stats") and kinds.NAME.fullmatch(rest):
        return Option(rules.own_counter if head == "counters" else rules.own_stat, "", path=path)
    name, _, key = rest.partition(".")
    spot = OPTIONS.get(f"spot.{key}") if head == "spot" and kinds.STAT.fullmatch(name) else None
    return spot and replace(spot, path=path)


def _is_section(path: str, given: Given) -> bool:
    head, _, name = path.partition(".")
    own = head == "spot" and given.tag in ("map", "null") and kinds.STAT.fullmatch(name) is not None
    return path in SECTIONS or own


def flatten(given: Given | None, found: Values, mistakes: Mistakes, prefix: str = "") -> None:
    """Mappings in mappings -> ``found`` by dotted path."""
    for key, value in given.value.items() if given else ():
        path = prefix + key
        if option_at(path):
            if path in found:
                mistakes.append(f"{value.where}: {path} is given twice, first at {found[path].where}")
            found[path] = value
        elif not _is_section(path, value):
            enough = len(mistakes) >= MISTAKES  # looking for the nearest key takes milliseconds
            mistakes.append(path if enough else _unknown(path, key, prefix, value.where))
        elif value.tag == "map":
            flatten(value, found, mistakes, path + ".")
        elif value.tag != "null":
            below = next((name for name in OPTIONS if name.startswith(path + ".")), f"{path}.NAME")
            mistakes.append(
                f"{value.where}: {path} = {value.shown()}: a section, with its options below it, such as {below}"
            )
        elif value.where == REQUEST:
            found[path] = value


def _unknown(path: str, key: str, prefix: str, where: str) -> str:
    shown = where if where.startswith("--") else f"{where}: {Given(path, 'str', '').shown()}"
    if prefix in ("counters.", "stats."):
        return f"{shown}: a name is made of at most 64 letters, digits and _, and begins with a letter"
    names = [*OPTIONS, *FILES, *SECTIONS, "include"]
    if prefix.startswith("spot.") and prefix.count(".") == 2:
        names = [prefix + name.removeprefix("spot.") for name in OPTIONS if name.startswith("spot.")]
    siblings = [name for name in names if name.startswith(prefix) and "." not in name[len(prefix) :]]
    elsewhere = [name for name in names if name.rpartition(".")[2] == key]
    near = elsewhere[0] if elsewhere else nearest(path, siblings) or nearest(path, names)
    if near:
        return f"{shown}: unknown; did you mean {near}?"
    return f"{shown}: unknown; known here: {', '.join(name[len(prefix) :] for name in siblings) or 'nothing'}"


def overridden(overrides: Sequence[tuple[str, str]], mistakes: Mistakes) -> Values:
    """Options of the command line; the last one of a name wins. A list or a mapping is written as in YAML."""
    found: Values = {}
    for key, text in overrides:
        where = Given(f"--{key}", "str", "").shown()
        option = option_at(key)
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


def requested(mapping: Mapping[str, Any], mistakes: Mistakes) -> Values:
    """A mapping of JSON by dotted path; a request names no files to be read."""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{REQUEST}: {Given(str(mapping), 'str', '').shown()}: a mapping of options is wanted")
    found: Values = {}
    flatten(tree.plain(dict(mapping), REQUEST), found, mistakes)
    for path in [path for path in found if path in FILES or path == "include"]:
        mistakes.append(f"{found.pop(path).where}: {path} can be set in a configuration file only")
    return found


def patch(found: Values, change: Values) -> Values:
    """``found`` with ``change``, whose nulls take away what they name and what is below it (RFC 7396)."""
    gone = tuple(path for path, given in change.items() if given.tag == "null")
    kept = {path: given for path, given in found.items() if not is_below(path, gone)}
    return kept | {path: given for path, given in change.items() if given.tag != "null"}


def is_below(path: str, parents: tuple[str, ...]) -> bool:
    return any(path == parent or path.startswith(parent + ".") for parent in parents)


def complaints(given: Given, option: Option, error: ValueError) -> Mistakes:
    """What was wrong with a value, or with each of its parts, where that stands."""
    if isinstance(error, kinds.Parts) and not given.where.startswith("--"):
        return [_complaint(replace(given, where=where), option, words) for where, words in error.parts]
    return [_complaint(given, option, str(error))]


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
