"""Files, environment and command line -> Config. Every mistake is told at once, with its place."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from netspot.config import kinds, tree
from netspot.config.build import build
from netspot.config.kinds import Given, did_you_mean
from netspot.config.options import INCLUDE, Config
from netspot.config.settings import FILES, OUTSIDE, Values, complaints, flatten, overridden
from netspot.config.tree import Mistakes

INCLUDED = 100  # files


def load(
    path: str | os.PathLike[str] | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    env: Mapping[str, str] | None = None,
    further: Callable[[Config], Mistakes] | None = None,
) -> Config:
    """The configuration of the file (None: of no file), what it includes, the environment, and the command line.

    ``overrides`` are pairs such as ("miner.device", "eth0"), which win. ``further`` tells the mistakes that only others
    can see. Raises ConfigError, one line a mistake.
    """
    return load_with(path, overrides, env, {}, further)


def parse(text: str, name: str = "text", overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """``load`` for a text that stands in no file; without environment and includes."""
    mistakes: Mistakes = []
    found: Values = {}
    flatten(tree.parse(text, name, mistakes), found, mistakes)
    found |= overridden(overrides, mistakes)
    return build(found, mistakes)


def load_with(
    path: str | os.PathLike[str] | None,
    overrides: Sequence[tuple[str, str]],
    env: Mapping[str, str] | None,
    texts: Mapping[Path, str],
    further: Callable[[Config], Mistakes] | None = None,
) -> Config:
    """``load`` with other texts for some of the included files."""
    env = os.environ if env is None else env
    mistakes: Mistakes = []
    found: Values = {}
    if path is not None:
        _flatten_files(Path(path), found, mistakes, texts)
    found |= overridden(overrides, mistakes)
    folder = Path(path).parent if path is not None else Path()
    _outside(found, folder, env, mistakes)
    return build(found, mistakes, further)


def _flatten_files(path: Path, found: Values, mistakes: Mistakes, texts: Mapping[Path, str]) -> None:
    root = tree.read(path, mistakes)
    flatten(root, found, mistakes)
    found.pop("include", None)
    files = _included(path, root, mistakes) if root else []
    named = f"{root.value['include'].where}: include = " if root and files else ""
    for file in sorted({*files, *(text for text in texts if root)}):
        own: Values = {}
        text = texts.get(file)
        part = tree.read(file, mistakes, named=named) if text is None else tree.parse(text, str(file), mistakes)
        flatten(part, own, mistakes)
        if "include" in own:
            mistakes.append(f"{own.pop('include').where}: include belongs into {path} alone")
        found |= own


def _included(path: Path, root: Given, mistakes: Mistakes) -> list[Path]:
    """The files that the patterns match; that a pattern matches none is no mistake, the file itself is one."""
    files: list[Path] = []
    for pattern in patterns(root, path.absolute().parent, mistakes):
        where = root.value["include"].where
        names = [pattern] if os.path.lexists(pattern) else sorted(glob.iglob(pattern))  # noqa: PTH207 (absolute)
        if not names and not glob.has_magic(pattern):
            mistakes.append(f"{where}: include = {pattern}: there is no such file")
        for name in names:
            if _is_same(Path(name), path) or Path(name).name == "secrets.yaml":
                mistakes.append(f"{where}: include = {pattern}: would include {name} itself")
            elif Path(name).is_dir():
                mistakes.append(f"{where}: include = {name}: is a folder; name files, as in {name}/*.yaml")
            elif len(files) < INCLUDED:
                files.append(Path(name))
            else:
                mistakes.append(f"{where}: include = {pattern}: more than {INCLUDED} files")
                return []
    return files


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # a dangling or circular link: told when it is read
        return False


def patterns(root: Given, folder: Path, mistakes: Mistakes) -> list[str]:
    given = root.value.get("include")
    if given is None or given.tag == "null":
        return []
    try:
        return [str(folder / pattern) for pattern in INCLUDE.kind.parse(given)]
    except ValueError as error:
        mistakes += complaints(given, INCLUDE, error)
        return []


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
        elif not given and "CREDENTIALS_DIRECTORY" in env and _holds_text(credential):
            _put_given(
                found, path, _secret_file(Given(str(credential), "str", "$CREDENTIALS_DIRECTORY"), folder, mistakes)
            )


def _holds_text(credential: Path) -> bool:
    """The unit's default, for who has no such file, is an empty line."""
    return credential.is_file() and not credential.read_bytes().isspace()


def _put_given(found: Values, path: str, given: Given | None) -> None:
    if given:
        found[path] = given
    else:
        found.pop(path, None)


def _from_secrets(given: Given, path: str, secrets: Given, mistakes: Mistakes) -> Given | None:
    value: Given | None = secrets.value.get(given.value)
    if value is None:
        hint = did_you_mean(given.value, secrets.value, "it stands beside the configuration, as lines `name: value`")
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
