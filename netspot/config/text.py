"""The declarations as text: the commented YAML, the reference in Markdown, the man page netspot.yaml(5)."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from netspot.config.options import INCLUDE, OPTIONS, SECTIONS, Option

PACKAGED: Mapping[str, Any] = {  # how /etc/netspot/netspot.yaml differs from the defaults
    "state.dir": "/var/lib/netspot",
    "web.listen": "0.0.0.0:11000",
}
HEAD = (
    "The configuration of netspot.",
    "Lines with ## explain. Lines with # show the default: take the # away to change the value, and only that one "
    "character, because the spaces in front count. Lines without # are set here: look at them.",
    "`netspot check FILE` tells every mistake; see netspot.yaml(5).",
)
PLAIN = re.compile(
    r"[A-Za-z0-9/][A-Za-z0-9/._:*@-]*"
)  # a text that YAML needs no quotes for, unless it is a truth value
FORMS = (
    "A value has one line, `key: value`; a section's options stand below it, indented with spaces. The dotted form "
    "`miner.device: eth0` is the same as `miner: {device: eth0}`, and `--miner.device eth0` on the command line wins "
    "over both.",
    "Times are written 500ms, 10s, 15m, 1h or 1d; a number without unit is in seconds. Sizes are in MiB, as the names "
    "say.",
)
OUTSIDE = (
    "User names, passwords and tokens can be kept out of the file, in this order: the option itself, perhaps as "
    "`!secret NAME` from secrets.yaml beside the file (lines `NAME: value`); the option with _file behind its name, "
    "which names a file of one line; an environment variable; a credential of systemd (LoadCredential=). The first "
    "that is there counts."
)


def defaults(changes: Mapping[str, Any] | None = None) -> str:
    """The commented default YAML, with the values of ``changes`` (by dotted path) set."""
    lines = [line for text in HEAD for line in _comment(text, 0)]
    lines += ["", *_comment(INCLUDE.doc, 0), "include: conf.d/*.yaml"]
    seen: set[str] = set()
    for option in OPTIONS.values():
        lines += _opened(option.path, seen)
        value = (changes or {}).get(option.path)
        shown = yaml_scalar(option.kind.plain(option.default) if value is None else value)
        indent = option.path.count(".")
        lines += ["", *_comment(f"{option.doc} {_sentence(option)}", indent)]
        lines.append(f"{'  ' * indent}{'#' if value is None else ''}{option.key.rpartition('.')[2]}: {shown}")
    for name in ("counters", "stats"):
        lines += _opened(f"{name}.", seen)
    return "\n".join(lines) + "\n"


def yaml_scalar(value: Any) -> str:
    """``value`` in one line of YAML."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and value not in ("null", "true", "false"):
        return value
    return json.dumps(value)


def reference() -> str:
    """All options in Markdown, one table a section."""
    lines: list[str] = []
    for name, doc, options in _by_section():
        lines += [f"### {name or 'at the top'}", "", *([doc, ""] if doc else [])]
        if options:
            lines += ["| key | default | accepted | meaning |", "|---|---|---|---|"]
        for option in options:
            default = yaml_scalar(option.kind.plain(option.default))
            cells = (
                f"`{option.path.rpartition('.')[2]}`",
                f"`{default}`",
                option.kind.accepted,
                f"{option.doc} {_elsewhere(option, '`')}",
            )
            lines.append("| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def manpage(version: str, date: str = "") -> str:
    """netspot.yaml(5) in the man macros, see man(7)."""
    lines = [
        f'.TH NETSPOT.YAML 5 "{date}" "netspot {version}" "File formats"',
        *(".SH NAME", "netspot.yaml \\- the configuration of netspot"),
        *(".SH SYNOPSIS", "/etc/netspot/netspot.yaml", ".br", "/etc/netspot/conf.d/*.yaml"),
        ".SH DESCRIPTION",
        *(*roff_lines(FORMS[0]), ".PP", *roff_lines(FORMS[1]), ".PP", *roff_lines(OUTSIDE)),
        ".SH OPTIONS",
    ]
    for name, doc, options in _by_section():
        lines += [f".SS {roff(name or 'at the top')}", *roff_lines(doc)]
        for option in options:
            lines += [".TP", f"\\fB{roff(option.path)}\\fR: {roff(yaml_scalar(option.kind.plain(option.default)))}"]
            lines += roff_lines(f"{option.doc} {_sentence(option)} {_elsewhere(option)}")
    lines += [".SH SEE ALSO", ".BR netspot (8),", ".BR netspotctl (1)"]
    return "\n".join(lines) + "\n"


def roff(text: str) -> str:
    """``text`` for one line of a man page: `x` in bold, nothing taken for a request."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace('"', "\\(dq")
    safe = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", safe)
    return "\\&" + safe if safe.startswith(".") else safe


def roff_lines(text: str) -> list[str]:
    """``text`` as a paragraph of a man page, in lines of less than 80 characters."""
    lines = textwrap.wrap(roff(text), 78, break_long_words=False, break_on_hyphens=False)
    return ["\\&" + line if line.startswith(".") else line for line in lines]


def _by_section() -> Iterator[tuple[str, str, list[Option]]]:
    """Name, text and options of each section; first what stands outside of all."""
    top = [Option(INCLUDE.kind, INCLUDE.doc, "include", path="include", default=("conf.d/*.yaml",))]
    yield "", "", top + [option for option in OPTIONS.values() if "." not in option.path]
    for name, doc in SECTIONS.items():
        yield name, doc, [option for path, option in OPTIONS.items() if path.rpartition(".")[0] == name]


def _opened(path: str, seen: set[str]) -> list[str]:
    """The heads of the sections around ``path`` that have not been written yet."""
    lines: list[str] = []
    parts = path.split(".")[:-1]
    for depth in range(len(parts)):
        name = ".".join(parts[: depth + 1])
        if name not in seen:
            seen.add(name)
            lines += ["", *_comment(SECTIONS.get(name, ""), depth), f"{'  ' * depth}{parts[depth]}:"]
    return lines


def _comment(text: str, indent: int) -> list[str]:
    head = "  " * indent + "## "
    return textwrap.wrap(text, 110, initial_indent=head, subsequent_indent=head, break_on_hyphens=False)


def _sentence(option: Option) -> str:
    """What is accepted, where the default does not show it."""
    return "" if isinstance(option.default, bool) else f"Accepted: {option.kind.accepted}."


def _elsewhere(option: Option, quote: str = "") -> str:
    places = (f"{option.key}_file", f"${option.variable}", f"credential {option.credential}")
    return f"Also {', '.join(f'{quote}{place}{quote}' for place in places)}." if option.outside else ""
