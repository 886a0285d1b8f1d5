"""Headers -> columns, on packets whose every byte is shown."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest

from netspot.errors import SourceError
from netspot.miner.decode import HomeNets
from netspot.packets import ACK, COLUMNS, FIN, SYN
from netspot.record import replace
from tests import frames as f

TCP = f.tcp(SYN | ACK, sport=1234, dport=80)


def row(frame: bytes, link_type: int = 1, **options: object) -> dict[str, int]:
    batch = f.batch([frame], link_type=link_type, **options)  # type: ignore[arg-type]
    return {name: int(getattr(batch, name)[0]) for name in COLUMNS}


def wifi(payload: bytes, control: str = "0802", extra: bytes = b"", qos: bytes = b"") -> bytes:
    """A data frame from an access point; ``control`` are its first two bytes."""
    head = bytes.fromhex(control) + b"\0\0" + f.mac(f.PEER) + b"\2\0\0\0\0\x0a" + f.mac(f.HOST) + b"\x10\0"
    return head + extra + qos + b"\xaa\xaa\3\0\0\0" + f.announced(payload, None).to_bytes(2, "big") + payload


IP = f.ip4(TCP)
NFLOG = bytes.fromhex("02000000 0800010000000000 0500 0a0061000000".replace(" ", ""))
PPP_LCP = b"\xc0\x21\x01"
LINKS = [
    (1, f.eth(IP)),
    (1, f.eth(f.vlan(IP))),
    (1, f.eth(f.vlan(f.vlan(IP, 7), tpid=0x88A8))),
    (1, f.eth(f.vlan(f.vlan(f.vlan(IP)), tpid=0x9100))),
    (1, f.eth(f.mpls(IP))),
    (1, f.eth(f.vlan(f.mpls(IP, [1, 2, 3, 4])))),
    (1, f.eth(f.pppoe(IP))),
    (1, f.eth(f.vlan(f.pppoe(f.mpls(IP))))),
    (1, f.eth(b"\x11\0\0\1\0\x40\x21" + IP, ethertype=0x8864)),  # PPP's protocol in one byte
    (1, f.eth(f.snap(IP))),
    (1, f.eth(b"\x06\x06\x03" + IP, ethertype=100)),
    (1, f.eth(b"\0\1\0\2\x08\0" + IP, ethertype=0x892F)),
    (1, f.eth(b"\0\1\0\2\0\0\x08\0" + IP, ethertype=0x893F)),
    (0, b"\2\0\0\0" + IP),
    (0, b"\0\0\0\2" + IP),
    (108, b"\0\0\0\2" + IP),
    (9, b"\xff\3\0\x21" + IP),
    (9, b"\0\x21" + IP),
    (9, b"\x21" + IP),
    (9, b"\x0f\0\x08\0" + IP),
    (50, b"\xff\3\x21" + IP),
    (51, f.pppoe(IP)),
    (104, b"\x8f\0\x08\0" + IP),
    (12, IP),
    (14, IP),
    (101, IP),
    (228, IP),
    (113, f.sll(IP)),
    (276, f.sll2(IP)),
    (113, f.sll(f.snap(IP), protocol=4)),
    (105, wifi(IP)),
    (105, wifi(IP, "0803", extra=b"\2\0\0\0\0\1")),  # between access points: four addresses
    (105, wifi(IP, "8802", qos=b"\0\0")),
    (105, wifi(IP, "8882", qos=b"\0\0" + bytes(4))),  # with HT control
    (105, wifi(IP, "8802", qos=b"\x80\0" + bytes(14))),  # the first subframe of an A-MSDU
    (127, bytes.fromhex("0000080000000000") + wifi(IP)),
    (127, bytes.fromhex("0000120003000080010000000000000000000000")[:18] + wifi(IP)),  # two words of presence
    (127, bytes.fromhex("000009000200000020") + wifi(IP, "8802", qos=b"\0\0" + b"\0\0")),  # padded to four bytes
    (127, bytes.fromhex("0000110003000000000000000000000020") + wifi(IP, "8802", qos=b"\0\0" + b"\0\0")),
    (192, bytes.fromhex("0000080001000000") + f.eth(f.vlan(IP))),
    (192, bytes.fromhex("00000c006900000000000000") + wifi(IP)),
    (192, bytes.fromhex("00000800e4000000") + IP),
    (219, f.mpls(IP, [9, 8])),
    (239, NFLOG + b"\x2c\0\x09\0" + IP),
    (239, bytes.fromhex("02000000 00080001 00000000".replace(" ", "")) + b"\0\x2c\0\x09" + IP),
]


@pytest.mark.parametrize(("link_type", "frame"), LINKS)
def test_every_link_leads_to_the_same_packet(link_type: int, frame: bytes) -> None:
    found = row(frame, link_type)
    assert (found["ethertype"], found["is_ipv4"], found["is_tcp"], found["ip_len"]) == (0x0800, 1, 1, len(IP))
    assert (found["src_key"], found["dst_key"]) == (0xC0A80101, 0xC0A80102)
    assert (found["src_port"], found["dst_port"], found["tcp_flags"]) == (1234, 80, SYN | ACK)
    cut = len(frame) - len(IP)  # nothing of the network header is there, then a byte of the link header is missing
    assert not row(frame[:cut], link_type)["has_addr"]
    assert not cut or not row(frame[: cut - 1], link_type)["ip_version"]


@pytest.mark.parametrize(("link_type", "frame"), [
    (0, b"\x1e\0\0\0" + f.ip6(TCP)), (0, b"\0\0\0\x18" + f.ip6(TCP)), (9, b"\0\x57" + f.ip6(TCP)), (101, f.ip6(TCP)),
    (229, f.ip6(TCP)), (239, b"\x0a" + NFLOG[1:] + b"\x40\0\x09\0" + f.ip6(TCP)), (113, f.sll(f.ip6(TCP))),
])  # fmt: skip
def test_ipv6_on_other_links(link_type: int, frame: bytes) -> None:
    found = row(frame, link_type)
    assert (found["ip_version"], found["ip_len"], found["dst_port"]) == (6, 60, 80)


@pytest.mark.parametrize(("link_type", "frame"), [
    (105, wifi(IP, "0842")),  # encrypted
    (105, wifi(IP, "4802")),  # a type without a body
    (105, wifi(IP)[:22] + b"\x11" + wifi(IP)[23:]),  # a later fragment
    (113, f.sll(IP, arphrd=824)),  # netlink
    (113, f.sll(IP, protocol=0x0C)),
    (9, PPP_LCP + IP),
    (1, f.eth(f.mpls(b"\0" + IP))),  # a pseudowire
    (1, f.eth(b"\xaa\xaa\3\0\0\x0c\x08\0" + IP, ethertype=100)),  # another organisation's numbers
    (1, f.eth(f.vlan(b"")[:-2] + b"\x81\0", ethertype=0x8100)),
    (1, f.mac(f.PEER) + f.mac(f.HOST) + b"\x81\0\0\1" * 40 + b"\x08\0" + IP),  # tags without end
    (192, bytes.fromhex("00000800c0000000") * 30),  # PPI in PPI
    (239, NFLOG + b"\0\0\0\0" * 30),
])  # fmt: skip
def test_no_network_header(link_type: int, frame: bytes) -> None:
    assert not row(frame, link_type)["ip_version"]


def test_unknown_link_type() -> None:
    with pytest.raises(SourceError, match=r"link type 147 \(unknown\) is not decoded; known are NULL 0, Ethernet 1"):
        f.batch([b""], link_type=147)


# ---- network and transport -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [
    f.ip6(f.ext6(TCP)), f.ip6(f.ext6(f.ext6(TCP, 43, 3), 0, 1)), f.ip6(f.ext6(f.ext6(TCP, 60), 43)), f.ip6(f.ah(TCP)),
    f.ip6(f.ext6(f.ah(f.ext6(TCP, 60)))), f.ip6(f.frag6(TCP)), f.ip4(f.ah(TCP)), f.ip4(TCP, options=bytes(40)),
    f.ip4(TCP, more=True), f.ip6(f.ext6(f.ext6(f.ext6(f.ext6(f.ext6(f.ext6(f.ext6(f.ext6(TCP))))))))),
])  # fmt: skip
def test_headers_between_network_and_transport(packet: bytes) -> None:
    found = row(f.eth(packet))
    assert (found["is_tcp"], found["ip_proto"], found["dst_port"], found["tcp_flags"]) == (1, 6, 80, SYN | ACK)
    assert found["ip_len"] == len(packet)


@pytest.mark.parametrize("packet", [
    f.ip4(TCP, frag=7), f.ip6(f.frag6(TCP, offset=7)), f.ip6(TCP, proto=59), f.ip6(f.ext6(TCP)[:7], proto=0),
    f.ip6(f.ext6(TCP, 50)), f.ip4(TCP, total=19), f.ip4(TCP, proto=41), b"\x44" + f.ip4(TCP)[1:],
    b"\x65" + f.ip4(TCP)[1:], b"\x46" + f.ip4(b"")[1:20],
])  # fmt: skip
def test_no_transport_header(packet: bytes) -> None:
    ethertype = 0x0800 if packet[0] != 0x60 else 0x86DD
    found = row(f.eth(packet, ethertype=ethertype))
    assert found["ip_version"] in (4, 6)
    assert (found["is_tcp"], found["has_ports"], found["src_port"], found["tcp_flags"]) == (0, 0, 0, 0)


@pytest.mark.parametrize(("packet", "fragment"), [
    (f.ip4(TCP), 0), (f.ip4(TCP, more=True), 1), (f.ip4(TCP, frag=1), 1), (f.ip6(TCP), 0), (f.ip6(f.frag6(TCP)), 1),
    (f.ip6(f.ext6(f.frag6(TCP, offset=9, more=False))), 1),
])  # fmt: skip
def test_fragments(packet: bytes, fragment: int) -> None:
    assert row(f.eth(packet))["is_fragment"] == fragment


@pytest.mark.parametrize(("captured", "expected"), [
    (13, {"is_ipv4": 0}), (14, {"is_ipv4": 1, "ip_len": 0}), (17, {"ip_len": 0}), (18, {"ip_len": 40, "has_addr": 0}),
    (33, {"has_addr": 0, "src_key": 0, "is_tcp": 0}), (34, {"has_addr": 1, "is_tcp": 1, "has_ports": 0}),
    (37, {"has_ports": 0, "src_port": 0}), (38, {"has_ports": 1, "src_port": 1234}), (47, {"tcp_flags": 0}),
    (48, {"tcp_flags": SYN | ACK}),
])  # fmt: skip
def test_short_captures(captured: int, expected: dict[str, int]) -> None:
    found = row(f.eth(IP), snap=captured)
    assert {name: found[name] for name in expected} == expected


def test_padding_is_no_transport_header() -> None:
    """The IP length ends before the ports: what follows is Ethernet's filling."""
    assert row(f.eth(f.ip4(b"\0\0", proto=17)) + b"\0\x35" * 12)["has_ports"] == 0


def test_a_tcp_header_of_four_words_has_no_flags() -> None:
    assert row(f.eth(f.ip4(f.Layer(TCP[:12] + b"\x4f" + TCP[13:], 0, 6))))["tcp_flags"] == 0


def test_segmentation_offload_leaves_the_length_open() -> None:
    payload = f.tcp(ACK, bytes(70_000))
    assert row(f.eth(f.ip4(payload, total=0)))["ip_len"] == 20 + len(payload)
    assert row(f.eth(f.ip6(payload, length=0)))["ip_len"] == 40 + len(payload)
    assert row(f.eth(f.ip6(b"", length=0)) + bytes(20))["ip_len"] == 40  # Ethernet's filling, not a jumbogram


def test_icmp() -> None:
    assert (row(f.eth(f.ip4(f.icmp(3))))["is_icmp"], row(f.eth(f.ip4(f.icmp(3))))["icmp_type"]) == (1, 3)
    assert (row(f.eth(f.ip6(f.icmp6(135))))["is_icmp6"], row(f.eth(f.ip6(f.icmp6(135))))["icmp_type"]) == (1, 135)
    assert row(f.eth(f.ip4(f.icmp6(135))))["is_icmp6"] == 0
    quoted = row(f.eth(f.ip4(f.icmp(3, IP))))
    assert (quoted["is_tcp"], quoted["dst_port"]) == (0, 0)


def test_tunnels_are_not_looked_into() -> None:
    found = row(f.eth(f.ip4(f.ip6(TCP))))
    assert (found["is_ipv4"], found["is_ipv6"], found["ip_proto"], found["is_tcp"]) == (1, 0, 41, 0)


def test_arp() -> None:
    found = row(f.eth(f.arp(2, sender="10.1.2.3"), dst=f.BROADCAST))
    assert (found["is_arp"], found["arp_op"], found["arp_ip"], found["is_broadcast"]) == (1, 2, 0x0A010203, 1)
    assert row(f.eth(f.arp())[:21])["arp_op"] == 0


# ---- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frame", "link_type", "broadcast", "multicast"), [
    (f.eth(IP, dst=f.BROADCAST), 1, 1, 0), (f.eth(IP, dst="01:00:5e:00:00:01"), 1, 0, 1), (f.eth(IP), 1, 0, 0),
    (f.sll(IP, 1), 113, 1, 0), (f.sll2(IP, 2), 276, 0, 1), (wifi(IP).replace(f.mac(f.PEER), b"\xff" * 6), 105, 1, 0),
])  # fmt: skip
def test_hardware_addresses(frame: bytes, link_type: int, broadcast: int, multicast: int) -> None:
    found = row(frame, link_type)
    assert found["src_mac"] == 0x020000000001
    assert (found["is_broadcast"], found["is_multicast"]) == (broadcast, multicast)


@pytest.mark.parametrize(("src", "dst", "expected"), [
    ("192.168.1.1", "8.8.8.8", (1, 0, 0)), ("8.8.8.8", "10.255.0.1", (0, 1, 0)), ("172.31.0.1", "1.1.1.1", (1, 0, 0)),
    ("172.32.0.1", "172.15.0.1", (0, 0, 0)), ("0.0.0.0", "1.1.1.1", (0, 0, 0)), ("192.168.1.1", "239.1.1.1", (1, 0, 1)),
    ("169.254.7.7", "255.255.255.255", (1, 0, 1)),
    ("fe80::1", "ff02::fb", (1, 0, 1)), ("fd12::1", "2001:db8::1", (1, 0, 0)), ("2001:db8::1", "fdff::1", (0, 1, 0)),
    ("::1", "::2", (1, 0, 0)),
])  # fmt: skip
def test_home_and_outside(src: str, dst: str, expected: tuple[int, int, int]) -> None:
    packet = f.ip6(f.udp(), src=src, dst=dst) if ":" in src else f.ip4(f.udp(), src=src, dst=dst)
    found = row(f.eth(packet))
    assert (found["src_home"], found["dst_home"], found["dst_multicast"]) == expected


def test_home_networks_are_those_that_are_given() -> None:
    home = HomeNets(tuple(ipaddress.ip_network(net) for net in ("203.0.113.0/24", "2001:db8:1::/48", "0.0.0.0/32")))
    assert row(f.eth(f.ip4(TCP, src="203.0.113.9")), home=home)["src_home"] == 1
    assert row(f.eth(f.ip4(TCP, src="192.168.1.1")), home=home)["src_home"] == 0
    assert row(f.eth(f.ip6(TCP, src="2001:db8:1:ffff::9", dst="2001:db8:2::1")), home=home)["src_home"] == 1
    assert row(f.eth(f.arp()), home=home)["src_home"] == 0  # no address at all


def test_keys_of_ipv6_addresses_are_spread_and_never_those_of_ipv4() -> None:
    packets = [f.ip6(TCP, src=f"2001:db8::{k:x}", dst=f"2001:db8:{k:x}::1") for k in range(4096)]
    batch = f.batch([f.eth(packet) for packet in packets])
    for keys in (batch.src_key, batch.dst_key):
        assert len(set(keys.tolist())) == 4096
        assert (keys >> np.uint64(63) == 1).all()
        assert abs(int(np.unpackbits(keys.view(np.uint8)).sum()) - 4096 * 32.5) < 1500  # bits are set half of the time
    assert f.batch([f.eth(packets[0])]).src_key[0] == batch.src_key[0]


# ---- batches -------------------------------------------------------------------------------------------------------

MIXED = [f.eth(IP), f.eth(f.vlan(f.ip6(f.ext6(TCP)))), f.eth(f.arp()), b"", f.eth(f.ip4(f.tcp(FIN), options=bytes(8)))]


def test_no_rows() -> None:
    batch = f.batch([])
    assert len(batch) == 0
    assert {getattr(batch, name).dtype for name in COLUMNS} == {getattr(f.batch(MIXED), name).dtype for name in COLUMNS}


def test_rows_keep_the_watermark() -> None:
    batch = replace(f.batch(MIXED), dropped=3)
    first, second = batch.rows(0, 2), batch.rows(2, 5)
    assert (first.dropped, second.dropped, second.until_ns) == (3, 0, batch.until_ns)
    assert second.dst_port.tolist() == batch.dst_port.tolist()[2:]
