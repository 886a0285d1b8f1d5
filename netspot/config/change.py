"""A running program's configuration: shown, changed, and kept for the next start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netspot.config import tree
from netspot.config.build import ATTRIBUTES, build, raise_all
from netspot.config.load import load_with, patterns
from netspot.config.options import OPTIONS, Config
from netspot.config.settings import Values, flatten, patch, requested
from netspot.config.tree import Mistakes
from netspot.errors import ConfigError

SAVED = "conf.d/90-api.yaml"  # what a change that is kept is written to; never the person's own file


def changed(config: Config, mapping: Mapping[str, Any]) -> Config:
    """``config`` with the values of ``mapping`` (nested, or with dotted keys); null takes a value back to its default.

    What was given in files and on the command line stays. Raises ConfigError; then nothing has changed.
    """
    mistakes: Mistakes = []
    given = dict(config.given) if config.given is not None else requested(to_dict(config, secrets=True), mistakes)
    return build(patch(given, requested(mapping, mistakes)), mistakes)


def save(path: str | os.PathLike[str], mapping: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Path:
    """Keep the values of ``mapping`` for the next start, in conf.d/90-api.yaml beside the file; returns its path.

    The person's own file is never touched. Raises ConfigError where the result would not be valid, where the
    file does not include that folder, or where it cannot be written. Waits for the medium: a person asked for it.
    """
    import yaml

    mistakes: Mistakes = []
    target = Path(path).absolute().parent / SAVED
    own = tree.read(Path(path), mistakes)
    found: Values = {}
    flatten(tree.read(target, mistakes) if target.exists() else None, found, mistakes)
    found = patch(found, requested(mapping, mistakes))
    if own and not any(target.match(pattern) for pattern in patterns(own, target.parent.parent, mistakes)):
        mistakes.append(f"{path}: the line `include: conf.d/*.yaml` is missing, so {target} would not be read")
    raise_all(mistakes)
    head = "## Written by netspot when a change was saved. Delete a line, or the file, to take it back.\n"
    values = {name: tree.bare(value) for name, value in sorted(found.items())}
    text = head + yaml.safe_dump(values, allow_unicode=True, width=100_000) if values else head
    load_with(path, (), env, {target: text})
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
        own = {name: ATTRIBUTES[f"spot.{name}"].kind.plain(getattr(spot, name)) for name in spot.fields}
        result["spot"][stat_name] = own
    result["counters"] = dict(config.counters)
    result["stats"] = {name: {**value} for name, value in config.stats.items()}
    return result


def _put(result: dict[str, Any], path: str, value: Any) -> None:
    *parents, key = path.split(".")
    for parent in parents:
        result = result.setdefault(parent, {})
    result[key] = value


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
