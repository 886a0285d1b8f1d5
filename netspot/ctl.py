"""The command ``netspotctl``: looks at a running netspot, and tells it what to do, over HTTP, a unix socket or MQTT."""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import netspot
from netspot.client import STATE_DIR, Http, Mqtt, Peer, broker, find_token
from netspot.errors import ConfigError
from netspot.terminal import Arguments, ended, fitted

if TYPE_CHECKING:
    from netspot.config import MqttConfig

URL = "http://127.0.0.1:11000"
BARS = " ▁▂▃▄▅▆▇█"
RANK = {"alarm": 0, "muted": 1, "watching": 2, "learning": 3}  # which statistics come first where room is short
EVIDENCE = {
    "top_src": "sources", "top_dst": "destinations", "top_port": "ports", "top_protocol": "protocols",
    "top_mac": "hardware addresses",
}  # fmt: skip
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
EPILOG = """\
exit status: 0 done; 1 netspot refused or failed, or the output cannot be written; 2 wrong arguments, or no token;
3 netspot cannot be reached; 4 (status only) all is reached, and a statistic is in alarm; 141 whoever read the output
has left.
"""


# -- the commands ------------------------------------------------------------------------------------------------------


def status(peer: Peer, args: argparse.Namespace) -> int:
    data = peer.get("status")
    active = data.get("active") or []
    if args.json:
        _print_json(data)
    else:
        _print_status(data, active)
    return 4 if active else 0


def _print_status(data: Mapping[str, Any], active: Sequence[str]) -> None:
    phase = str(data.get("phase"))
    if phase == "learning":
        phase += f", {data.get('learned')} of {data.get('needed')} windows"
    lines = [("node", f"{data.get('node')} on {data.get('series')}, netspot {data.get('version')}"), ("phase", phase)]
    lines += [("alarm", ", ".join(active) or "none")]
    lines += [("packets", f"{data.get('captured', 0):,}, {data.get('packets_per_s', 0):g}/s")]
    lines += [("dropped", f"{data.get('dropped', 0):,}"), ("last window", str(data.get("time") or "none yet"))]
    broker = data.get("mqtt") or {}
    if broker.get("connected") is not None:
        lines += [
            ("broker", "connected" if broker["connected"] else f"not connected {broker.get('reason') or ''}".strip())
        ]
    if data.get("rss_bytes") is not None:
        lines += [("memory", f"{data['rss_bytes'] / 2**20:.1f} MiB")]
    _print_table([[name, _safe(text)] for name, text in lines])


def stats(peer: Peer, args: argparse.Namespace) -> int:
    if args.name:
        data = peer.get(f"stats/{quote(args.name, safe='')}")
        figures = {**data, **{key: number(data.get(key)) for key in ("value", "down", "up")}, "state": _state(data)}
        names = {"stat": "statistic", "value": "value", "down": "low", "up": "high", "unit": "unit", "state": "state"}
        rows = [[name, _safe(figures.get(key))] for key, name in {**names, "help": "meaning"}.items()]
    else:
        data = peer.get("stats")
        rows = [["STATISTIC", "VALUE", "LOW", "HIGH", "UNIT", "STATE"]]
        rows += [
            [_safe(s["stat"]), *(number(s.get(key)) for key in ("value", "down", "up")), _safe(s["unit"]), _state(s)]
            for s in data["stats"]
        ]
    _print_json(data) if args.json else _print_table(rows)
    return 0


def _state(stat: Mapping[str, Any]) -> str:
    state = _safe(stat.get("state", "-"))
    return f"{state} {stat['learned']}/{stat['needed']}" if state == "learning" and stat.get("needed") else state


def incidents(peer: Peer, args: argparse.Namespace) -> int:
    data = peer.get(f"incidents/{quote(args.id, safe='')}" if args.id else "incidents")
    found = [data] if args.id else data["incidents"]
    if args.json:
        _print_json(data)
    elif args.id:
        _print_table(_incident(data))
    elif not found:
        print("no incident so far")
    else:
        rows = [["INCIDENT", "BEGAN", "ENDED", "WHAT"]]
        rows += [[_safe(i["id"]), _moment(i["start"]), _moment(i["end"]), _safe(i["title"])] for i in found]
        _print_table(rows)
    return 0


def _incident(data: Mapping[str, Any]) -> list[list[str]]:
    """All that is known of one, for a person."""
    evidence, peak = dict(data["evidence"]), data["peak"]
    usual = evidence.pop("usual", {})
    rows = [["incident", data["id"]], ["what", data["title"]]]
    rows += [["began", _moment(data["start"])], ["ended", _moment(data["end"])]]
    rows += [["statistics", ", ".join(data["stats"])]]
    if peak:
        rows += [["strongest", f"{peak['stat']} {number(peak['value'])}, threshold {number(peak['threshold'])}"]]
    rows += [[EVIDENCE.get(key, key), _shares(value)] for key, value in evidence.items()]
    rows += [[f"usual {EVIDENCE.get(key, key)}", _shares(value)] for key, value in usual.items()]
    return [[_safe(name), _safe(text)] for name, text in rows]


def _shares(value: Any) -> str:
    """``[["192.168.1.23", 0.94]]`` as ``192.168.1.23 94 %``; another thing as it is."""
    try:
        return ", ".join(f"{name} {share:.3g} %" for name, share in ((name, 100 * share) for name, share in value))
    except (TypeError, ValueError):
        return str(value)


def _moment(time: str | None) -> str:
    """``2026-11-24T08:03:28.800Z`` in a few characters less."""
    return "still going on" if time is None else re.sub(r"(?:[.]\d+)?Z$", "Z", time.replace("T", " "))


def watch(peer: Peer, args: argparse.Namespace) -> int:
    """A live view: one line a statistic, its last values as bars; on a terminal as many as it has room for."""
    values: dict[str, list[float | None]] = {}
    cursor, rounds, shown = "", args.count, sys.stdout.isatty()
    while rounds is None or rounds > 0:
        news = peer.get("poll" + cursor)
        cursor = f"?since={news['seq']}&epoch={quote(str(news['epoch']), safe='')}"
        if args.json:
            print(json.dumps(news, separators=(",", ":")), flush=True)
        else:
            print(("\x1b[H\x1b[J" if shown else "") + _view(news, values), flush=True)
        rounds = None if rounds is None else rounds - 1
        if rounds != 0:
            time.sleep(max(1.0, float(news["status"].get("period_s", 1.0))))
    return 0


def _view(news: Mapping[str, Any], values: dict[str, list[float | None]]) -> str:
    size = shutil.get_terminal_size()
    width, colours = max(20, size.columns), sys.stdout.isatty()
    bars = max(8, width - 48)
    head = news["status"]
    if news["reset"]:
        values.clear()
    title = f"{_safe(head.get('node'))}  {_safe(head.get('phase'))}  {head.get('packets_per_s', 0):g} packets/s"
    lines = [title[:width], ""]
    stats: list[tuple[int, str]] = []
    for name, column in news["stats"].items():
        known = values.setdefault(name, [])
        known += column["v"]
        del known[:-400]
        state = column["now"][0]
        last = next((value for value in reversed(known) if value is not None), None)
        text = f"{_safe(name)[:20]:20} {number(last):>10}  {sparkline(known[-bars:]):{bars}}  {_safe(state)}"[:width]
        red = colours and state == "alarm"
        stats.append((RANK.get(state, len(RANK)), f"\x1b[31m{text}\x1b[0m" if red else text))
    stats.sort(key=lambda stat: stat[0])
    room = size.lines - len(lines) - 1 if colours else len(stats)  # the cursor has the last line
    return "\n".join([*lines, *fitted([text for _, text in stats], room)])


def sparkline(values: Sequence[float | None]) -> str:
    """A bar of one character for each value, from the lowest to the highest; a blank for none."""
    there = [value for value in values if value is not None]
    low, high = (min(there), max(there)) if there else (0.0, 0.0)
    span = (high - low) or 1.0
    return "".join(" " if value is None else BARS[1 + round((value - low) / span * 7)] for value in values)


def config(peer: Peer, args: argparse.Namespace) -> int:
    if args.action == "get":
        data = peer.get("config")
        for part in args.key.split(".") if args.key else ():
            if not isinstance(data, dict) or part not in data:
                raise ConfigError(f"{args.key}: there is no such setting; 'netspotctl config get' shows all")
            data = data[part]
        print(json.dumps(data, indent=None if args.json else 2))
        return 0
    changes: dict[str, Any] = {}
    words = iter(args.pairs)
    for word in words:
        key, equals, text = word.partition("=")
        value = text if equals else next(words, None)
        if value is None or not key:
            raise ConfigError(f"{word}: must be KEY=VALUE or KEY VALUE, as in spot.q=1e-5")
        _put(changes, key.split("."), _value(value))
    return _did(peer.command("config", {"set": changes, "save": args.save}), args)


def _put(changes: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        below = changes.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{'.'.join(path)}: given twice")
        changes = below
    changes[path[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def devices(peer: Peer, args: argparse.Namespace) -> int:
    data = peer.get("devices")
    if args.json:
        _print_json(data)
        return 0
    rows = [["DEVICE", "STATE", "KIND", "ADDRESSES"]]
    for device in data["devices"]:
        default = ["(default route)"] if device.get("default_route") else []
        addresses = " ".join([*device.get("addresses", ()), *default])
        rows.append([_safe(text) for text in (*(device.get(key, "-") for key in ("name", "state", "kind")), addresses)])
    _print_table(rows)
    return 0


def token(args: argparse.Namespace) -> int:
    found = find_token(args.token_file)
    _print_json({"token": found}) if args.json else print(found)
    return 0


def fleet(args: argparse.Namespace) -> int:
    from netspot.fleet import show

    show(_broker(args), args.watch, args.json)
    return 0


def start(peer: Peer, args: argparse.Namespace) -> int:
    return _did(peer.command("start", {}), args)


def stop(peer: Peer, args: argparse.Namespace) -> int:
    return _did(peer.command("stop", {}), args)


def relearn(peer: Peer, args: argparse.Namespace) -> int:
    return _did(peer.command("relearn", {"stat": args.stat}), args)


def mute(peer: Peer, args: argparse.Namespace) -> int:
    return _did(peer.command("mute", {"stat": args.stat, "seconds": args.time}), args)


def unmute(peer: Peer, args: argparse.Namespace) -> int:
    return _did(peer.command("unmute", {"stat": args.stat}), args)


def _did(data: Any, args: argparse.Namespace) -> int:
    if args.json:
        _print_json(data)
    else:
        print("done")
    return 0


def seconds(text: str) -> float:
    """``90``, ``90s``, ``10m``, ``2h`` or ``1d`` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: a time such as 90s, 10m, 2h or 1d")
    return float(match[1]) * UNITS_S[match[2] or "s"]


# -- words -------------------------------------------------------------------------------------------------------------


def number(value: Any) -> str:
    """Four digits that count and no exponent for what is large, or a dash."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _safe(value: Any) -> str:
    """Text from elsewhere, without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def _print_json(data: Any) -> None:
    print(json.dumps(data, separators=(",", ":")))


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# -- arguments ---------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The arguments of ``netspotctl``; man page and completion are made from them too."""
    top = Arguments(
        "netspotctl",
        description="Looks at a running netspot and tells it what to do.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"netspotctl {netspot.__version__}")
    _where(top, default=True)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, help, add) in COMMANDS.items():
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        _where(sub, default=False)
        if add is not None:
            add(sub)
    return top


def _where(parser: argparse.ArgumentParser, default: bool) -> None:
    """Where netspot is; accepted before and after the command."""

    def option(flag: str, value: Any, metavar: str, help: str) -> None:
        parser.add_argument(flag, default=value if default else argparse.SUPPRESS, metavar=metavar, help=help)

    option("--url", URL, "URL", f"its address, with web.base if that is set (default: {URL})")
    option("--socket", None, "PATH", "its unix socket, as in web.listen: unix:PATH")
    option(
        "--mqtt", None, "BROKER", "the broker through which to reach it: HOST[:PORT] or mqtt[s]://[USER@]HOST[:PORT]"
    )
    option("--node", None, "NODE", "its name, with --mqtt (default: the only one there)")
    option("--base", "netspot", "TOPIC", "first part of the topics, with --mqtt (default: netspot)")
    option("--password-file", None, "FILE", "file with the password of USER, with --mqtt")
    option("--ca", None, "FILE", "certificates to trust for https and mqtts (PEM), for one of your own")
    option("--token-file", None, "FILE", f"file with the token (default: {STATE_DIR}/token)")
    parser.add_argument(
        "--json", action="store_true", default=False if default else argparse.SUPPRESS, help="JSON, for scripts"
    )


def _stats_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", metavar="STAT", nargs="?", help="only this one, with its meaning")


def _watch_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-n", "--count", metavar="N", type=int, help="stop after N views")


def _incidents_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("id", metavar="ID", nargs="?", help="only this one, with its evidence")


def _fleet_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-w", "--watch", action="store_true", help="go on, until Ctrl-C")


def _stat_argument(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("stat", metavar="STAT", help="name of a statistic, or all")


def _mute_arguments(sub: argparse.ArgumentParser) -> None:
    _stat_argument(sub)
    sub.add_argument(
        "time", metavar="TIME", nargs="?", type=seconds, default=3600.0, help="90s, 10m, 2h, 1d (default: 1h)"
    )


def _config_arguments(sub: argparse.ArgumentParser) -> None:
    actions = sub.add_subparsers(dest="action", metavar="get|set", required=True)
    get = actions.add_parser("get", help="show the configuration in force, or one setting of it")
    get.add_argument("key", metavar="KEY", nargs="?", help="a setting, as in spot.q")
    put = actions.add_parser("set", help="change settings: all of them or, if one cannot be, none")
    put.add_argument("pairs", metavar="KEY=VALUE", nargs="+", help="or KEY VALUE, as in spot.q=1e-5")
    put.add_argument("--save", action="store_true", help="write them back to the configuration file too")
    _where(get, default=False)
    _where(put, default=False)


COMMANDS: dict[str, tuple[Callable[..., int], str, Callable[[argparse.ArgumentParser], None] | None]] = {
    "status": (status, "what it is doing; exit status 4 during an alarm", None),
    "stats": (
        stats,
        "every statistic with its value and its normal range",
        _stats_arguments,
    ),
    "watch": (
        watch,
        "a live view in the terminal, until Ctrl-C",
        _watch_arguments,
    ),
    "incidents": (
        incidents,
        "what happened, newest first",
        _incidents_arguments,
    ),
    "start": (start, "start capturing", None),
    "stop": (stop, "stop capturing; the page and the API go on", None),
    "relearn": (relearn, "forget what is normal for a statistic and learn anew", _stat_argument),
    "mute": (mute, "no alarms from a statistic for a while", _mute_arguments),
    "unmute": (unmute, "alarms from a statistic again", _stat_argument),
    "config": (config, "show or change the configuration", _config_arguments),
    "devices": (devices, "list the interfaces of its machine", None),
    "fleet": (fleet, "every netspot that a broker knows, with --mqtt", _fleet_arguments),
    "token": (token, "show the token that allows changes (on the machine itself)", None),
}


def connect(args: argparse.Namespace) -> Peer:
    """The netspot that the arguments name."""
    if args.mqtt is None:
        return Http(args.url, args.socket, args.ca, lambda: find_token(args.token_file))
    return Mqtt(_broker(args), args.node, args.command)


def _broker(args: argparse.Namespace) -> MqttConfig:
    if args.mqtt is None:
        raise ConfigError("fleet: give the broker, as in --mqtt HOST[:PORT]")
    return broker(args.mqtt, args.base, args.ca, args.password_file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``netspotctl``; returns its exit status."""
    args = parser().parse_args(argv)
    logging.getLogger("netspot").addHandler(logging.NullHandler())  # what matters here is told as an error

    def command() -> int:
        if args.command in ("token", "fleet"):
            return COMMANDS[args.command][0](args)
        return COMMANDS[args.command][0](connect(args), args)

    return ended("netspotctl", command, interrupted=0)


if __name__ == "__main__":
    sys.exit(main())
