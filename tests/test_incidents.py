"""Alarms that overlap are one incident with a title; rules mute what its owner knows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from netspot.analyzer import Analyzer, Names, Watch, rules
from netspot.analyzer.incidents import RING_BYTES, Incidents
from netspot.analyzer.mute import Rule
from netspot.analyzer.stats import STATS, Stat
from netspot.analyzer.titles import EXPLANATIONS, TOLD, Title, added
from netspot.errors import ConfigError
from netspot.events import Alarm, Event, Incident, Window
from netspot.miner.counters import COUNTERS, CounterBank
from netspot.miner.evidence import HeaderSample
from netspot.miner.windows import Windows
from netspot.packets import ACK, RST, SYN
from netspot.spot import Spot
from tests.frames import arp, batch, eth, icmp, ip4, ip6, tcp, udp

S = 10**9
T0 = 1_700_000_040 * S
ATTACKER, VICTIM, HOST = "203.0.113.9", "192.168.1.12", "192.168.1.15"
LEARN = 60
WATCHED = (
    "ARP_REPLY", "FANOUT_PORTS", "FANOUT_HOSTS", "SERVICE_CONNS", "UNANSWERED", "SYN_IN", "ICMP", "UDP_PORTS", "DNS",
    "DNS_CLIENT", "UPLOAD",
)  # fmt: skip

Frames = list[bytes]


def spot() -> Spot:
    return Spot(q=1e-3, n_init=LEARN - 5, level=0.9)


def web(second: int) -> Frames:
    """What a quiet home does in a second: a connection that is answered, and a name looked up."""
    port, server = 50_000 + second % 1000, f"198.51.100.{second % 7}"
    return [
        eth(ip4(udp(name("www.example.org"), sport=port, dport=53), src=HOST, dst="192.168.1.1")),
        eth(ip4(udp(sport=53, dport=port), src="192.168.1.1", dst=HOST)),
        eth(ip4(tcp(SYN, sport=port, dport=443), src=HOST, dst=server)),
        eth(ip4(tcp(SYN | ACK, sport=443, dport=port), src=server, dst=HOST)),
        eth(ip4(tcp(ACK, b"x" * 100, sport=port, dport=443), src=HOST, dst=server)),
    ]


def name(text: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in text.split("."))
    return bytes(12) + labels + b"\0\0\x01\0\x01"


def scan(second: int) -> Frames:
    ports = range(1000 + 40 * second, 1040 + 40 * second)
    return [eth(ip4(tcp(SYN, dport=p), src=ATTACKER, dst=VICTIM)) for p in ports] + [
        eth(ip4(tcp(RST | ACK, sport=p), src=VICTIM, dst=ATTACKER)) for p in ports
    ]


def persistent(second: int) -> Frames:
    """More than are kept, and each one twice."""
    return [eth(ip4(tcp(SYN, dport=1 + i % 900), src=ATTACKER, dst=VICTIM)) for i in range(1800)]


def scan6(second: int) -> Frames:
    return [eth(ip6(tcp(SYN, dport=p), src="2001:db8::9", dst="fd00::12")) for p in range(100, 140)]


def flood(second: int) -> Frames:
    return [eth(ip4(tcp(SYN, dport=80), src=f"203.{i % 7}.{i % 250}.{i // 250}", dst=VICTIM)) for i in range(2000)]


def sweep(second: int) -> Frames:
    return [eth(ip4(tcp(SYN, dport=445), src=HOST, dst=f"10.{second}.0.{i}")) for i in range(60)]


def guess(second: int) -> Frames:
    return [eth(ip4(tcp(SYN, sport=20_000 + i, dport=22), src=ATTACKER, dst=VICTIM)) for i in range(30)]


def claim(second: int) -> Frames:
    return [eth(arp(2, sender="192.168.1.1", sha="02:00:00:00:00:0f"), src="02:00:00:00:00:0f")] * 20


def ping(second: int) -> Frames:
    return [eth(ip4(icmp(8), src=ATTACKER, dst=VICTIM)), eth(ip4(icmp(0), src=VICTIM, dst=ATTACKER))] * 200


def pour(second: int) -> Frames:
    return [eth(ip4(udp(dport=2000 + i), src=ATTACKER, dst=VICTIM)) for i in range(400)]


def tunnel(second: int) -> Frames:
    long = f"{'a' * 50}{second}.t.evil.example"
    return [eth(ip4(udp(name(long), sport=i, dport=53), src=HOST, dst="192.168.1.1")) for i in range(30)]


def amplify(second: int) -> Frames:
    answers = ((f"203.0.113.{i % 60}", 3000 + i) for i in range(400))
    return [eth(ip4(udp(b"x" * 400, sport=53, dport=port), src=src, dst=VICTIM)) for src, port in answers]


def upload(second: int) -> Frames:
    return [eth(ip4(tcp(ACK, b"x" * 1400, dport=443), src=HOST, dst=ATTACKER))] * 400


class Home:
    """The pipeline from packets to events, a second at a time."""

    def __init__(self, **options: object) -> None:
        watches = [Watch(stat, STATS[stat], 1, spot()) for stat in WATCHED]
        needs = {need for stat in WATCHED for need in STATS[stat].needs if need in COUNTERS}
        self.analyzer = Analyzer(watches, "pi", **options)  # type: ignore[arg-type]
        bank = CounterBank([COUNTERS[need] for need in (*needs, "PKTS")], None, HeaderSample())
        self.windows = Windows(bank, S, T0)
        self.second = 0
        self.live(LEARN)

    def live(self, seconds: int, *more: Callable[[int], Frames]) -> list[Event]:
        events: list[Event] = []
        for _ in range(seconds):
            frames = web(self.second) + [frame for kind in more for frame in kind(self.second)]
            start = T0 + self.second * S
            times = [start + S * i // len(frames) for i in range(len(frames))]
            self.second += 1
            for closed in self.windows.push(batch(frames, times, until_ns=start + S)):
                for window in closed:
                    events += self.analyzer.step(window)[1]
        return events


def incidents(events: list[Event]) -> list[Incident]:
    return [event for event in events if isinstance(event, Incident)]


@pytest.mark.parametrize(
    ("attack", "title"),
    [
        (scan, f"port scan from {ATTACKER}: 40 ports on {VICTIM}"),
        (persistent, f"port scan from {ATTACKER}: 900 ports on {VICTIM}"),
        (scan6, "port scan from 2001:db8::9: 40 ports on fd00::12"),
        (flood, f"SYN flood on {VICTIM}:80 from "),
        (sweep, f"sweep from {HOST}: 61 hosts on port 445"),
        (guess, f"30 connections from {ATTACKER} to {VICTIM}:22, perhaps guessing passwords"),
        (claim, "ARP replies from 02:00:00:00:00:0f claim 192.168.1.1"),
        (ping, f"ICMP flood on {VICTIM} from {ATTACKER}: 200 packets/s"),
        (pour, f"UDP flood on {VICTIM} from {ATTACKER}: 400 ports"),
        (tunnel, f"31 DNS queries/s from {HOST}, most for evil.example, perhaps a tunnel"),
        (amplify, f"DNS amplification on {VICTIM}: answers of 60 servers"),
        (upload, f"large upload from {HOST} to {ATTACKER}: 576 kB/s"),
    ],
)
def test_titles(attack: Callable[[int], Frames], title: str) -> None:
    home = Home()
    assert home.live(20) == []
    opened = incidents(home.live(1, attack))
    assert [incident.event_type for incident in opened] == ["opened"]
    assert opened[0].title.startswith(title)


def test_an_incident_from_its_opening_to_its_end() -> None:
    home = Home(capture=True)
    home.live(20)
    events = home.live(12, scan) + home.live(6, flood) + home.live(60)
    told = incidents(events)
    alarms = [event for event in events if isinstance(event, Alarm)]
    kinds = [incident.event_type for incident in told]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("opened", "closed", {"updated"})
    assert all(later.time_ns - earlier.time_ns >= 10 * S for earlier, later in pairwise(told[:-1]))
    assert len({incident.id for incident in told} | {alarm.id for alarm in alarms}) == 1
    assert [event.seq for event in events] == list(range(1, len(events) + 1))  # type: ignore[union-attr]
    assert told[-1].start_ns == T0 + 80 * S and told[-1].end_ns is not None
    assert told[-1].end_ns < told[-1].time_ns
    assert told[0].end_ns is None and told[0].capture == f"/api/incidents/{told[0].id}.pcap"
    assert set(told[-1].stats) == {alarm.stat for alarm in alarms}
    assert told[0].peak["probability"] <= min(a.probability for a in alarms if a.time_ns == told[0].time_ns)
    assert home.analyzer.incidents.id == ""


def test_what_comes_back_soon_is_the_same_incident() -> None:
    home = Home()
    home.live(20)
    events = home.live(2, scan) + home.live(25) + home.live(2, scan) + home.live(60)
    kinds = [incident.event_type for incident in incidents(events)]
    assert kinds.count("opened") == 1 and kinds.count("closed") == 1
    assert [a.event_type for a in events if isinstance(a, Alarm) and a.stat == "FANOUT_PORTS"] == ["up", "cleared"] * 2


@pytest.mark.parametrize(
    ("first", "second", "parts"),
    [
        (upload, claim, ("ARP replies from", "large upload from")),
        (upload, tunnel, ("31 DNS queries/s from", "large upload from")),  # the same host, and more is known of it
        (upload, flood, ("SYN flood on", "large upload from")),
        (scan, claim, ("ARP replies from", "port scan from")),
        (claim, scan, ("ARP replies from", "port scan from")),
        (scan, sweep, ("port scan from", "sweep from")),
        (pour, ping, ("ICMP flood on",)),  # between the same two
    ],
)
def test_an_attack_within_another_is_told(
    first: Callable[[int], Frames], second: Callable[[int], Frames], parts: tuple[str, ...]
) -> None:
    """Neither the larger nor the earlier one hides the other."""
    home = Home()
    home.live(20)
    events = home.live(15, first) + home.live(15, first, second)
    told = incidents(events)
    assert len({incident.id for incident in told}) == 1
    found = told[-1].title.split("; ")
    assert len(found) == len(parts) and all(each.startswith(part) for each, part in zip(found, parts, strict=True))
    assert told[-1].event_type == "updated"


def test_what_is_told_when_more_is_found() -> None:
    def found(kind: int, weight: float, *parties: int) -> Title:
        return Title(f"{kind} {weight} {parties}", (), frozenset(parties), weight, kind)

    general = len(EXPLANATIONS) - 1
    scan, carried = found(1, 10, 1, 2), found(6, 50, 1, 2)
    assert added([], carried) == [carried]
    assert added([carried], scan) == [scan] == added([scan], carried)  # of the same two: what tells most
    assert added([carried], found(1, 10, 3)) == [carried, found(1, 10, 3)]
    assert added([carried], found(4, 10, 1)) == [carried, found(4, 10, 1)]  # of one of the two: not all was said
    assert added([scan], found(1, 5, 1)) == [scan] and added([scan], found(1, 15, 1)) == [found(1, 15, 1)]
    vague = found(general, 99, 7, 8)
    assert added([vague], scan) == [scan] == added([scan], vague)  # what anything moves
    assert added([vague], found(general, 100, 9)) == [found(general, 100, 9)]
    many = [found(1, 1, i) for i in range(TOLD)]
    assert added(many, found(1, 1, 99)) == [*many[1:], found(1, 1, 99)]


def test_an_incident_is_updated_though_the_clock_was_set_back() -> None:
    watches = [
        Watch(name, Stat(name, "1", "a number", ("X",), compute), 1, Spot(q=1e-3, n_init=30, level=0.9))
        for name, compute in (("X", lambda count: count), ("Y", lambda count: max(count, 100.0)))
    ]
    for i in range(60):
        for watch in watches:
            watch.step(counted(i - 60, 1.0 + i % 7))
    analyzer = Analyzer(watches, "pi")
    events = [event for second in range(1, 4) for event in analyzer.step(counted(second, 90.0))[1]]
    events += [event for second in range(-500, -480) for event in analyzer.step(counted(second, 900.0))[1]]
    assert [(told.event_type, told.stats) for told in incidents(events)] == [
        ("opened", ("X",)),
        ("updated", ("X", "Y")),
    ]
    (closed, *_) = reversed(incidents(analyzer.close(T0 - 400 * S)))
    assert closed.end_ns == closed.start_ns  # not before it


def counted(second: int, value: float, span: int = 1) -> Window:
    return Window(T0 + (second - span) * S, T0 + second * S, {"X": value}, 0, float(span), span)


@pytest.mark.parametrize(
    ("end", "again", "opened"),
    [
        (65, None, 1),  # what the minute says of it comes 55 s after it ended
        (115, None, 1),  # when it is not over yet
        (75, 116, 2),  # later than 30 s after it, and of another second
        (75, 105, 1),
    ],
)
def test_a_longer_span_that_reaches_back_into_an_incident_is_part_of_it(
    end: int, again: int | None, opened: int
) -> None:
    stat = Stat("X", "1", "a number", ("X",), lambda count: count, least=10)
    short = Watch("X", stat, 1, Spot(q=1e-3, n_init=30, level=0.9), clear_after=5)
    minute = Watch("X@60", stat, 60, Spot(q=1e-3, n_init=10, level=0.7), clear_after=1)
    for i in range(60):
        minute.step(counted(60 * (i - 60), 60.0, 60))  # T0 is the begin of a minute
        short.step(counted(i - 60, 1.0))
    analyzer = Analyzer([short, minute], "pi")
    events: list[Event] = []
    for second in range(1, 300):
        value = 50.0 if end - 5 < second <= end or second == again else 1.0
        events += analyzer.step(counted(second, value))[1]
        if second % 60 == 0:
            busy = second - 60 < end <= second
            events += analyzer.step(counted(second, 300.0 if busy else 60.0, 60))[1]
    told = incidents(events)
    ends = [incident.event_type for incident in told if incident.event_type != "updated"]
    assert ends == ["opened", "closed"] * opened
    alarms = [event for event in events if isinstance(event, Alarm) and event.event_type == "up"]
    assert {alarm.stat for alarm in alarms} == {"X", "X@60"}
    assert {alarm.id for alarm in alarms} == {incident.id for incident in told}
    assert all(incident.end_ns < incident.time_ns for incident in told if incident.end_ns is not None)


def test_evidence_stands_beside_the_usual() -> None:
    home = Home()
    home.live(20)
    incident = incidents(home.live(1, pour))[0]
    assert incident.evidence["top_src"][0] == [ATTACKER, pytest.approx(400 / 405, abs=1e-3)]
    assert incident.evidence["top_protocol"][0][0] == "udp"
    assert incident.evidence["usual"]["top_src"][0][0] == HOST


@pytest.mark.parametrize(("mode", "source"), [("shortened", "203.0.113.0/24"), ("hashed", "2")])
def test_addresses_are_told_as_wanted(mode: str, source: str) -> None:
    home = Home(names=Names(mode))
    home.live(20)
    incident = incidents(home.live(1, scan))[0]
    assert ATTACKER not in str(incident) and VICTIM not in str(incident)
    assert incident.title.startswith(f"port scan from {source}")


def test_hashes_are_addresses_that_say_nothing() -> None:
    names = Names("hashed")
    assert names.address("192.168.1.1") == names.address("192.168.1.1") != Names("hashed").address("192.168.1.1")
    assert names.address("192.168.1.1").split(".")[0] in {str(i) for i in range(240, 256)}
    assert names.address("2001:db8::1").startswith("fd00::") and names.mac(1).startswith("02:")


@pytest.mark.parametrize(
    ("rule", "muted"),
    [
        ({"stat": "FANOUT_PORTS"}, {"FANOUT_PORTS"}),
        ({"source": "203.0.113.0/24"}, None),
        ({"source": "10.0.0.0/8"}, set()),
        ({"stat": "FANOUT_PORTS@10"}, set()),
        ({"stat": "FANOUT_PORTS", "until": "2000-01-01"}, set()),
        ({"stat": "FANOUT_PORTS", "until": "2100-01-01T10:00"}, {"FANOUT_PORTS"}),
    ],
)
def test_rules_mute(rule: dict[str, str], muted: set[str] | None) -> None:
    home = Home(mute=rules([rule]))
    home.live(20)
    events = home.live(1, scan)
    up = [event for event in events if isinstance(event, Alarm)]
    assert {alarm.stat for alarm in up if alarm.muted} == ({alarm.stat for alarm in up} if muted is None else muted)
    assert (incidents(events) == []) == (muted is None)
    assert home.analyzer.alarms == len(up)


def test_a_rule_about_a_source_stays_for_the_whole_alarm() -> None:
    home = Home(mute=rules([{"source": "203.0.113.0/24", "until": "2023-11-14T22:15:50Z"}]))  # second 110
    home.live(20)
    events = home.live(29, scan)
    assert {e.muted for e in events if isinstance(e, Alarm)} == {True} and incidents(events) == []
    events = home.live(5, scan)
    assert {(e.event_type, e.muted) for e in events if isinstance(e, Alarm)} == {("up", False)}
    assert [e.title for e in incidents(events)] == [f"port scan from {ATTACKER}: 40 ports on {VICTIM}"]


def test_rules_know_the_time_of_day() -> None:
    from datetime import datetime

    def at(text: str) -> int:
        return int(datetime.fromisoformat(f"2026-11-24T{text}").timestamp() * 1e9)

    night = rules([{"stat": "X", "between": "22:00-06:00"}])[0]
    assert [night.holds("X@10", at(t)) for t in ("21:59", "22:00", "05:59", "06:00")] == [False, True, True, False]
    day = rules([{"between": "8:00-17:30"}])[0]
    assert [day.holds("Y", at(t)) for t in ("07:59", "08:00", "17:29", "17:30")] == [False, True, True, False]
    assert Rule().blames([]) and not rules([{"source": "fd00::/8"}])[0].blames([])
    with pytest.raises(ConfigError, match="mute"):
        rules([{"until": "soon"}])


def test_memory_of_headers_is_bounded_and_reaches_a_minute_back() -> None:
    tracker = Incidents("pi")
    sample = HeaderSample()
    for i in range(100):
        sample.add(batch([eth(ip4(tcp(), dst=f"10.0.{k % 250}.1")) for k in range(500)]))
        tracker.see(Window(T0 + i * S, T0 + (i + 1) * S, {}, 0, 1.0, 1, {"headers": sample.close()}))
    assert sum(headers.nbytes for headers in tracker._ring) == tracker._ring_bytes <= RING_BYTES
    assert [int(headers.weight.sum()) for headers in tracker._ring] == pytest.approx([500] * 60, abs=25)  # only thinner
    assert len(tracker._ring[-1].weight) == 500 > len(tracker._ring[0].weight) > 100
