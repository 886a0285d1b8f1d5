"""What an option accepts: text as written in the file -> a checked value, and back to what JSON or YAML would hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Generic, TypeVar

from netspot.record import Record

T = TypeVar("T")

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")  # of a counter

STAT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}(@[1-9][0-9]{0,3})?")  # of a statistic, perhaps over a span

SLUG = re.compile(r"[A-Za-z0-9_-]{1,64}")

NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d+)([eE][+-]?\d+)?")

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

LIST_ITEMS = 200  # entries of a list

TEXT_LENGTH = 4096  # characters of a text


class Given(Record):
    """A value as somebody wrote it. ``value`` is the text of a scalar, a tuple of a sequence, a dict of a mapping."""

    value: Any
    tag: str  # str, bool, null, int, float, seq, map: what YAML takes the text for
    where: str  # file:line, --option, $VARIABLE, request
    secret: bool = False

    def __repr__(self) -> str:
        return f"Given({self.shown()}, {self.where})"

    def shown(self) -> str:
        """The value in at most 60 printable characters; never a secret."""
        if self.secret:
            return "(secret)"
        if self.tag in ("seq", "map"):
            return "(a list)" if self.tag == "seq" else "(a mapping)"
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in self.value[:60])
        return (text + "..." if len(self.value) > 60 else text) or "(nothing)"

    def text(self) -> str:
        """The text of a scalar. Raises ValueError for a list or a mapping, and for what is too long or no text."""
        if self.tag in ("seq", "map"):
            raise ValueError(f"{self.shown()} stands where one value is wanted")
        if self.tag == "!secret":
            raise ValueError("!secret is for user names, passwords and tokens only")
        if len(self.value) > TEXT_LENGTH:
            raise ValueError(f"longer than {TEXT_LENGTH} characters")
        if re.search("[\ud800-\udfff]", self.value):  # bytes of the command line, or an escape of JSON
            raise ValueError("not UTF-8 text")
        text: str = self.value
        return text


class Parts(ValueError):
    """What is wrong inside a list or a mapping: for each of its parts where it stands, and the words.

    ``found``: the rest of it, where that can be looked at for more mistakes.
    """

    def __init__(self, parts: list[tuple[str, str]], found: Any = None) -> None:
        super().__init__("; ".join(words for _, words in parts))
        self.parts, self.found = parts, found


class Kind(Record, Generic[T]):
    """``parse`` raises ValueError, whose text may tell what surprised; ``accepted`` ends the person's error."""

    accepted: str
    parse: Callable[[Given], T]
    plain: Callable[[T], Any] = lambda value: value  # as JSON holds it; ``parse`` of that gives the value again
    secret: bool = False
    words: tuple[str, ...] = ()  # all that is accepted, where that is a few words


def flag() -> Kind[bool]:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

    def parse(given: Given) -> bool:
        return words[_known(given.text().lower(), words)]

    return Kind("true or false", parse, words=("true", "false"))


def choice(*words: str) -> Kind[str]:
    return Kind(_or(words), lambda given: _known(given.text(), words), words=words)


def whole(low: int, high: int, unit: str = "") -> Kind[int]:
    def parse(given: Given) -> int:
        if not re.fullmatch(r"[+-]?\d[\d_]{0,20}", given.text()):
            raise ValueError
        return _within(int(given.text()), low <= int(given.text()) <= high)

    return Kind(f"a whole number from {low} to {high}{unit and f' [{unit}]'}", parse)


def number(low: float, high: float, *, open_ends: bool = False, unit: str = "") -> Kind[float]:
    def parse(given: Given) -> float:
        value = to_float(given.text())
        return _within(value, low < value < high if open_ends else low <= value <= high)

    range_text = f"in ]{low:g}, {high:g}[" if open_ends else f"from {low:g} to {high:g}"
    return Kind(f"a number {range_text}{unit and f' [{unit}]'}", parse)


def duration(low: str, high: str, *, zero: bool = False) -> Kind[float]:
    """A time [s] from ``low`` to ``high``; with ``zero`` also 0."""
    lowest, highest = seconds(low), seconds(high)

    def parse(given: Given) -> float:
        value = seconds(given.text())
        return _within(value, lowest <= value <= highest or (zero and value == 0))

    accepted = f"{'0, or ' if zero else ''}a time from {low} to {high} (units: ms, s, m, h, d)"
    return Kind(accepted, parse, lambda value: time_text(value))


def duration_ns(low: str, high: str) -> Kind[int]:
    """A time [ns] from ``low`` to ``high``."""
    kind = duration(low, high)
    return Kind(kind.accepted, lambda given: round(kind.parse(given) * 1e9), lambda ns: time_text(ns / 1e9))


def seconds(text: str) -> float:
    """``500ms``, ``15m``, or a plain number of seconds, as [s]. Raises ValueError."""
    match = re.fullmatch(r"(.*?)\s*(ms|[smhd])?", text.strip(), re.S)
    if match is None:
        raise ValueError
    return to_float(match[1]) * SECONDS[match[2] or "s"]


def time_text(value_s: float) -> str:
    """``value_s`` [s] in the largest unit that leaves a whole number, else in seconds."""
    for unit, size in reversed(SECONDS.items()):
        count = round(value_s / size)
        if count and abs(count * size - value_s) < 1e-9:
            return f"{count}{unit}"
    return f"{value_s!r}s" if value_s else "0"


def text(accepted: str = "text", pattern: str = r"[^\x00\r\n]+") -> Kind[str]:
    def parse(given: Given) -> str:
        value = given.text()
        if given.tag == "bool":
            raise ValueError(f'without quotes YAML takes it for true or false: write "{value}"')
        if given.tag == "null" and value != "":
            raise ValueError(f'without quotes YAML takes it for nothing: write "{value}"')
        return _within(value, re.fullmatch(pattern, value) is not None)

    return Kind(accepted, parse)


def secret_text() -> Kind[str]:
    return Kind("text", text().parse, secret=True)


def slug() -> Kind[str]:
    return text("letters, digits, - and _, at most 64", SLUG.pattern)


def path() -> Kind[str]:
    return text("a path")


def data_file() -> Kind[str]:
    return text("a path, in which %s is the series", r"(?:[^%\x00\r\n]|%s)+")


def stat_name() -> Kind[str]:
    return text("the name of a statistic such as R_SYN, or R_SYN@10 over 10 windows (1 to 9999)", STAT.pattern)


def stat_names() -> Kind[tuple[str, ...]]:
    return listed(stat_name(), "a list of names of statistics")


def listed(item: Kind[str], accepted: str) -> Kind[tuple[str, ...]]:
    """A YAML list, or a text with commas or blanks between the items."""

    def parse(given: Given) -> tuple[str, ...]:
        items = given.value if given.tag == "seq" else _words(given)
        if not 1 <= len(items) <= LIST_ITEMS:
            raise ValueError(f"{len(items)} items; 1 to {LIST_ITEMS} are possible")
        return tuple(every((item, one, "") for one in items))

    return Kind(accepted, parse, list)


def optional(kind: Kind[T], word: str = "null") -> Kind[T | None]:
    """``kind``, or ``word`` (and null, where the word is null or off) for None."""

    def parse(given: Given) -> T | None:
        if given.tag not in ("seq", "map") and given.value.lower() == word:
            return None
        if given.tag == "null" and word in ("null", "off"):
            return None
        return kind.parse(given)

    def plain(value: T | None) -> Any:
        return (None if word == "null" else word) if value is None else kind.plain(value)

    return Kind(f"{kind.accepted}, or {word}", parse, plain, kind.secret)


def mapping(kinds: dict[str, Kind[Any]], needed: tuple[str, ...] = (), accepted: str = "") -> Kind[dict[str, Any]]:
    """A small mapping with the keys of ``kinds``."""

    def parse(given: Given) -> dict[str, Any]:
        if given.tag != "map":
            raise ValueError
        found: dict[str, Any] = {}
        wrong = [(given.where, f"the key {key} is missing") for key in needed if key not in given.value]
        for key, value in given.value.items():
            try:
                _known(key, kinds, f"unknown key {Given(key, 'str', '').shown()}")
                found[key] = every([(kinds[key], value, f"{key}: ")])[0]
            except Parts as error:
                wrong += error.parts
            except ValueError as error:
                wrong.append((value.where, str(error)))
        if wrong:
            raise Parts(wrong, found if found.keys() >= {*needed} else None)
        return found

    return Kind(accepted or "a mapping with the keys " + ", ".join(kinds), parse)


def nearest(word: str, words: Iterable[str]) -> str:
    """The known word that looks most like ``word``, or an empty text."""
    import difflib

    lower = {known.lower(): known for known in words}
    found = difflib.get_close_matches(word.lower()[:80], lower, 1, 0.6)
    return lower[found[0]] if found else ""


def did_you_mean(word: str, words: Iterable[str], otherwise: str) -> str:
    near = nearest(word, words)
    return f"did you mean {near}?" if near else otherwise


def every(parts: Iterable[tuple[Kind[Any], Given, str]]) -> list[Any]:
    """Parse all parts of a value, each with a label for its errors. Raises Parts with those that are wrong."""
    values: list[Any] = []
    wrong: list[tuple[str, str]] = []
    for kind, given, label in parts:
        try:
            values.append(kind.parse(given))
        except Parts as error:
            wrong += error.parts
        except ValueError as error:
            wrong.append((given.where, f"{label}{given.shown()}: {str(error) or 'expected ' + kind.accepted}"))
    if wrong:
        raise Parts(wrong)
    return values


def _words(given: Given) -> list[Given]:
    return [Given(word, "str", given.where) for word in given.text().replace(",", " ").split()]


def to_float(text: str) -> float:
    if not NUMBER.fullmatch(text) or len(text) > 40:
        raise ValueError
    return float(text)


def _within(value: T, is_inside: bool) -> T:
    if not is_inside:
        raise ValueError
    return value


def _known(word: str, words: Collection[str], complaint: str = "") -> str:
    if word in words:
        return word
    raise ValueError("; ".join(filter(None, (complaint, did_you_mean(word, words, "")))))


def _or(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
