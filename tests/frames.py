"""Hand-built packets for tests: each function wraps its payload in one header, and shows every byte it depends on.

    eth(ip4(tcp(SYN, dport=22)))                an Ethernet frame
    eth(vlan(ip4(udp(), src="10.0.0.1")))       the EtherType of eth() follows from what it wraps
    pcap([frame, frame], ts_ns=[...])           the bytes of a capture file

A payload is ``bytes``; a header function returns ``Layer``, bytes that know by what number they are announced.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

import numpy as np

from netspot.miner.decode import PAD, PRIVATE, HomeNets, decode
from netspot.packets import ACK, Frames, PacketBatch

US = 1_000
START_NS = 1_700_000_000_000_000_000  # the time of the first packet where a test doesn't say
HOST, PEER = "02:00:00:00:00:01", "02:00:00:00:00:02"
BROADCAST = "ff:ff:ff:ff:ff:ff"


class Layer(bytes):
    """Bytes with the EtherType and the IP protocol that announce them, where there is one."""

    ethertype: int = 0
    proto: int = 59  # no next header

    def __new__(cls, data: bytes, ethertype: int = 0, proto: int = 59) -> Layer:
        layer = super().__new__(cls, data)
        layer.ethertype, layer.proto = ethertype, proto
        return layer


# ---- link layer ----------------------------------------------------------------------------------------------------


def eth(payload: bytes = b"", dst: str = PEER, src: str = HOST, ethertype: int | None = None) -> bytes:
    return mac(dst) + mac(src) + struct.pack(">H", announced(payload, ethertype)) + payload


def vlan(payload: bytes = b"", vid: int = 1, tpid: int = 0x8100, ethertype: int | None = None) -> Layer:
    """One 802.1Q tag (0x8100), or an outer one (0x88a8, 0x9100)."""
    return Layer(struct.pack(">HH", vid, announced(payload, ethertype)) + payload, tpid)


def mpls(payload: bytes = b"", labels: Sequence[int] = (16,)) -> Layer:
    stack = [label << 12 | (k == len(labels) - 1) << 8 | 64 for k, label in enumerate(labels)]
    return Layer(struct.pack(f">{len(stack)}I", *stack) + payload, 0x8847)


def pppoe(payload: bytes = b"") -> Layer:
    return Layer(struct.pack(">BBHHH", 0x11, 0, 1, len(payload) + 2, ppp_number(payload)) + payload, 0x8864)


def snap(payload: bytes = b"", ethertype: int | None = None) -> bytes:
    """LLC with SNAP; inside eth() announced by its length."""
    body = struct.pack(">BBBBHH", 0xAA, 0xAA, 3, 0, 0, announced(payload, ethertype)) + payload
    return Layer(body, len(body))


def sll(payload: bytes = b"", kind: int = 0, arphrd: int = 1, src: str = HOST, protocol: int | None = None) -> bytes:
    """Linux cooked capture; ``kind`` 0 to us, 1 broadcast, 2 multicast, 3 to another host, 4 from us."""
    return struct.pack(">HHH6sHH", kind, arphrd, 6, mac(src), 0, announced(payload, protocol)) + payload


def sll2(payload: bytes = b"", kind: int = 0, arphrd: int = 1, src: str = HOST, protocol: int | None = None) -> bytes:
    head = struct.pack(">HHIHBB", announced(payload, protocol), 0, 3, arphrd, kind, 6)
    return head + mac(src) + b"\0\0" + payload


# ---- network layer -------------------------------------------------------------------------------------------------


def arp(op: int = 1, sender: str = "192.168.1.1", target: str = "192.168.1.2", sha: str = HOST) -> Layer:
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, op)
    return Layer(head + mac(sha) + ip(sender) + bytes(6) + ip(target), 0x0806)


def ip4(
    payload: bytes = b"",
    src: str = "192.168.1.1",
    dst: str = "192.168.1.2",
    proto: int | None = None,
    options: bytes = b"",
    frag: int = 0,
    more: bool = False,
    total: int | None = None,
) -> Layer:
    """``frag`` is the fragment offset in units of 8 bytes; ``total`` the length field where it shall lie."""
    proto = getattr(payload, "proto", 59) if proto is None else proto
    length = 20 + len(options)
    total = length + len(payload) if total is None else total
    first = (0x40 | length // 4, 0, total, 0, more << 13 | frag, 64, proto, 0)
    return Layer(struct.pack(">BBHHHBBH", *first) + ip(src) + ip(dst) + options + payload, 0x0800, 4)


def ip6(
    payload: bytes = b"",
    src: str = "fd00::1",
    dst: str = "fd00::2",
    proto: int | None = None,
    length: int | None = None,
) -> Layer:
    proto = getattr(payload, "proto", 59) if proto is None else proto
    length = len(payload) if length is None else length
    return Layer(struct.pack(">IHBB", 6 << 28, length, proto, 64) + ip(src) + ip(dst) + payload, 0x86DD, 41)


def ext6(payload: bytes = b"", number: int = 0, words: int = 0) -> Layer:
    """An IPv6 extension header of ``8 + 8 * words`` bytes: hop-by-hop 0, routing 43, destination options 60."""
    return Layer(bytes((payload.proto, words)) + bytes(6 + 8 * words) + payload, 0, number)


def frag6(payload: bytes = b"", offset: int = 0, more: bool = True, proto: int | None = None) -> Layer:
    proto = payload.proto if proto is None else proto
    return Layer(struct.pack(">BBHI", proto, 0, offset << 3 | more, 7) + payload, 0, 44)


def ah(payload: bytes = b"") -> Layer:
    """An authentication header of 24 bytes (RFC 4302)."""
    return Layer(struct.pack(">BBHII12x", payload.proto, 4, 0, 1, 1) + payload, 0, 51)


# ---- transport layer -----------------------------------------------------------------------------------------------


def tcp(flags: int = ACK, payload: bytes = b"", sport: int = 40000, dport: int = 80) -> Layer:
    return Layer(struct.pack(">HHIIBBHHH", sport, dport, 1, 1, 0x50, flags, 1024, 0, 0) + payload, 0, 6)


def udp(payload: bytes = b"", sport: int = 40000, dport: int = 53) -> Layer:
    return Layer(struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload, 0, 17)


def icmp(kind: int = 8, payload: bytes = b"") -> Layer:
    return Layer(struct.pack(">BBHI", kind, 0, 0, 0) + payload, 0, 1)


def icmp6(kind: int = 128, payload: bytes = b"") -> Layer:
    return Layer(struct.pack(">BBHI", kind, 0, 0, 0) + payload, 0, 58)


# ---- fields --------------------------------------------------------------------------------------------------------


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def announced(payload: bytes, ethertype: int | None) -> int:
    return getattr(payload, "ethertype", 0) if ethertype is None else ethertype


def ppp_number(payload: bytes) -> int:
    return {0x0800: 0x21, 0x86DD: 0x57, 0x8847: 0x281}.get(announced(payload, None), 0xC021)


# ---- batches and capture files -------------------------------------------------------------------------------------


def batch(
    frames: Sequence[bytes],
    ts_ns: Sequence[int] | None = None,
    link_type: int = 1,
    home: HomeNets = PRIVATE,
    snap: int = 1 << 18,
    until_ns: int | None = None,
    dropped: int = 0,
) -> PacketBatch:
    """``frames`` decoded; the bytes between and behind them are 0xff, so that a look beyond a frame shows."""
    times = np.array(spaced(len(frames), ts_ns), np.int64)
    cut = [frame[:snap] for frame in frames]
    gap = b"\xff" * 7
    starts = np.cumsum([0] + [len(frame) + len(gap) for frame in cut])[:-1].astype(np.int64)
    data = np.frombuffer(b"".join(frame + gap for frame in cut) + b"\xff" * PAD, np.uint8)
    captured, wire_len = (np.array([len(f) for f in some], np.uint32) for some in (cut, frames))
    until_ns = int(times.max(initial=0)) if until_ns is None else until_ns
    return decode(Frames(data, starts, captured, link_type), times, wire_len, home, until_ns, dropped)


def spaced(n: int, ts_ns: Sequence[int] | None) -> Sequence[int]:
    return [START_NS + k * 1_000_000 for k in range(n)] if ts_ns is None else ts_ns


def pcap(
    frames: Sequence[bytes],
    ts_ns: Sequence[int] | None = None,
    link_type: int = 1,
    order: str = "<",
    nanoseconds: bool = False,
    snap: int = 1 << 18,
) -> bytes:
    """The bytes of a pcap file, in either byte order and resolution."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap, link_type)]
    for frame, ts in zip(frames, spaced(len(frames), ts_ns), strict=True):
        seconds, rest = divmod(ts, 1_000_000_000)
        stamp = rest if nanoseconds else rest // US
        out.append(struct.pack(order + "IIII", seconds, stamp, min(len(frame), snap), len(frame)) + frame[:snap])
    return b"".join(out)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link_type: int = 1, snap: int = 0, order: str = "<", tsresol: int = 6, tsoffset: int = 0) -> bytes:
    options = b""
    if tsresol != 6:
        options += struct.pack(order + "HHB3x", 9, 1, tsresol)
    if tsoffset:
        options += struct.pack(order + "HHq", 14, 8, tsoffset)
    options += bytes(4) if options else b""
    return block(1, struct.pack(order + "HHI", link_type, 0, snap) + options, order)


def enhanced(frame: bytes, stamp: int, number: int = 0, order: str = "<", wire_len: int | None = None) -> bytes:
    """An enhanced packet block; ``stamp`` in the units of the interface ``number``."""
    wire_len = len(frame) if wire_len is None else wire_len
    head = struct.pack(order + "IIIII", number, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), wire_len)
    return block(6, head + frame + bytes(-len(frame) % 4), order)


def simple(frame: bytes, wire_len: int | None = None, order: str = "<") -> bytes:
    wire_len = len(frame) if wire_len is None else wire_len
    return block(3, struct.pack(order + "I", wire_len) + frame + bytes(-len(frame) % 4), order)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def pcapng(frames: Sequence[bytes], ts_ns: Sequence[int] | None = None, link_type: int = 1, order: str = "<") -> bytes:
    """One section, one interface with microseconds."""
    times = spaced(len(frames), ts_ns)
    blocks = [enhanced(f, ts // US, 0, order) for f, ts in zip(frames, times, strict=True)]
    return section(order) + interface(link_type, 0, order) + b"".join(blocks)
