"""An argparse parser as plain data, for man pages and completions."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Argument:
    flags: tuple[str, ...]  # empty: stands by its place
    metavar: str  # empty: takes no value
    help: str
    words: tuple[str, ...] = ()  # the values that are possible

    @property
    def long(self) -> str:
        return next((flag for flag in self.flags if flag.startswith("--")), self.flags[0] if self.flags else "")

    @property
    def is_file(self) -> bool:
        return "FILE" in self.metavar or "PATH" in self.metavar or self.metavar == "CAPTURE"

    @property
    def is_device(self) -> bool:
        return self.metavar in ("DEVICE", "INTERFACE") or self.long == "--miner.device"


@dataclass(frozen=True)
class Command:
    """A command and those below it; ``path`` is empty for the program itself."""

    path: tuple[str, ...]
    help: str
    usage: str
    description: str
    epilog: str
    arguments: tuple[Argument, ...]
    below: tuple[Command, ...] = ()

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def options(self) -> list[Argument]:
        return [argument for argument in self.arguments if argument.flags]

    @property
    def places(self) -> list[Argument]:
        return [argument for argument in self.arguments if not argument.flags]

    def all(self) -> Iterator[Command]:
        yield self
        for command in self.below:
            yield from command.all()


def read(parser: argparse.ArgumentParser, path: tuple[str, ...] = (), help: str = "") -> Command:
    """The command that ``parser`` parses."""
    arguments, below = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            below += [read(sub, (*path, name), texts[name]) for name, sub in action.choices.items() if name in texts]
        elif action.help != argparse.SUPPRESS:
            arguments.append(_argument(action, parser))
    usage = " ".join(parser.format_usage().removeprefix("usage:").split())
    return Command(path, help, usage, parser.description or "", parser.epilog or "", tuple(arguments), tuple(below))


def _argument(action: argparse.Action, parser: argparse.ArgumentParser) -> Argument:
    words = tuple(map(str, action.choices or ()))
    named = action.metavar if isinstance(action.metavar, str) else None
    metavar = "" if action.option_strings and action.nargs == 0 else named or "|".join(words) or action.dest.upper()
    help = parser._get_formatter()._expand_help(action) if action.help else ""
    return Argument(tuple(action.option_strings), metavar, help, words)


def settings() -> list[Argument]:
    """The options of the configuration file, as they stand on the command line."""
    from netspot.config.options import OPTIONS

    return [
        Argument(
            (f"--{path}",),
            "PATH" if option.kind.accepted.startswith(("a path,", "an absolute path,")) else "VALUE",
            option.doc.partition(". ")[0].rstrip("."),
            option.kind.words,
        )
        for path, option in OPTIONS.items()
    ]
