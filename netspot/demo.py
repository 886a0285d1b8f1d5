"""``netspot demo``: a synthetic home network under attack, through the whole pipeline, faster than real time."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspot.errors import ConfigError, NetspotError
from netspot.events import Alarm, Event, Sample, Window, counted
from netspot.packets import ACK, FIN, PSH, RST, SYN, PacketBatch

Ints = NDArray[np.int64]
Rng = np.random.Generator

MINUTES = 42
SPEED = 120.0  # times real time
EPOCH_S = 1_764_000_000  # the demo is the same on every day
SLICE = 400  # packets handed on at once, so that the page moves evenly
CAPTURED = 60  # bytes of each frame in the capture

LAN = 0xC0A80100  # 192.168.1.0
GATEWAY, VICTIM, INSIDER = LAN + 1, LAN + 12, LAN + 15
OUTSIDER = 0xCB007109  # 203.0.113.9, of a range for documentation (RFC 5737)
TCP, UDP, ICMP, ARP = 6, 17, 1, 0  # ARP has no IP protocol number: 0 stands for it here
EVERYBODY = 0xFFFFFFFFFFFF


class Attack(NamedTuple):
    name: str
    minute: float
    seconds: int


ATTACKS = (
    Attack("port scan", 24, 30),
    Attack("SYN flood", 28, 20),
    Attack("ARP spoofing", 31, 40),
    Attack("ICMP flood", 35, 20),
    Attack("DNS tunnel", 38, 60),
)


class Traffic:
    """Packets to come, as columns that are written all at once."""

    FIELDS = ("t_us", "proto", "src", "dst", "sport", "dport", "flags", "length", "smac", "dmac", "op")

    def __init__(self) -> None:
        self._parts: dict[str, list[Ints]] = {name: [] for name in self.FIELDS}

    def add(self, t_s: NDArray[np.float64], **columns: Any) -> None:
        """Packets at ``t_s`` [s since the start]; fields that are not given are 0."""
        given = {"t_us": np.round(t_s * 1e6), **columns}
        given.setdefault("smac", hardware(given.get("src", 0)))
        given.setdefault("dmac", hardware(given.get("dst", 0)))
        for name in self.FIELDS:
            self._parts[name].append(np.broadcast_to(np.asarray(given.get(name, 0), np.int64), t_s.shape))

    def columns(self) -> dict[str, Ints]:
        joined = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        order = np.argsort(joined["t_us"], kind="stable")
        inside = order[(joined["t_us"][order] >= 0) & (joined["t_us"][order] < MINUTES * 60_000_000)]
        return {name: column[inside] for name, column in joined.items()}


def hardware(address: Any) -> Any:
    """The hardware address of who owns an IPv4 address; the gateway's for all that is outside."""
    address = np.asarray(address, np.int64)
    inside = (address & 0xFFFFFF00) == LAN
    return 0x020000000000 + np.where(inside, address & 0xFF, 1)


def background(rng: Rng, traffic: Traffic) -> None:
    """What twelve devices do when nothing is wrong: connections, name look-ups, and the chatter of a LAN."""
    span_s = MINUTES * 60
    load = np.exp(0.1 * np.convolve(rng.standard_normal(span_s + 60), np.exp(-np.arange(60) / 20), "valid")[:span_s])
    flows = int(span_s * 3)
    begin = rng.choice(span_s, flows, p=load / load.sum()) + rng.random(flows)
    device = LAN + 10 + rng.integers(0, 12, flows)
    server = rng.choice(rng.integers(0x10000000, 0xC0000000, 300), flows)
    port = rng.integers(32768, 61000, flows)
    size = np.minimum((rng.pareto(1.2, flows) + 1) * 5, 2000).astype(np.int64)
    trip = rng.lognormal(-3.5, 0.5, flows)
    last = size / rng.lognormal(3.5, 0.8, flows) + 3 * trip
    out = {"proto": TCP, "src": device, "dst": server, "sport": port, "dport": 443}
    back = {"proto": TCP, "src": server, "dst": device, "sport": 443, "dport": port}
    traffic.add(begin, **out, flags=SYN, length=60)
    traffic.add(begin + trip, **back, flags=SYN | ACK, length=60)
    traffic.add(begin + trip * 1.01, **out, flags=ACK, length=52)
    traffic.add(begin + last, **out, flags=np.where(rng.random(flows) < 0.05, RST, FIN | ACK), length=52)
    traffic.add(begin + last + trip, **back, flags=FIN | ACK, length=52)
    of = np.repeat(np.arange(flows), size)
    when = begin[of] + 2 * trip[of] + rng.random(len(of)) * (last[of] - 2 * trip[of])
    down = rng.random(len(of)) < 0.65
    for mask, way in ((down, back), (~down, out)):
        rows = of[mask]
        fields = {k: v[rows] if isinstance(v, np.ndarray) else v for k, v in way.items()}
        length = np.where(rng.random(len(rows)) < 0.6, 1500, rng.integers(52, 1400, len(rows)))
        traffic.add(when[mask], **fields, flags=ACK | PSH, length=length)
    asked = np.flatnonzero(rng.random(flows) < 0.5)
    look_ups(rng, traffic, begin[asked] - 0.05, device[asked], 60)
    chatter(rng, traffic, span_s)


def look_ups(rng: Rng, traffic: Traffic, t_s: NDArray[np.float64], who: Any, length: int) -> None:
    port = rng.integers(1024, 65000, len(t_s))
    traffic.add(t_s, proto=UDP, src=who, dst=GATEWAY, sport=port, dport=53, length=length)
    traffic.add(t_s + 0.02, proto=UDP, src=GATEWAY, dst=who, sport=53, dport=port, length=2 * length)


def chatter(rng: Rng, traffic: Traffic, span_s: int) -> None:
    for address in range(LAN + 10, LAN + 22):
        t_s = np.arange(rng.random() * 40, span_s, 40.0)
        t_s += rng.normal(0, 4, len(t_s))
        traffic.add(t_s, proto=ARP, src=address, dst=GATEWAY, dmac=EVERYBODY, op=1, length=46)
        traffic.add(t_s + 0.001, proto=ARP, src=GATEWAY, dst=address, op=2, length=46)
        traffic.add(
            t_s + 3, proto=UDP, src=address, dst=0xE00000FB, sport=5353, dport=5353, dmac=0x01005E0000FB, length=120
        )
        traffic.add(t_s + 7, proto=ICMP, src=address, dst=GATEWAY, op=8, length=84)
        traffic.add(t_s + 7.002, proto=ICMP, src=GATEWAY, dst=address, op=0, length=84)


def assaults(rng: Rng, traffic: Traffic) -> None:
    for attack in ATTACKS:
        begin_s, seconds = attack.minute * 60, attack.seconds

        def times(per_s: float, begin_s: float = begin_s, seconds: int = seconds) -> NDArray[np.float64]:
            return begin_s + np.sort(rng.random(int(per_s * seconds))) * seconds

        match attack.name:
            case "port scan":
                t_s = times(150)
                port = rng.permutation(60000)[: len(t_s)] + 1
                traffic.add(t_s, proto=TCP, src=OUTSIDER, dst=VICTIM, sport=40123, dport=port, flags=SYN, length=44)
                back = {"src": VICTIM, "dst": OUTSIDER, "sport": port, "dport": 40123, "flags": RST | ACK}
                traffic.add(t_s + 0.001, proto=TCP, **back, length=40)
            case "SYN flood":
                t_s = times(1500)
                source, port = rng.integers(0x10000000, 0xC0000000, len(t_s)), rng.integers(1024, 65000, len(t_s))
                traffic.add(t_s, proto=TCP, src=source, dst=VICTIM, sport=port, dport=80, flags=SYN, length=44)
            case "ARP spoofing":
                claimed = {
                    "src": GATEWAY,
                    "smac": hardware(INSIDER),
                    "dst": LAN + 10 + rng.integers(0, 12, 20 * seconds),
                }
                traffic.add(times(20), proto=ARP, **claimed, op=2, length=46)
            case "ICMP flood":
                t_s = times(600)
                traffic.add(t_s, proto=ICMP, src=OUTSIDER, dst=VICTIM, op=8, length=84)
                traffic.add(t_s + 0.001, proto=ICMP, src=VICTIM, dst=OUTSIDER, op=0, length=84)
            case "DNS tunnel":
                look_ups(rng, traffic, times(40), INSIDER, 180)


def frames(columns: Mapping[str, Ints]) -> NDArray[np.uint8]:
    """The first bytes of each packet on Ethernet, shape (n, CAPTURED)."""
    ethernet = [("dmac", "6u1"), ("smac", "6u1"), ("ethertype", ">u2")]
    ip = [("version", "u1"), ("tos", "u1"), ("length", ">u2"), ("id", ">u2"), ("fragment", ">u2"), ("ttl", "u1"),
          ("proto", "u1"), ("checksum", ">u2"), ("src", ">u4"), ("dst", ">u4")]  # fmt: skip
    tcp = [("sport", ">u2"), ("dport", ">u2"), ("seq", ">u4"), ("ack", ">u4"), ("offset", "u1"), ("flags", "u1")]
    header = np.zeros(len(columns["proto"]), np.dtype([*ethernet, *ip, *tcp, ("rest", f"{CAPTURED - 48}u1")]))
    for name in ("smac", "dmac"):
        header[name] = columns[name].astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    header["ethertype"], header["version"], header["ttl"], header["offset"] = 0x0800, 0x45, 64, 0x50
    for name in ("length", "proto", "src", "dst", "sport", "dport", "flags"):
        header[name] = columns[name]
    rows = header.view(np.uint8).reshape(len(header), -1)
    icmp, arp = columns["proto"] == ICMP, columns["proto"] == ARP
    rows[icmp, 34] = columns["op"][icmp]
    rows[arp, 12:14] = (0x08, 0x06)
    rows[arp, 14:] = 0
    rows[arp, 14:20] = (0, 1, 8, 0, 6, 4)
    rows[arp, 21], rows[arp, 22:28] = columns["op"][arp], rows[arp, 6:12]
    rows[arp, 28:32] = columns["src"][arp].astype(">u4").view(np.uint8).reshape(-1, 4)
    rows[arp, 38:42] = columns["dst"][arp].astype(">u4").view(np.uint8).reshape(-1, 4)
    return rows


def write_capture(path: Path, seed: int) -> int:
    """Write the network of ``seed`` to ``path`` as a pcap file; returns how many packets it has."""
    rng = np.random.default_rng(seed)
    traffic = Traffic()
    background(rng, traffic)
    assaults(rng, traffic)
    columns = traffic.columns()
    t_us, n = columns["t_us"], len(columns["t_us"])
    wire_len = columns["length"] + 14
    second, microsecond = np.divmod(t_us, 1_000_000)
    stamps = np.stack([EPOCH_S + second, microsecond, np.full(n, CAPTURED), np.maximum(wire_len, CAPTURED)], axis=1)
    records = np.concatenate([stamps.astype("<u4").view(np.uint8).reshape(n, 16), frames(columns)], axis=1)
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, CAPTURED, 1) + records.tobytes())
    return n


class Paced:
    """A capture file that is handed on in small pieces, ``speed`` times as fast as it was captured."""

    live = False

    def __init__(self, source: Any, speed: float) -> None:
        self.series = source.series
        self._source, self._speed = source, speed
        self._batch: PacketBatch | None = None
        self._row = 0
        self._began_s: float | None = None

    def read(self, timeout_s: float) -> PacketBatch | None:
        if self._batch is None or self._row >= len(self._batch):
            self._batch, self._row = self._source.read(timeout_s), 0
            if self._batch is None:
                return None
        piece = self._batch.rows(self._row, min(self._row + SLICE, len(self._batch)))
        self._row += SLICE
        if len(piece):
            self._wait(int(piece.ts_ns[-1]))
        return piece

    def progress(self) -> tuple[int, int]:
        done, total = self._source.progress()
        return done, total

    def close(self) -> None:
        self._source.close()

    def _wait(self, ts_ns: int) -> None:
        due_s = (ts_ns / 1e9 - EPOCH_S) / self._speed
        self._began_s = self._began_s or time.monotonic()
        time.sleep(max(0.0, self._began_s + due_s - time.monotonic()))


class Scoreboard:
    """Which attack was seen, and when."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[float, list[str]]] = {}
        self.false = 0
        self.reached_s = 0.0

    def step(
        self, window: Window, samples: Sequence[Sample], events: Sequence[Event], health: Mapping[str, Any]
    ) -> None:
        self.reached_s = window.end_ns / 1e9 - EPOCH_S
        for event in events:
            if isinstance(event, Alarm) and event.event_type != "cleared":
                self._note(event.time_ns / 1e9 - EPOCH_S, event.stat)

    def _note(self, at_s: float, stat: str) -> None:
        for attack in ATTACKS:
            begin_s = attack.minute * 60
            if begin_s < at_s <= begin_s + attack.seconds + 60:
                self.seen.setdefault(attack.name, (at_s - begin_s, []))[1].append(stat)
                return
        self.false += 1

    def text(self) -> str:
        lines = []
        for attack in ATTACKS:
            after_s, stats = self.seen.get(attack.name, (0.0, []))
            missed = "not seen" if self.reached_s > attack.minute * 60 else "not reached"
            seen = f"seen after {after_s:.0f} s by {', '.join(dict.fromkeys(stats))}" if stats else missed
            lines.append(f"  {attack.name:13} minute {attack.minute:2.0f}, {attack.seconds} s: {seen}")
        return "\n".join(["attacks that were in the capture:", *lines, f"alarms outside of them: {self.false}"])


def demo(seed: int, stay: bool, keep: str | None, options: Sequence[tuple[str, str]], speed: float = SPEED) -> int:
    """Make the network, watch it, say what was seen; returns the exit status."""
    from netspot.config import load
    from netspot.miner.capfile import CaptureFile
    from netspot.miner.decode import PRIVATE
    from netspot.page import Page
    from netspot.service import Service
    from netspot.web.listen import open_socket

    mqtt = [("exporter.mqtt.host", "127.0.0.1")] if answers(1883) else []
    own = [("node", "demo"), ("exporter.mqtt.homeassistant.discovery", "off"), *mqtt]
    config = load(None, overrides=[*own, *options])
    broker = config.exporter.mqtt.host
    if config.web.listen:
        open_socket(config.web.listen).close()  # a service that is there already is told before all the work
    page, board = Page(), Scoreboard()
    with tempfile.TemporaryDirectory(prefix="netspot-demo-") as folder:
        path = Path(keep) if keep else Path(folder) / "demo.pcap"
        try:
            count = write_capture(path, seed)
        except OSError as error:
            raise ConfigError(f"{f'--keep {keep}' if keep else folder}: {error.strerror}") from None
        _say(f"{counted(count, 'packet')} of {MINUTES} minutes, seed {seed}, at {speed:.0f} times real time")
        if broker:
            _say(f"messages go to the broker {broker}, below netspot/demo; what it retains is cleared at the end")
        if config.web.listen:
            _say(f"look at it on http://{config.web.listen}")
        service = Service(
            config, lambda _: Paced(CaptureFile(str(path), PRIVATE), speed), observers=lambda s: [board, *page(s)]
        )
        try:
            service.run()
            _say(board.text())
            if stay and not service.stopping:
                _say("the page stays until Ctrl-C")
                _until_interrupted()
        finally:
            page.close()
            if broker:
                from netspot.exporters.homeassistant import ha_remove

                with contextlib.suppress(NetspotError):
                    ha_remove(config)
    return 0


def answers(port: int) -> bool:
    """Whether something listens on this port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.3).close()
    except OSError:
        return False
    return True


def _until_interrupted() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
