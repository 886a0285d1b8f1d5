"""netspot(8) and netspotctl(1) from the parsers of their arguments, in the man macros of man(7)."""

from __future__ import annotations

import re

from commands import Argument, Command

from netspot.config.text import roff, roff_lines


def manpage(name: str, section: int, command: Command, version: str, date: str) -> str:
    manual = {1: "User commands", 8: "System administration"}[section]
    summary = re.split("[.,]", command.description)[0]
    lines = [
        f'.TH {name.upper()} {section} "{date}" "netspot {version}" "{manual}"',
        *(".SH NAME", f"{name} \\- {roff(summary[0].lower() + summary[1:])}"),
        *(".SH SYNOPSIS", *roff_lines(command.usage)),
        *(".SH DESCRIPTION", *roff_lines(command.description)),
        *_arguments(command),
    ]
    if command.below:
        lines.append(".SH COMMANDS")
    for sub in list(command.all())[1:]:
        lines += [f".SS {roff(' '.join(sub.path))}", *roff_lines(sub.description or sub.help)]
        lines += [".PP", *roff_lines(_own_usage(sub, command)), *_arguments(sub, command.arguments)]
    if command.epilog:
        lines += [".SH NOTES", *_verbatim(command.epilog)]
    if section == 8:
        files = ("/etc/netspot/netspot.yaml", "the configuration"), ("/var/lib/netspot", "what outlives a restart")
        lines += [".SH FILES", *(line for path, text in files for line in (".TP", f".I {path}", text))]
    others = [("netspot", 8), ("netspotctl", 1), ("netspot.yaml", 5)]
    see = [f".BR {other} ({number})" for other, number in others if other != name]
    return "\n".join([*lines, ".SH SEE ALSO", *(line + "," for line in see[:-1]), see[-1]]) + "\n"


def _own_usage(command: Command, program: Command) -> str:
    """The usage without the options that stand in the program's own."""
    usage = command.usage
    for option in program.options:
        usage = usage.replace(f" [{' '.join(filter(None, (option.flags[0], option.metavar)))}]", "")
    return usage


def _arguments(command: Command, told: tuple[Argument, ...] = ()) -> list[str]:
    lines = []
    for argument in command.arguments:
        if argument.flags != ("-h", "--help") and argument not in told:
            lines += [".TP", _head(argument), *(roff_lines(argument.help) or ["\\&"])]
    return lines


def _head(argument: Argument) -> str:
    value = f"\\fI{roff(argument.metavar)}\\fR" if argument.metavar else ""
    flags = ", ".join(f"\\fB{roff(flag)}\\fR" for flag in argument.flags)
    return " ".join(filter(None, (flags, value)))


def _verbatim(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        lines += [".PP", ".nf", *(roff(line) for line in paragraph.splitlines()), ".fi"]
    return lines[1:]
