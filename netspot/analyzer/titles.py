"""What happened, in a line that a person understands, from the packets of the windows that alarmed.

Which statistics left their range says where to look, the packets say what it was. Nothing is claimed that they do not
show: where no explanation fits, the line names the statistic and its value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from netspot.analyzer.evidence import Names, Rows, Seen, shares
from netspot.packets import ACK, SYN
from netspot.record import Record, replace

MOST = 0.5  # share from which on somebody stands for the whole
MANY = 6  # distinct ports, hosts or sources from which on they are many
CROWD = 20  # distinct sources that nobody calls one attacker
LOGIN_PORTS = frozenset({21, 22, 23, 25, 110, 143, 389, 445, 993, 995, 1433, 3306, 3389, 5432, 5900})
REFLECTORS = {19: "chargen", 53: "DNS", 123: "NTP", 161: "SNMP", 389: "LDAP", 1900: "SSDP", 11211: "memcached"}
TOLD = 5  # explanations of one incident, the newest
LONG_NAME = 40  # characters of a DNS name: longer ones carry data


class Title(Record):
    text: str
    who: tuple[int, ...] = ()  # keys of the sources that it blames
    parties: frozenset[int] = frozenset()  # those, and of whom it was done to
    weight: float = 0.0  # packets that bear it out
    kind: int = 0  # place of its explanation: an earlier one tells more


class Case(Record):
    """What is known of an incident when it wants a title."""

    about: Collection[str]  # statistics, by name without span, that want an explanation
    values: Mapping[str, float]  # greatest value of each one outside of its range
    culprits: Mapping[str, int]  # by counter: the key that made its value
    seen: Seen
    names: Names
    seconds: float  # time that ``seen`` covers

    def name(self, key: int) -> str:
        return self.names.address(self.seen.address(key))

    def distinct(self, keys: NDArray[np.unsignedinteger], rows: Rows, counted: int = 0) -> int:
        """Distinct keys among the rows: at least those that are there, and ``counted`` where a counter knows.

        Where only every k-th packet was kept there are about k times as many; more than that if they come repeatedly.
        """
        found, counts = np.unique(keys[rows], return_counts=True)
        once = counts == 1
        scale = float(self.seen.weight[rows].mean()) if not counted and len(rows) and once.mean() > MOST else 1.0
        return max(counted, round(len(found) * scale))

    def counted(self, counter: str, source: int) -> int:
        """What a fan-out counter says, if it is about ``source``; else 0."""
        return int(self.values.get(counter, 0.0)) if self.culprits.get(counter) == source else 0

    def leader(self, keys: NDArray[np.unsignedinteger], rows: Rows) -> int | None:
        """The key that most of the rows' packets have."""
        top = shares(keys[rows], self.seen.weight[rows], 1)
        return top[0][0] if top and top[0][1] >= MOST else None

    def rate(self, rows: Rows) -> str:
        return f"{number(float(self.seen.weight[rows].sum()) / max(self.seconds, 1e-9))} packets/s"

    def parties(self, keys: NDArray[np.unsignedinteger], rows: Rows, plural: str) -> str:
        leader = self.leader(keys, rows)
        return self.name(leader) if leader is not None else f"{self.distinct(keys, rows):,} {plural}"


def title(case: Case) -> Title | None:
    """The first explanation that the packets bear out."""
    for kind, (stats, explain) in enumerate(EXPLANATIONS):
        if any(stat in case.about for stat in stats) and (found := explain(case)) is not None:
            return replace(found, kind=kind)
    return None


def added(told: Sequence[Title], found: Title) -> list[Title]:
    """What is told when ``found`` comes to it: of the same parties only what tells most, and what others do as well."""
    general = len(EXPLANATIONS) - 1
    for i, each in enumerate(told):
        if each.kind <= found.kind and (found.kind == general or each.parties & found.parties):
            better = each.kind == found.kind and each.weight < found.weight
            return [*told[:i], found if better else each, *told[i + 1 :]]
    less = [each for each in told if each.kind > found.kind and (each.kind == general or each.parties <= found.parties)]
    return [*(each for each in told if each not in less), found][-TOLD:]


def _found(case: Case, rows: Rows, text: str, source: int | None, *others: int | None) -> Title:
    parties = frozenset(key for key in (source, *others) if key is not None)
    return Title(text, () if source is None else (source,), parties, float(case.seen.weight[rows].sum()))


def claimed(case: Case) -> Title | None:
    """Many ARP replies that claim one address for one machine."""
    p = case.seen.packets
    rows = np.flatnonzero(p.is_arp & (p.arp_op == 2))
    mac, address = case.leader(p.src_mac, rows), case.leader(p.arp_ip, rows)
    if mac is None or address is None:
        return None
    return _found(case, rows, f"ARP replies from {case.names.mac(mac)} claim {case.name(address)}", address)


def connections(case: Case) -> Title | None:
    """TCP connections begun: a scan, a sweep, a flood, or many with one service."""
    rows = _suspicious(case)
    if not len(rows):
        return None
    p = case.seen.packets
    source, target, port = case.leader(p.src_key, rows), case.leader(p.dst_key, rows), case.leader(p.dst_port, rows)
    if source is None:
        sources = case.distinct(p.src_key, rows)
        if target is None or sources < CROWD:
            return None
        on = f"{case.name(target)}:{port}" if port is not None else case.name(target)
        return _found(case, rows, f"SYN flood on {on} from {sources:,} sources", None, target)
    ports = case.distinct(p.dst_port, rows, case.counted("FANOUT_PORTS", source))
    hosts = case.distinct(p.dst_key, rows, case.counted("FANOUT_HOSTS", source))
    by = case.name(source)
    if ports >= MANY and port is None:
        on = case.name(target) if target is not None else f"{hosts:,} hosts"
        return _found(case, rows, f"port scan from {by}: {ports:,} ports on {on}", source, target)
    if hosts >= MANY and target is None:
        on = f" on port {port}" if port is not None else ""
        return _found(case, rows, f"sweep from {by}: {hosts:,} hosts{on}", source)
    if target is None or port is None:
        return None
    mine = (p.src_key[rows] == np.uint64(source)) & (p.dst_key[rows] == np.uint64(target)) & (p.dst_port[rows] == port)
    rows = rows[mine]
    begun = float(case.seen.weight[rows].sum())
    count = max(count for count in (begun, case.values.get("SERVICE_CONNS", 0.0)) if count <= 2 * begun)
    guess = ", perhaps guessing passwords" if port in LOGIN_PORTS else ""
    return _found(
        case, rows, f"{count:,.0f} connections from {by} to {case.name(target)}:{port}{guess}", source, target
    )


def _suspicious(case: Case) -> Rows:
    """Rows that begin a connection, of those that the statistics are about."""
    p = case.seen.packets
    begun = p.tcp_flags & (SYN | ACK) == SYN
    for counter, items in (("FANOUT_PORTS", p.dst_port), ("FANOUT_HOSTS", p.dst_key)):
        if counter in case.about and counter in case.culprits:
            rows = np.flatnonzero(begun & (p.src_key == np.uint64(case.culprits[counter])))
            if case.distinct(items, rows) >= MANY:  # in a flood it is an estimate, which may take one for many
                return rows
    if "SYN_IN" in case.about:
        begun &= p.dst_home & ~p.src_home
    elif "UNANSWERED" in case.about:
        answered = p.tcp_flags & (SYN | ACK) == SYN | ACK
        asked = _flow(p.src_key, p.dst_key, p.src_port, p.dst_port)
        begun &= ~np.isin(asked, _flow(p.dst_key, p.src_key, p.dst_port, p.src_port)[answered])
    elif "SERVICE_CONNS" in case.about:
        services = p.dst_key * np.uint64(65_599) + p.dst_port
        top = shares(services[begun], case.seen.weight[begun], 1)
        begun &= services == np.uint64(top[0][0] if top else 0)
    return np.flatnonzero(begun)


def _flow(
    one: NDArray[np.uint64], other: NDArray[np.uint64], port: NDArray[np.uint16], other_port: NDArray[np.uint16]
) -> NDArray[np.uint64]:
    """A number that is the same for the same flow, and hardly ever for another."""
    mixed = one * np.uint64(0x9E3779B97F4A7C15) ^ other * np.uint64(0xC2B2AE3D27D4EB4F)
    return mixed * np.uint64(31) + (port.astype(np.uint64) << np.uint64(16) | other_port)


def echoed(case: Case) -> Title | None:
    """ICMP: who asks, if there is a question, else who sends."""
    p = case.seen.packets
    icmp = p.is_icmp | p.is_icmp6
    asks = np.flatnonzero((p.is_icmp & (p.icmp_type == 8)) | (p.is_icmp6 & (p.icmp_type == 128)))
    rows = asks if 3 * len(asks) >= np.count_nonzero(icmp) else np.flatnonzero(icmp)
    target = case.leader(p.dst_key, rows)
    if target is None:
        return None
    source = case.leader(p.src_key, rows)
    by = case.parties(p.src_key, rows, "sources")
    return _found(case, rows, f"ICMP flood on {case.name(target)} from {by}: {case.rate(rows)}", source, target)


def asked(case: Case) -> Title | None:
    """DNS queries of one client, and for which domain."""
    p = case.seen.packets
    queries = p.is_udp & (p.dst_port == 53)
    key = case.culprits.get("DNS_CLIENT")
    rows = np.flatnonzero(queries & (p.src_key == np.uint64(key)) if key else queries)
    client = case.leader(p.src_key, rows)
    if client is None:
        return None
    names = case.seen.query_names(rows[:256])
    domains = [".".join(name.split(".")[-2:]) for name in names if name]
    most = max(set(domains), key=domains.count, default="")
    text = f"{case.rate(rows).replace('packets', 'DNS queries')} from {case.name(client)}"
    if most and domains.count(most) >= MOST * len(domains):
        text += f", most for {''.join(c for c in most if c.isprintable())[:60]}"
    long = sum(len(name) >= LONG_NAME for name in names)
    return _found(case, rows, text + (", perhaps a tunnel" if long >= MOST * max(len(names), 1) else ""), client)


def reflected(case: Case) -> Title | None:
    """Answers of many servers to a question that the target never asked."""
    p = case.seen.packets
    known = np.isin(p.src_port, list(REFLECTORS))
    rows = np.flatnonzero(p.is_udp & known & ~np.isin(p.dst_port, list(REFLECTORS)))
    target, port = case.leader(p.dst_key, rows), case.leader(p.src_port, rows)
    if target is None or port is None:
        return None
    rows = rows[p.dst_key[rows] == np.uint64(target)]
    servers = case.distinct(p.src_key, rows)
    if servers < MANY:
        return None
    text = f"{REFLECTORS[port]} amplification on {case.name(target)}: answers of {servers:,} servers"
    return _found(case, rows, text, None, target)


def poured(case: Case) -> Title | None:
    """UDP from somebody to somebody, with a share that stands out."""
    p = case.seen.packets
    rows = np.flatnonzero(p.is_udp)
    target = case.leader(p.dst_key, rows)
    if target is None:
        return None
    toward = rows[p.dst_key[rows] == np.uint64(target)]
    source, ports = case.leader(p.src_key, toward), case.distinct(p.dst_port, toward)
    by = case.parties(p.src_key, toward, "sources")
    what = f"{ports:,} ports" if ports >= MANY else case.rate(toward)
    return _found(case, toward, f"UDP flood on {case.name(target)} from {by}: {what}", source, target)


def carried(case: Case) -> Title | None:
    """The pair of hosts that moves most of the bytes."""
    p = case.seen.packets
    rows = np.flatnonzero(p.has_addr)
    volume = case.seen.weight[rows] * p.ip_len[rows]
    pairs = _flow(p.src_key, p.dst_key, p.src_port * np.uint16(0), p.dst_port * np.uint16(0))[rows]
    if "UPLOAD" in case.about or "UP_BYTES" in case.about:
        volume = volume * (p.src_home & ~p.dst_home)[rows]
    top = shares(pairs, volume, 1)
    if not top or top[0][1] < MOST / 2 or not volume.sum():
        return None
    mine = rows[pairs == np.uint64(top[0][0])]
    first = mine[0]
    bytes_s = float((case.seen.weight[mine] * p.ip_len[mine]).sum()) / max(case.seconds, 1e-9)
    way = "upload" if p.src_home[first] and not p.dst_home[first] else "transfer"
    source, target = int(p.src_key[first]), int(p.dst_key[first])
    text = f"large {way} from {case.name(source)} to {case.name(target)}: {number(bytes_s / 1e3)} kB/s"
    return _found(case, mine, text, source, target)


def number(value: float) -> str:
    """Three digits that count, no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


EXPLANATIONS: tuple[tuple[tuple[str, ...], Callable[[Case], Title | None]], ...] = (
    (("ARP_REPLY",), claimed),
    (("FANOUT_PORTS", "FANOUT_HOSTS", "SYN_IN", "UNANSWERED", "SERVICE_CONNS", "SYN_ONLY", "RST"), connections),
    (("ICMP",), echoed),
    (("DNS", "UDP_PORTS", "SOURCES", "UDP"), reflected),
    (("DNS_CLIENT", "DNS"), asked),
    (("UDP_PORTS", "UDP"), poured),
    (("UPLOAD", "UP_BYTES", "DOWN_BYTES"), carried),
    (("AVG_PKT_SIZE", "BYTES", "PACKETS"), carried),  # anything moves these: told as long as nothing else is
)
