"""Many nodes and one broker: commands to a node, and all nodes at a glance, over MQTT."""

from __future__ import annotations

import json
import queue
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from netspot.commands import CommandError
from netspot.config import MqttConfig
from netspot.errors import NetspotError, Unreachable
from netspot.events import encode
from netspot.exporters.link import Link
from netspot.exporters.talk import Incoming
from netspot.terminal import fitted

NODES = 2000  # looked at; more are not shown
SAME_S = 60.0  # incidents of one kind that begin within this time of each other are shown as one
SETTLE_S = 0.5  # after the last retained message nothing more is expected
SINCE = "%Y-%m-%d %H:%M:%S"


def request(
    config: MqttConfig, node: str, command: str, args: Mapping[str, Any] | None = None, timeout_s: float = 10.0
) -> Any:
    """Let ``node`` carry out ``command``: the data of its answer.

    Raises CommandError with the node's own words when it refuses, NetspotError when broker or node do not answer.
    """
    answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    transaction = secrets.token_hex(8)

    def receive(message: Incoming) -> None:
        answer = _object(message.payload)
        if answer.get("transaction") == transaction:
            answers.put(answer)

    base = f"{config.base}/{node}"
    link = Link(config, f"netspotctl-{secrets.token_hex(4)}", None, (f"{base}/response/{command}",), receive)
    link.start()
    try:
        link.wait(timeout_s)
        link.send(f"{base}/request/{command}", encode({**(args or {}), "transaction": transaction}), 1)
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise Unreachable(
            f"node {node} did not answer within {timeout_s:g} s: is it online (netspotctl --mqtt {config.host} fleet), "
            f"and does it obey requests (mqtt.commands)?"
        ) from None
    finally:
        link.close()
    if answer.get("status") != "ok":
        raise CommandError(str(answer.get("error", "the node gives no reason")))
    return answer.get("data")


@dataclass(slots=True)
class Node:
    """What is known of one node; everything comes from its retained messages."""

    name: str
    status: str = "unknown"  # online | offline
    health: Mapping[str, Any] = field(default_factory=dict)
    alarm: Mapping[str, Any] = field(default_factory=dict)  # the state of the whole node
    seen_s: float = 0.0  # newest message that is known to be of that time [s since epoch]

    @property
    def title(self) -> str | None:
        return str(self.alarm.get("title") or "anomaly") if self.alarm.get("active") else None

    @property
    def since_s(self) -> float:
        return _seconds(self.alarm.get("since"))


@dataclass(frozen=True, slots=True)
class Shared:
    """Incidents of one kind on several nodes, as one thing that happens to the fleet."""

    kind: str
    title: str  # of the first
    start_s: float  # of the first [s since epoch]
    nodes: tuple[str, ...]


class Fleet:
    """A live view of all nodes below ``config.base``: a context manager."""

    def __init__(self, config: MqttConfig) -> None:
        topics = tuple(f"{config.base}/+/{leaf}" for leaf in ("status", "health", "alarm"))
        self.nodes: dict[str, Node] = {}
        self.link = Link(config, f"netspotctl-{secrets.token_hex(4)}", None, topics, self._receive)
        self._changed_s = 0.0  # monotonic
        self._depth = config.base.count("/") + 1

    def __enter__(self) -> Fleet:
        """Raises NetspotError when the broker cannot be reached; returns when the retained messages have come."""
        self.link.start()
        try:
            self.link.wait(10.0)
        except NetspotError:
            self.link.close()
            raise
        self._changed_s = time.monotonic()
        while time.monotonic() - self._changed_s < SETTLE_S:
            time.sleep(0.02)
        return self

    def __exit__(self, *exc: object) -> None:
        self.link.close()

    def _receive(self, message: Incoming) -> None:
        """On the network thread; readers only ever see whole values."""
        levels = message.topic.split("/")
        name, leaf = levels[self._depth], levels[-1]
        node = self.nodes.get(name)
        if node is None:
            if not message.payload or len(self.nodes) >= NODES:
                return
            node = Node(name)
        if leaf == "status":
            node.status = message.payload.decode(errors="replace")[:16]
        elif leaf == "health":
            node.health = _object(message.payload)
            node.seen_s = max(node.seen_s, _number(node.health.get("time_ns")) / 1e9)
        else:
            node.alarm = _object(message.payload)
        if not message.retain:
            node.seen_s = time.time()
            if leaf == "status" and not message.payload:  # cleared: that node is no more
                self.nodes.pop(name, None)
                return
        self.nodes[name] = node
        self._changed_s = time.monotonic()

    def listed(self) -> list[Node]:
        return sorted(self.nodes.copy().values(), key=lambda node: node.name)

    def incidents(self) -> list[Shared]:
        """What goes on, newest first; the same kind on several nodes within a minute is one."""
        return merged(node for node in self.listed() if node.title)


def merged(nodes: Iterable[Node]) -> list[Shared]:
    kinds: dict[str, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.since_s):
        kinds.setdefault(kind_of(node.alarm), []).append(node)
    found = []
    for kind, members in kinds.items():
        group: list[Node] = []
        for node in members:
            if group and node.since_s - group[-1].since_s > SAME_S:
                found.append(_shared(kind, group))
                group = []
            group.append(node)
        found.append(_shared(kind, group))
    return sorted(found, key=lambda shared: -shared.start_s)


def _shared(kind: str, group: list[Node]) -> Shared:
    return Shared(kind, group[0].title or "", group[0].since_s, tuple(node.name for node in group))


def kind_of(alarm: Mapping[str, Any]) -> str:
    """What makes two incidents the same kind: the title without addresses and numbers, else the statistics."""
    words = re.split(r" (?:from|to|on|by|at|of|in|against)\b|:|\(|\d", str(alarm.get("title") or ""), maxsplit=1)[
        0
    ].strip()
    stats = alarm.get("stats")
    names = sorted(map(str, stats)) if isinstance(stats, list) else []
    return words.lower() or ",".join(names) or "anomaly"


def table(fleet: Fleet, now_s: float, height: int = 10_000) -> str:
    """Nodes and incidents for a person, one a line; in a low terminal the nodes without either are left out first."""
    rows: list[tuple[str, ...]] = [("NODE", "STATUS", "PHASE", "DROPPED", "CAPTURED", "VERSION", "SEEN", "INCIDENT")]
    for node in sorted(fleet.listed(), key=lambda node: (not node.title, node.status == "online")):
        health = node.health
        figures = (str(health.get(key, "-")) for key in ("phase", "dropped", "captured", "version"))
        rows.append(
            (node.name, node.status, *figures, _ago(now_s - node.seen_s) if node.seen_s else "-", node.title or "")
        )
    shown = [tuple(_plain(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(rows[0]) - 1)]
    lines = ["  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in shown]
    shared = [
        f"{len(one.nodes)} nodes since {time.strftime(SINCE, time.localtime(one.start_s))}: {_plain(one.title)}"
        f" ({', '.join(one.nodes)})"
        for one in fleet.incidents()
        if len(one.nodes) > 1
    ]
    shared = fitted(shared, (height - 1) // 2)
    return "\n".join([lines[0], *fitted(lines[1:], height - 1 - len(shared)), *shared])


def show(config: MqttConfig, watch: bool = False, as_json: bool = False, out: TextIO | None = None) -> None:
    """Print the fleet once, or, with ``watch``, every second until interrupted. Raises NetspotError."""
    out = out or sys.stdout
    with Fleet(config) as fleet, suppress(KeyboardInterrupt):
        while True:
            drawn = watch and not as_json and out.isatty()
            size = shutil.get_terminal_size()
            if as_json:
                text = described(fleet)
            elif drawn:  # the cursor has the last line
                lines = table(fleet, time.time(), size.lines - 1).splitlines()
                text = "\x1b[H\x1b[2J" + "\n".join(line[: size.columns] for line in lines)
            else:
                text = table(fleet, time.time())
            print(text, file=out, flush=True)
            if not watch:
                return
            time.sleep(1.0)


def described(fleet: Fleet) -> str:
    """The same as one JSON object."""
    nodes = [
        {"node": n.name, "status": n.status, "seen": n.seen_s or None, "health": n.health, "alarm": n.alarm}
        for n in fleet.listed()
    ]
    shared = [{"kind": s.kind, "title": s.title, "start": s.start_s, "nodes": s.nodes} for s in fleet.incidents()]
    return encode({"nodes": nodes, "incidents": shared})


def only_node(config: MqttConfig) -> str:
    """The node that is meant where none is named. Raises NetspotError unless exactly one is there."""
    with Fleet(config) as fleet:
        names = [node.name for node in fleet.listed()]
    if len(names) == 1:
        return names[0]
    shown = ", ".join(map(_plain, names[:20])) or "none"
    raise NetspotError(f"--node: {len(names)} nodes are known to {config.host} ({shown}); name one")


def _object(payload: bytes) -> dict[str, Any]:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    except OverflowError:  # JSON's integers have no end
        return 0.0


def _seconds(iso: Any) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(str(iso)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _ago(seconds: float) -> str:
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{max(seconds, 0) / size:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} days ago"


def _plain(text: object) -> str:
    """What a node says of itself never controls the terminal, nor fills it."""
    return "".join(char if char.isprintable() else "?" for char in str(text)[:120])
