"""YAML text -> values with their places. Hostile text makes mistakes in a list, never another exception."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netspot.config.kinds import Given
from netspot.errors import ConfigError
from netspot.record import replace

if TYPE_CHECKING:
    import yaml

FILE_BYTES = 1 << 20  # of one file
NODES = 20_000  # scalars, lists and mappings of one file
DEPTH = 16  # mappings and lists inside one another
TOO_MUCH = f"more than {NODES} values, or more than {DEPTH} inside one another"
SCALAR_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("bool", "null", "int", "float")}

MISTAKES = 100  # told at most

Mistakes = list[str]


class _Stop(Exception):
    """The rest of the text cannot be read."""


def read(path: Path, mistakes: Mistakes, secret: bool = False, named: str = "") -> Given | None:
    """The mapping in the file, or None where there is none to be had; ``named`` begins what is said of a whole file."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        mistakes.append(f"{named}{path}: cannot be read: {getattr(error, 'strerror', None) or error}")
        return None
    if len(data) > FILE_BYTES:
        mistakes.append(f"{named}{path}: larger than {FILE_BYTES >> 20} MiB, which no configuration is")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        mistakes.append(f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8")
        return None
    return parse(text, str(path), mistakes, secret)


def parse(text: str, name: str, mistakes: Mistakes, secret: bool = False) -> Given | None:
    """The mapping that ``text`` holds; ``name`` says where it comes from. With ``secret``, all values are."""
    import yaml

    surrogate = re.search("[\ud800-\udfff]", text)
    if surrogate:
        mistakes.append(f"{name}:{text.count(chr(10), 0, surrogate.start()) + 1}: half a UTF-16 pair is not text")
        return None
    try:
        root = _tree(yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), name, mistakes, secret)
    except yaml.reader.ReaderError as error:
        bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
        line = text.count("\n", 0, bad.start() if bad else 0) + 1
        mistakes.append(f"{name}:{line}: {error.reason}")
    except yaml.MarkedYAMLError as error:
        mistakes.append(_syntax(error, text, name))
    except _Stop as stop:
        mistakes.append(str(stop))
    else:
        if root is None or root.tag == "map":
            return root or Given({}, "map", f"{name}:1")
        if root.tag != "null":
            mistakes.append(f"{root.where}: a configuration is made of lines like `key: value`, not of {root.shown()}")
    return None


def _syntax(error: yaml.MarkedYAMLError, text: str, name: str) -> str:
    """The error without the text around it, which could hold a secret."""
    number = error.problem_mark.line if error.problem_mark else 0
    lines = text.splitlines()[max(number - 1, 0) : number + 1]
    if any("\t" in line[: len(line) - len(line.lstrip())] for line in lines):
        return f"{name}:{number + 1}: a tab: indent with spaces"
    if "maximum nesting" in (error.problem or ""):  # libyaml ends at 1,000, as it reads ahead
        return f"{name}:{number + 1}: {TOO_MUCH}"
    what = " ".join(filter(None, (error.context, error.problem)))
    return f"{name}:{number + 1}: not YAML: {re.sub('[^ -~]', '?', what)[:200]}"


def _tree(events: Iterator[Any], name: str, mistakes: Mistakes, secret: bool) -> Given | None:
    """The document, built without recursion: a text of 100,000 brackets must not end the program."""
    import yaml

    resolver = yaml.resolver.Resolver()
    stack: list[tuple[str, list[Given]]] = [("", [])]
    for count, event in enumerate(events):
        where = f"{name}:{event.start_mark.line + 1}"
        if count > NODES or len(stack) > DEPTH:
            raise _Stop(f"{where}: {TOO_MUCH}")
        if isinstance(event, yaml.AliasEvent):
            raise _Stop(f"{where}: a value that begins with * needs quotes (references are not used here)")
        if isinstance(event, yaml.DocumentStartEvent) and stack[0][1]:
            raise _Stop(f"{where}: --- begins a second document; one file is one document")
        if isinstance(event, yaml.ScalarEvent):
            stack[-1][1].append(_scalar(event, resolver, where, secret, mistakes))
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append((where, []))
            if event.tag not in (None, "!"):
                mistakes.append(f"{where}: the tag {_tag(event.tag)} is unknown here")
        elif isinstance(event, yaml.CollectionEndEvent):
            where, items = stack.pop()
            is_map = isinstance(event, yaml.MappingEndEvent)
            value = _mapping(items, mistakes) if is_map else tuple(items)
            stack[-1][1].append(Given(value, "map" if is_map else "seq", where, secret))
    return stack[0][1][0] if stack[0][1] else None


def _scalar(event: Any, resolver: Any, where: str, secret: bool, mistakes: Mistakes) -> Given:
    if event.tag == "!secret":
        return Given(event.value, "!secret", where)
    if event.tag not in (None, "!"):
        mistakes.append(f"{where}: the tag {_tag(event.tag)} is unknown here; known: !secret")
    import yaml

    tag = resolver.resolve(yaml.ScalarNode, event.value, event.implicit)
    return Given(event.value, SCALAR_TAGS.get(tag, "str"), where, secret)


def _tag(tag: str) -> str:
    return Given(tag, "str", "").shown()


def _mapping(items: list[Given], mistakes: Mistakes) -> dict[str, Given]:
    values: dict[str, Given] = {}
    for key, value in zip(items[::2], items[1::2], strict=True):
        if key.tag in ("seq", "map"):
            mistakes.append(f"{key.where}: {key.shown()} cannot be a key")
        elif key.value in values:
            first = values[key.value].where.rpartition(":")[2]
            mistakes.append(f"{key.where}: {replace(key, secret=False).shown()} is given twice, first in line {first}")
        else:
            values[key.value] = replace(value, where=key.where)
    return values


def plain(value: Any, where: str, depth: int = 0) -> Given:
    """A value of JSON as somebody might have written it. Raises ConfigError where it is nested too deeply."""
    if depth > DEPTH:
        raise ConfigError(f"{where}: more than {DEPTH} lists or mappings inside one another")
    match value:
        case dict():
            return Given({str(key): plain(item, where, depth + 1) for key, item in value.items()}, "map", where)
        case list() | tuple():
            return Given(tuple(plain(item, where, depth + 1) for item in value), "seq", where)
        case bool():
            return Given(str(value).lower(), "bool", where)
        case None:
            return Given("null", "null", where)
        case int() if value.bit_length() > 64:
            return Given("a number of more than 64 bits", "str", where)
        case _:
            return Given(str(value), "str", where)


def bare(given: Given) -> Any:
    """The other way: what YAML or JSON would hold."""
    if given.tag == "map":
        return {key: bare(item) for key, item in given.value.items()}
    if given.tag == "seq":
        return [bare(item) for item in given.value]
    return (
        {"true": True, "false": False, "null": None}.get(given.value, given.value)
        if given.tag in ("bool", "null")
        else given.value
    )
