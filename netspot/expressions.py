"""The owner's own counters and statistics: two small languages, parsed once, evaluated on whole columns.

A counter is a condition over header columns, ``tcp and dport in [1883, 8883] and not src in 192.168.1.0/24``; a
statistic is arithmetic over counters, ``MQTT / TCP``. Nothing else can be said: no calls, no attributes, no loops.

    condition  = conjunction {"or" conjunction}        conjunction = negation {"and" negation}
    negation   = "not" negation | "(" condition ")" | name | column ("==" "!=" "<" "<=" ">" ">=") value
                 | column ["not"] "in" ("[" value {"," value} "]" | value)
    value      = number | number "-" number | IPv4 address | IPv4 prefix
    arithmetic = product {("+" | "-") product}         product = factor {("*" | "/") factor}
    factor     = number | counter | "-" factor | "(" arithmetic ")"
"""

from __future__ import annotations

import ipaddress
import math
import operator
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from netspot.errors import ConfigError
from netspot.packets import ACK, FIN, PSH, RST, SYN, URG, Bools, PacketBatch

TOKENS = 400  # of one expression
DEPTH = 50  # parentheses and signs inside one another
COMPLAINTS = 10  # about names in one expression

Mask = Callable[[PacketBatch], Bools]
Column = Callable[[PacketBatch], NDArray[Any]]


def _flag(bit: int) -> Mask:
    return lambda b: b.tcp_flags & bit != 0


CONDITIONS: dict[str, Mask] = {
    "ip": lambda b: b.is_ipv4 | b.is_ipv6,
    "ip4": lambda b: b.is_ipv4,
    "ip6": lambda b: b.is_ipv6,
    "tcp": lambda b: b.is_tcp,
    "udp": lambda b: b.is_udp,
    "icmp": lambda b: b.is_icmp,
    "icmp6": lambda b: b.is_icmp6,
    "arp": lambda b: b.is_arp,
    "syn": _flag(SYN),
    "ack": _flag(ACK),
    "fin": _flag(FIN),
    "rst": _flag(RST),
    "psh": _flag(PSH),
    "urg": _flag(URG),
    "fragment": lambda b: b.is_fragment,
    "broadcast": lambda b: b.is_broadcast,
    "multicast": lambda b: b.is_multicast,
    "src_home": lambda b: b.src_home,
    "dst_home": lambda b: b.dst_home,
}
COLUMNS: dict[str, tuple[Column, ...]] = {  # of several, one that fits is enough
    "sport": (lambda b: b.src_port,),
    "dport": (lambda b: b.dst_port,),
    "port": (lambda b: b.src_port, lambda b: b.dst_port),
    "src": (lambda b: b.src_key,),
    "dst": (lambda b: b.dst_key,),
    "host": (lambda b: b.src_key, lambda b: b.dst_key),
    "len": (lambda b: b.wire_len,),
    "ip_len": (lambda b: b.ip_len,),
    "proto": (lambda b: b.ip_proto,),
    "ethertype": (lambda b: b.ethertype,),
    "icmp_type": (lambda b: b.icmp_type,),
    "arp_op": (lambda b: b.arp_op,),
}
# A field that a packet lacks is 0, and 0 is what nobody means: the rows for which each column says something.
PRESENT: dict[str, Mask] = {
    "sport": lambda b: b.has_ports,
    "dport": lambda b: b.has_ports,
    "port": lambda b: b.has_ports,
    "src": lambda b: b.has_addr & b.is_ipv4,
    "dst": lambda b: b.has_addr & b.is_ipv4,
    "host": lambda b: b.has_addr & b.is_ipv4,
    "ip_len": CONDITIONS["ip"],
    "proto": CONDITIONS["ip"],
    "icmp_type": lambda b: b.is_icmp | b.is_icmp6,
    "arp_op": lambda b: b.is_arp,
}
ADDRESSES = ("src", "dst", "host")
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
TOKEN = re.compile(
    r"\s*(?:(?P<address>\d+\.\d+\.\d+\.\d+(?:/\d+)?)|(?P<number>0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>==|!=|<=|>=|[-+*/<>()\[\],]))"
)

SIGNS = "known are words, numbers, IPv4 addresses and the signs == != < <= > >= + - * / ( ) [ ] ,"


class Token(NamedTuple):
    kind: str  # address, number, name, sign, end
    text: str
    column: int  # of its first character, from 1


class Interval(NamedTuple):
    low: int
    high: int


def condition(text: str, where: str) -> Mask:
    """A counter's condition. Raises ConfigError, which names ``where`` and the column.

    >>> import numpy as np
    >>> condition("tcp and dport == 1883", "counters.MQTT")  # doctest: +ELLIPSIS
    <function ...>
    """
    parser = _Parser(text, where)
    mask = parser.disjunction()
    parser.end()
    return mask


def arithmetic(text: str, where: str, counters: Collection[str]) -> tuple[tuple[str, ...], Callable[..., float]]:
    """(the counters that a statistic needs, the function of their counts). Raises ConfigError.

    Where it divides by 0 its value is NaN: the window holds nothing to compare with.

    >>> needs, compute = arithmetic("MQTT / (TCP + UDP)", "stats.R_MQTT", {"MQTT", "TCP", "UDP"})
    >>> needs, compute(1, 3, 1)
    (('MQTT', 'TCP', 'UDP'), 0.25)
    """
    parser = _Parser(text, where, counters)
    formula = parser.sum()
    parser.end()
    needs = tuple(parser.needs)
    if not needs:
        parser.fail(parser.tokens[0], "a statistic needs a counter at least")

    def compute(*counts: float) -> float:
        try:
            value = formula(dict(zip(needs, counts, strict=True)))
        except (ZeroDivisionError, OverflowError):
            return math.nan
        return value if math.isfinite(value) else math.nan

    return needs, compute


Formula = Callable[[Mapping[str, float]], float]


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, where: str, counters: Collection[str] = ()) -> None:
        self._text, self._where, self._counters = text, where, counters
        self._complaints: list[str] = []
        self.tokens = self._tokens()
        self.needs: dict[str, None] = {}
        self._next = self._depth = 0

    def fail(self, token: Token, complaint: str) -> NoReturn:
        self._complain(token, complaint)
        raise ConfigError("\n".join(self._complaints))

    def _complain(self, token: Token, complaint: str) -> None:
        self._complaints.append(f"{self._where}: {self._text!r}, column {token.column}: {complaint}")

    def end(self) -> None:
        if self._token.kind != "end":
            self.fail(self._token, f"{self._token.text!r} is one thing too many")
        if self._complaints:
            raise ConfigError("\n".join(self._complaints))

    # Conditions -------------------------------------------------------------------------------------------------

    def disjunction(self) -> Mask:
        masks = [self._conjunction()]
        while self._accept("or"):
            masks.append(self._conjunction())
        return masks[0] if len(masks) == 1 else lambda b: np.logical_or.reduce([mask(b) for mask in masks])

    def _conjunction(self) -> Mask:
        masks = [self._negation()]
        while self._accept("and"):
            masks.append(self._negation())
        return masks[0] if len(masks) == 1 else lambda b: np.logical_and.reduce([mask(b) for mask in masks])

    def _negation(self) -> Mask:
        self._deeper()
        if self._accept("not"):
            inner = self._negation()
            self._depth -= 1
            return lambda b: ~inner(b)
        if self._accept("("):
            inner = self.disjunction()
            self._expect(")")
        else:
            inner = self._test()
        self._depth -= 1
        return inner

    def _test(self) -> Mask:
        token = self._take()
        if token.kind == "name" and token.text in CONDITIONS:
            return CONDITIONS[token.text]
        if token.kind != "name" or token.text not in COLUMNS:
            known = (*CONDITIONS, *COLUMNS)
            self.fail(token, f"{_shown(token)} is no header column; {_nearest(token.text, known)}")
        negated = self._accept("not")
        comparison = self._take()
        if comparison.text == "in":
            intervals = self._list(token.text)
            inside = self._inside(token.text, intervals)
            return self._without(token.text, inside) if negated else inside
        if negated or comparison.text not in COMPARISONS:
            self.fail(comparison, f"{token.text} is a number: compare it with ==, !=, <, <=, >, >= or in")
        return self._compared(token.text, comparison)

    def _compared(self, name: str, sign: Token) -> Mask:
        value = self._value(name)
        if value.low != value.high:
            if sign.text not in ("==", "!="):
                self.fail(sign, "only == and != go with a range or a prefix")
            inside = self._inside(name, [value])
            return inside if sign.text == "==" else self._without(name, inside)
        if sign.text == "!=":
            return self._without(name, self._inside(name, [value]))
        compare, number, columns, present = COMPARISONS[sign.text], value.low, COLUMNS[name], PRESENT.get(name)

        def mask(b: PacketBatch) -> Bools:
            found: Bools = np.logical_or.reduce([compare(column(b), number) for column in columns])
            return found if present is None else found & present(b)

        return mask

    def _inside(self, name: str, intervals: list[Interval]) -> Mask:
        columns, present = COLUMNS[name], PRESENT.get(name)

        def mask(b: PacketBatch) -> Bools:
            tests = [(c >= i.low) & (c <= i.high) for c in (column(b) for column in columns) for i in intervals]
            found: Bools = np.logical_or.reduce(tests)
            return found if present is None else found & present(b)

        return mask

    @staticmethod
    def _without(name: str, inside: Mask) -> Mask:
        present = PRESENT.get(name)
        return (lambda b: ~inside(b)) if present is None else (lambda b: present(b) & ~inside(b))

    def _list(self, name: str) -> list[Interval]:
        if not self._accept("["):
            return [self._value(name)]
        values = [self._value(name)]
        while self._accept(","):
            values.append(self._value(name))
        self._expect("]")
        return values

    def _value(self, name: str) -> Interval:
        token = self._take()
        if token.kind == "address":
            if name not in ADDRESSES:
                self.fail(token, f"{name} is no address")
            return self._network(token)
        if token.kind != "number" or name in ADDRESSES:
            wanted = "an IPv4 address or prefix" if name in ADDRESSES else "a number"
            self.fail(token, f"{_shown(token)} stands where {wanted} is wanted")
        low = self._whole(token)
        high = self._whole(self._take()) if self._accept("-") else low
        if high < low:
            self.fail(token, "the range is empty")
        return Interval(low, high)

    def _network(self, token: Token) -> Interval:
        try:
            net = ipaddress.IPv4Network(token.text, strict=False)
        except ValueError:
            self.fail(token, f"{token.text} is no IPv4 address or prefix")
        return Interval(int(net.network_address), int(net.broadcast_address))

    def _whole(self, token: Token) -> int:
        try:
            number = int(token.text, 0)
        except ValueError:
            self.fail(token, f"{_shown(token)} is no whole number")
        if number >= 1 << 32:
            self.fail(token, f"{token.text} is larger than any header field")
        return number

    # Arithmetic -------------------------------------------------------------------------------------------------

    def sum(self) -> Formula:
        return self._chain(self._product, {"+": operator.add, "-": operator.sub})

    def _product(self) -> Formula:
        return self._chain(self._factor, {"*": operator.mul, "/": operator.truediv})

    def _chain(self, part: Callable[[], Formula], signs: Mapping[str, Callable[[float, float], float]]) -> Formula:
        first = part()
        rest: list[tuple[Callable[[float, float], float], Formula]] = []
        while self._token.kind == "sign" and self._token.text in signs:
            rest.append((signs[self._take().text], part()))
        if not rest:
            return first

        def formula(counts: Mapping[str, float]) -> float:
            value = first(counts)
            for operate, other in rest:
                value = operate(value, other(counts))
            return value

        return formula

    def _factor(self) -> Formula:
        self._deeper()
        token = self._take()
        formula: Formula
        if token.text == "(":
            formula = self.sum()
            self._expect(")")
        elif token.text == "-":
            inner = self._factor()
            formula = lambda counts: -inner(counts)  # noqa: E731
        elif token.kind == "number":
            number = self._number(token)
            formula = lambda counts: number  # noqa: E731
        else:
            if token.kind != "name" or token.text not in self._counters:
                goes_on = token.kind == "name" and len(self._complaints) < COMPLAINTS
                tell = self._complain if goes_on else self.fail
                tell(token, f"{_shown(token)} is no counter; {_nearest(token.text, self._counters)}")
            self.needs[token.text] = None
            formula = operator.itemgetter(token.text)
        self._depth -= 1
        return formula

    def _number(self, token: Token) -> float:
        try:
            number = float(int(token.text, 0)) if token.text[:2] in ("0x", "0X") else float(token.text)
        except OverflowError:
            number = math.inf
        if number == math.inf:
            self.fail(token, f"numbers reach up to {sys.float_info.max:.1e}")
        return number

    # Tokens -----------------------------------------------------------------------------------------------------

    def _tokens(self) -> list[Token]:
        tokens, at, text = [], 0, self._text.rstrip()
        while at < len(text):
            match = TOKEN.match(text, at)
            if match is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                self.fail(Token("sign", text[at], at + 1), f"{text[at]!r} has no meaning here; {SIGNS}")
            kind = str(match.lastgroup)
            tokens.append(Token(kind, match[kind], match.start(kind) + 1))
            at = match.end()
            if len(tokens) > TOKENS:
                self.fail(tokens[-1], f"longer than {TOKENS} words")
        return [*tokens, Token("end", "", len(text) + 1)]

    @property
    def _token(self) -> Token:
        return self.tokens[self._next]

    def _take(self) -> Token:
        token = self._token
        self._next += token.kind != "end"
        return token

    def _accept(self, text: str) -> bool:
        found = self._token.text == text and self._token.kind in ("name", "sign")
        self._next += found
        return found

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            self.fail(self._token, f"{text!r} is missing before {_shown(self._token)}")

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            self.fail(self._token, f"more than {DEPTH} levels inside one another")


def _shown(token: Token) -> str:
    return "the end" if token.kind == "end" else repr(token.text)


def _nearest(word: str, known: Collection[str]) -> str:
    import difflib

    lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower()[:64], lower, 1, 0.6)
    if found:
        return f"did you mean {lower[found[0]]}?"
    return "there are " + ", ".join(sorted(known)[:40])
