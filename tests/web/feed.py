"""A netspot without a network: the page and the API over made-up statistics, to look at and to test against.

    python tests/web/feed.py --listen 127.0.0.1:11000 --period 1 --past 3600

On standard output, one JSON line tells the port and the token. Each line on standard input is a statistic to attack
for three windows. The end of standard input ends the program.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from netspot import commands
from netspot.config import WebConfig
from netspot.events import Alarm, Event, Incident, Sample, Window
from netspot.record import replace
from netspot.snapshot import Board, Info
from netspot.web.server import WebServer


@dataclass(frozen=True)
class Made:
    """A statistic that is made up: ``mean`` plus ``spread`` times noise, with a slow wave."""

    name: str
    unit: str
    help: str
    mean: float
    spread: float
    down: bool = False


MADE = (
    Made("R_SYN", "1", "share of TCP segments with SYN set among all IP packets", 0.04, 0.01),
    Made("R_ACK", "1", "share of TCP segments with ACK set among all IP packets", 0.7, 0.05, down=True),
    Made("R_ICMP", "1", "share of ICMP among all IP packets", 0.01, 0.004),
    Made("R_ARP", "1", "share of ARP among all packets", 0.02, 0.006),
    Made("R_IP", "1", "share of IP among all packets", 0.95, 0.01, down=True),
    Made("R_DST_SRC", "1", "distinct destinations for each distinct source", 1.4, 0.2),
    Made("R_DST_SRC_PORT", "1", "distinct destination ports for each distinct source port", 0.5, 0.1),
    Made("AVG_PKT_SIZE", "byte", "mean length of an IP packet", 640, 60, down=True),
    Made("TRAFFIC", "packet/s", "packets a second", 850, 120),
    Made("FANOUT_PORTS", "1", "most ports of one host that one source tried", 4, 1),
    Made("FANOUT_HOSTS", "1", "most hosts that one source tried", 6, 1.5),
    Made("DNS_NX", "connection and more/s", "DNS answers that say no such name", 0.4, 0.2),
)
NEEDED = 120


class Feed:
    """The main loop of a service, without its packets."""

    def __init__(self, board: Board, seed: int) -> None:
        self.board, self.random = board, random.Random(seed)
        self.commands = commands.CommandQueue()
        self.settings: dict[str, Any] = {"analyzer": {"period": "1s"}, "spot": {"q": 1e-4}}
        self.attacked: dict[str, int] = {}  # windows of attack left, by statistic
        self.muted: dict[str, int] = {}  # until [ns since epoch]
        self.learned = 0
        self.captured = 0
        self.seq = 0
        self.open: Incident | None = None
        self.alarms: set[str] = set()
        self.running = True
        self.handlers = {
            "start": lambda args: self._run(True),
            "stop": lambda args: self._run(False),
            "relearn": self._relearn,
            "mute": lambda args: self._mute(args, args["seconds"]),
            "unmute": lambda args: self._mute(args, 0),
            "config": self._config,
            "stats": lambda args: {},
            "devices": lambda args: [
                {
                    "name": "eth0",
                    "state": "up",
                    "kind": "ethernet",
                    "addresses": ["192.168.1.2/24", "fd00::2/64"],
                    "default_route": True,
                },
                {"name": "lo", "state": "up", "kind": "loopback", "addresses": ["127.0.0.1/8"], "default_route": False},
            ],
            "health": lambda args: self.board.current.health,
        }

    def _run(self, running: bool) -> dict[str, Any]:
        self.running = running
        return {"running": running}

    def _relearn(self, args: Any) -> dict[str, Any]:
        self.learned = 0
        return {"relearning": [args["stat"]]}

    def _mute(self, args: Any, seconds: float) -> dict[str, Any]:
        names = [made.name for made in MADE] if args["stat"] == "all" else [args["stat"]]
        until = time.time_ns() + int(seconds * 1e9)
        self.muted |= dict.fromkeys(names, until)
        return {"muted": names, "until_ns": until}

    def _config(self, args: Any) -> Any:
        if args.get("set"):
            if unknown := set(args["set"]) - set(self.settings):
                raise commands.CommandError(f"{sorted(unknown)[0]}: no such setting")
            self.settings |= args["set"]
        return self.settings

    def step(self, time_ns: int) -> None:
        """One window that ends at ``time_ns``."""
        self.learned = min(NEEDED, self.learned + 1)
        samples = [self._sample(made, time_ns) for made in MADE]
        events: list[Event] = []
        for sample in samples:
            outside = sample.state == "alarm"
            if outside != (sample.stat in self.alarms):
                events.append(self._alarm(sample, outside))
        events += self._incident(samples, time_ns)
        packets = int(max(0.0, samples[8].value) * self.board.info.period_ns / 1e9)
        self.captured += packets
        window = Window(time_ns - self.board.info.period_ns, time_ns, {"PKTS": packets}, 0, 1.0)
        self.board.step(window, samples, events, self._health(packets))

    def _sample(self, made: Made, time_ns: int) -> Sample:
        wave = 0.6 * math.sin(time_ns / 1e9 / 240 + made.mean)
        value = made.mean + made.spread * (self.random.gauss(0, 0.5) + wave)
        attacked = self.attacked.get(made.name, 0)
        if attacked:
            self.attacked[made.name] = attacked - 1
            value = made.mean * (0.2 if made.down else 1) + (0 if made.down else 9 * made.spread)
        learning = self.learned < NEEDED
        limit = 3.2 * made.spread + 0.1 * made.spread * wave
        up = None if learning else made.mean + limit
        down = made.mean - limit if made.down and not learning else None
        outside = (up is not None and value > up) or (down is not None and value < down)
        state = "learning" if learning else "alarm" if outside else "watching"
        if self.muted.get(made.name, 0) > time_ns:
            state = "muted"
        return Sample(made.name, time_ns, max(0.0, value), made.unit, up, down, state, self.learned, NEEDED)

    def _alarm(self, sample: Sample, outside: bool) -> Alarm:
        self.seq += 1
        (self.alarms.add if outside else self.alarms.discard)(sample.stat)
        kind = "cleared" if not outside else "up" if sample.up and sample.value > sample.up else "down"
        limit = sample.down if kind == "down" else sample.up
        return Alarm(sample.stat, sample.time_ns, sample.value, kind, limit or 0.0, 3e-7, seq=self.seq, level="high")

    def _incident(self, samples: list[Sample], time_ns: int) -> list[Event]:
        self.seq += 1
        names = tuple(sorted(self.alarms))
        if names and self.open is None:
            worst = next(sample for sample in samples if sample.stat == names[0])
            title = f"port scan from 192.168.1.23: 412 ports on 192.168.1.10 ({', '.join(names)})"
            peak = {"stat": worst.stat, "value": worst.value, "threshold": worst.up, "probability": 3e-7}
            evidence = {"top_src": [["192.168.1.23", 0.94], ["192.168.1.7", 0.03]], "top_port": [["tcp 445", 0.4]]}
            key = f"pi-kitchen-{self.seq:04x}"
            self.open = Incident(key, time_ns, "opened", self.seq, title, names, time_ns, None, peak, evidence)
            return [self.open]
        if not names and self.open is not None:
            closed = replace(self.open, event_type="closed", time_ns=time_ns, end_ns=time_ns, seq=self.seq)
            self.open = None
            return [closed]
        return []

    def _health(self, packets: int) -> dict[str, Any]:
        return {
            "phase": "learning" if self.learned < NEEDED else "watching",
            "learned": self.learned,
            "needed": NEEDED,
            "captured": self.captured,
            "dropped": 0,
            "packets_per_s": packets / (self.board.info.period_ns / 1e9),
            "interfaces": ["eth0"],
            "rss_bytes": 41 << 20,
            "cpu_share": 0.013,
            "disk_free_bytes": 11 << 30,
            "clock_synced": True,
            "mqtt": {"connected": True, "published": self.captured // 100, "dropped": 0},
            "exporters": {"mqtt": {"dropped": 0}, "file": {"dropped": 0}},
            "uptime_s": (time.time_ns() - self.board.info.started_ns) / 1e9,
        }


class Served:
    """A feed, its main loop and its web server, each in a thread: a context manager."""

    def __init__(self, past: int = 130, period_s: float = 1.0, attacks: Sequence[str] = (), **web: Any) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="netspot-feed-")
        self.period_ns = int(period_s * 1e9)
        started_ns = time.time_ns() - past * self.period_ns
        self.board = Board(Info("pi-kitchen", "eth0", "3.0.0", started_ns, self.period_ns, MADE))
        self.feed = Feed(self.board, seed=1)
        self.captures: dict[str, Path] = {}
        self._next_ns = time.time_ns() // self.period_ns * self.period_ns
        for back in range(past, 0, -1):
            if back in (45, 200):
                self.feed.attacked = dict.fromkeys(attacks, 6)
            self.feed.step(self._next_ns - back * self.period_ns)
        config = WebConfig(**{"listen": "127.0.0.1:0", **web})
        view = self.feed.settings
        folder = self.folder.name
        self.server = WebServer(config, self.board, self.feed.commands, lambda: view, folder, self.captures.get)
        self.stepping = True
        self._ended = threading.Event()
        self._loop = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> Self:
        self.server.start()
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._loop.join(5)
        self.server.close()
        self.folder.cleanup()

    @property
    def token(self) -> str:
        return (Path(self.folder.name) / "token").read_text().strip()

    def run(self) -> None:
        """Step at the end of each window, and carry out commands, until the end."""
        while not self._ended.wait(0.02):
            self.feed.commands.serve(self.feed.handlers)
            if time.time_ns() >= self._next_ns:
                if self.feed.running and self.stepping:
                    self.feed.step(self._next_ns)
                self._next_ns += self.period_ns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--period", type=float, default=1.0, help="[s]")
    parser.add_argument("--past", type=int, default=300, help="windows made before the start")
    parser.add_argument("--read", default="open")
    parser.add_argument("--base", default="/")
    parser.add_argument("--attack", nargs="*", default=[], help="statistics attacked shortly before the start")
    args = parser.parse_args()
    with Served(args.past, args.period, args.attack, listen=args.listen, read=args.read, base=args.base) as served:
        port = None if args.listen.startswith("unix:") else served.server.port
        print(json.dumps({"port": port, "token": served.token}), flush=True)
        for line in sys.stdin:
            served.feed.attacked[line.strip()] = 3


if __name__ == "__main__":
    main()
