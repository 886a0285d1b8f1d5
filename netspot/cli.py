"""The command ``netspot``: arguments -> Config -> Service."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import netspot
from netspot.config import Config
from netspot.errors import ConfigError
from netspot.lean import prepare
from netspot.terminal import INTERRUPTED, Arguments, ended

OF_FILES = ("miner.home_nets",)  # what of the miner's options counts for a capture file too
DEFAULT_FILE = Path("/etc/netspot/netspot.yaml")
EPILOG = """\
Any option of the configuration file may be given as --section.name VALUE, for example
  netspot run --miner.device eth0 --spot.q 1e-5 --exporter.mqtt.host 192.168.1.2
`netspot defaults` prints them all with their meaning.

exit status: 0 all went well, or Ctrl-C ended it; 1 its output cannot be written; 2 wrong arguments, configuration,
device or file; 3 the capture file was cut in the middle, all whole packets before were counted, or the broker does not
answer (ha-remove only); 130 interrupted before it began; 141 whoever read its output has left.
"""


def parser() -> argparse.ArgumentParser:
    """The arguments of ``netspot``; man page and completion are made from them too."""
    top = Arguments(
        "netspot",
        description="Watches a network and tells what left its normal range, without being told what normal is.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"netspot {netspot.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help, add in (
        ("run", "watch an interface or a capture file in the terminal", _run_arguments),
        ("serve", "watch an interface as a service, with page, API and exporters", _serve_arguments),
        ("demo", "a synthetic home network under attack, through the whole pipeline in half a minute", _demo_arguments),
        ("ls", "list statistics, counters and exporters", _ls_arguments),
        ("devices", "list the interfaces of this machine", _devices_arguments),
        ("defaults", "print the default configuration with its meaning", None),
        ("check", "validate a configuration file: every mistake at once", _check_arguments),
        ("ha-remove", "remove this node's entities from Home Assistant", _serve_arguments),
    ):
        sub = commands.add_parser(
            name, help=help, description=help[0].upper() + help[1:] + ".", epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        if add is not None:
            add(sub)
    return top


def _run_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "-d", "--device", metavar="DEVICE", help="interface, any, or auto (default: that of the default route)"
    )
    sub.add_argument(
        "-f", "--file", metavar="FILE", help="capture file: pcap, pcapng, either as .gz; - for standard input"
    )
    sub.add_argument(
        "-s", "--stat", metavar="STAT", action="append", help="watch this statistic; may be given several times"
    )
    sub.add_argument("-p", "--period", metavar="TIME", help="length of a window, as 500ms, 1s, 1m (default: 1s)")
    sub.add_argument(
        "-v", "--verbose", action="store_true", help="print every statistic of every window, not only alarms"
    )
    sub.add_argument("-c", "--config", metavar="FILE", help="configuration file")
    sub.add_argument(
        "--counters",
        metavar="FILE.csv",
        help="count all there is to count and write it: one row a window, one column a counter",
    )
    sub.add_argument(
        "--report", metavar="FILE.html", help="write one page with every statistic, its threshold and the alarms"
    )


def _serve_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "-c", "--config", metavar="FILE", help=f"configuration file (default: {DEFAULT_FILE}, where there is one)"
    )


def _demo_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--seed", type=_seed, default=1, help="another seed makes another network (default: %(default)s)")
    sub.add_argument("--stay", action="store_true", help="keep serving the page when the demo is over, until Ctrl-C")
    sub.add_argument("--keep", metavar="FILE.pcap", help="keep the synthetic capture in this file")


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number, 0 or more")
    return int(text)


def _ls_arguments(sub: argparse.ArgumentParser) -> None:
    _devices_arguments(sub)
    sub.add_argument("-c", "--config", metavar="FILE", help="with the counters and statistics that this file defines")


def _devices_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="as JSON")


def _check_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", metavar="FILE", nargs="?", default=str(DEFAULT_FILE), help="default: %(default)s")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``netspot``; returns its exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    prepare()

    def command() -> int:
        rest, options = split_options(argv)
        args = parser().parse_args(rest)
        _log_to_stderr()
        return COMMANDS[args.command](args, options)

    return ended("netspot", command, interrupted=INTERRUPTED)


def split_options(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Arguments proper, and the ``--section.name VALUE`` (or ``=VALUE``) pairs among them."""
    rest, options, words = [], [], iter(argv)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in key:
            rest.append(word)
            continue
        if not equals:
            try:
                value = next(words)
            except StopIteration:
                raise ConfigError(f"{word}: needs a value, as in {word} VALUE") from None
        options.append((key, value))
    return rest, options


def _log_to_stderr() -> None:
    """To the journal without timestamps of our own, and with the priorities that it understands."""
    in_journal = "JOURNAL_STREAM" in os.environ
    handler = logging.StreamHandler()
    handler.setFormatter(_Priority() if in_journal else logging.Formatter("netspot: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class _Priority(logging.Formatter):
    """``<4>text``: see sd-daemon(3)."""

    LEVELS = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))

    def format(self, record: logging.LogRecord) -> str:
        level = next(syslog for python, syslog in self.LEVELS if record.levelno >= python)
        return f"<{level}>{super().format(record)}".replace("\n", f"\n<{level}>")


# Commands -------------------------------------------------------------------------------------------------------


def _configuration(file: str | None, options: Iterable[tuple[str, str]]) -> Config:
    from netspot.config import load

    return load(None if file is None else Path(file), overrides=list(options))


def _run(args: argparse.Namespace, options: list[tuple[str, str]]) -> int:
    from netspot.config import to_dict
    from netspot.observe import CountersCsv, Observer, Progress, Summary
    from netspot.service import Service, open_source

    given = {
        "miner.device": args.device,
        "analyzer.period": args.period,
        "analyzer.stats": None if args.stat is None else f"[{', '.join(args.stat)}]",
        "exporter.console.data": "true" if args.verbose else None,
    }
    ignored = ["-d"] if args.device else []
    ignored += [f"--{key}" for key, _ in options if key.startswith("miner.") and key not in OF_FILES]
    if args.file is not None and ignored:
        raise ConfigError(
            f"{', '.join(ignored)}: for an interface, and -f {args.file} reads a file; leave one of them away"
        )
    # What the service has learned, and its incidents, are no business of a run in the terminal.
    own = [("state.dir", "null")] if "state.dir" not in dict(options) else []
    config = _configuration(args.config, [(k, v) for k, v in given.items() if v is not None] + own + options)
    if args.file is not None and config.miner.filter.strip():
        _say(f"netspot: warning: miner.filter is for interfaces; all packets of {args.file} are counted")
    with ExitStack() as stack:

        def observers(service: Service) -> list[Observer]:
            """Made when the source is open: a capture that cannot be read leaves older results alone."""
            summary = Summary()
            silent = (OSError, ConfigError)  # nobody reads on, or nothing has begun
            stack.push(lambda kind, error, _: None if isinstance(error, silent) else _say(summary.text(service)))
            several: list[Observer] = [summary]
            if args.counters:
                several.append(CountersCsv(stack.enter_context(_new_file("--counters", args.counters, taken))))
            if args.report:
                from netspot.page import info
                from netspot.report import Report

                report = Report(info(service), to_dict(config))
                stack.callback(report.write, stack.enter_context(_new_file("--report", args.report, taken)))
                several.append(report)
            if sys.stderr.isatty() and not (config.exporter.console.data and sys.stdout.isatty()):
                several.append(stack.enter_context(Progress(sys.stderr, service)))
            return several

        taken = [] if args.file in (None, "-") else [args.file]
        Service(config, open_source(args.file), observers=observers, count_all=bool(args.counters)).run()
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _new_file(option: str, path: str, taken: list[str]) -> IO[str]:
    """Open ``path`` for writing, unless it is one of those ``taken``, among which it is then."""
    try:
        if any(Path(path).exists() and Path(path).samefile(other) for other in taken):
            raise ConfigError(f"{option} {path}: that file is in use already, for {taken[0]}; name another")
        taken.append(path)
        return Path(path).open("w", newline="", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from None


def _serve(args: argparse.Namespace, options: list[tuple[str, str]]) -> int:
    from netspot.service import serve

    file = args.config or (str(DEFAULT_FILE) if DEFAULT_FILE.exists() else None)
    serve(file, options)
    return 0


def _demo(args: argparse.Namespace, options: list[tuple[str, str]]) -> int:
    from netspot.demo import demo

    return demo(args.seed, args.stay, args.keep, options)


def _ls(args: argparse.Namespace, options: list[tuple[str, str]]) -> int:
    from netspot.listing import listing

    print(listing(_configuration(args.config, options), as_json=args.json))
    return 0


def _devices(args: argparse.Namespace, options: list[tuple[str, str]]) -> int:
    from netspot.listing import devices

    print(devices(as_json=args.json))
    return 0


def _defaults(args: argparse.Namespace, options: list[tuple[str, str]]) -> int:
    from netspot.config import defaults

    print(defaults(), end="")
    return 0


def _check(args: argparse.Namespace, options: list[tuple[str, str]]) -> int:
    from netspot.config import load
    from netspot.pipeline import mistakes
    from netspot.service import check

    print(check(load(Path(args.file), overrides=options, further=mistakes), args.file))
    return 0


def _ha_remove(args: argparse.Namespace, options: list[tuple[str, str]]) -> int:
    from netspot.exporters.homeassistant import ha_remove

    logging.getLogger("netspot").setLevel(logging.ERROR)  # nothing is tried again here
    file = args.config or (str(DEFAULT_FILE) if DEFAULT_FILE.exists() else None)
    print(ha_remove(_configuration(file, options)))
    return 0


COMMANDS = {
    "run": _run,
    "serve": _serve,
    "demo": _demo,
    "ls": _ls,
    "devices": _devices,
    "defaults": _defaults,
    "check": _check,
    "ha-remove": _ha_remove,
}
