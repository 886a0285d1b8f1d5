"""Header bytes -> PacketBatch, vectorised."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import ARP, IPV4, IPV6, RARP, Bytes, Offsets, blank, field, gather
from netspot.miner.links import locate, located
from netspot.packets import Bools, Frames, PacketBatch

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
U64s = NDArray[np.uint64]

PAD = 256  # readable bytes that must follow the last frame in ``Frames.data``, so that a gather needs no bound per row
MAX_EXTENSIONS = 8  # IPv6 extension headers that are looked through
HOP_BY_HOP, ICMP, TCP, UDP, ROUTING, FRAGMENT, AH, ICMP6, OPTIONS = 0, 1, 6, 17, 43, 44, 51, 58, 60


@dataclass(frozen=True)
class HomeNets:
    """The networks that are home; an address in none of them is outside."""

    nets: tuple[IPNetwork, ...] = ()

    @cached_property
    def ipv4(self) -> list[tuple[np.uint32, np.uint32]]:
        """(address, mask) of each IPv4 network."""
        nets = [net for net in self.nets if net.version == 4]
        return [(np.uint32(int(net.network_address)), np.uint32(int(net.netmask))) for net in nets]

    @cached_property
    def ipv6(self) -> list[tuple[np.uint64, np.uint64, np.uint64, np.uint64]]:
        """(high half, low half, high mask, low mask) of each IPv6 network."""
        nets = [net for net in self.nets if net.version == 6]
        return [(*_halves(int(net.network_address)), *_halves(int(net.netmask))) for net in nets]


# Home where nothing else is known, as in a capture file: RFC 1918, RFC 3927, RFC 4193, link-local and loopback.
_PRIVATE = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 127.0.0.0/8 fc00::/7 fe80::/10 ::1/128"
PRIVATE = HomeNets(tuple(ipaddress.ip_network(net) for net in _PRIVATE.split()))


def decode(
    frames: Frames,
    ts_ns: NDArray[np.int64],
    wire_len: NDArray[np.uint32],
    home: HomeNets,
    until_ns: int,
    dropped: int = 0,
    network: tuple[Offsets, NDArray[Any]] | None = None,
) -> PacketBatch:
    """Decode the headers of ``frames``.

    ``network``, from sources that know it (the ring), is (offset of the network header, ethertype) of each row; it
    spares the link layer. Whatever the bytes are, this does not raise; SourceError where the link type is unknown.
    """
    link = located(frames, *network) if network is not None else locate(frames)
    at, ethertype = link.network, link.ethertype
    is_ipv4, is_ipv6, is_arp = ethertype == IPV4, ethertype == IPV6, (ethertype == ARP) | (ethertype == RARP)
    available = (frames.start + frames.captured - at).astype(np.int32)
    header = gather(frames.data, at, 40)
    blank(header, np.flatnonzero((available < 40) & ~(is_ipv4 & (available >= 20))), available)

    # IPv4, in all rows; the others are corrected below
    first = header[:, 0]
    ip_len = field(header, 2, ">u2").astype(np.uint32) * is_ipv4
    on_wire = wire_len - np.minimum((at - frames.start).astype(np.uint32), wire_len)
    ip_len = np.where(is_ipv4 & (ip_len == 0) & (available >= 4), on_wire, ip_len)  # segmentation offload
    position = ((first & 15) * 4).astype(np.int32)
    ip_proto = header[:, 9] * is_ipv4
    fragment = field(header, 6, ">u2")
    is_fragment = is_ipv4 & (fragment & 0x3FFF != 0)
    has_l4 = is_ipv4 & (fragment & 0x1FFF == 0) & (position >= 20)
    src = field(header, 12, ">u4") * is_ipv4
    dst = field(header, 16, ">u4") * is_ipv4
    has_addr = is_ipv4 & (available >= 20)
    src_home, dst_home = _home4(src, home) & has_addr, _home4(dst, home) & has_addr
    dst_multicast = ((dst >> 28 == 14) | (dst == 0xFFFFFFFF)) & has_addr
    src_key, dst_key = src.astype(np.uint64), dst.astype(np.uint64)

    six = np.flatnonzero(is_ipv6)
    if len(six):
        part = header[six]
        payload = field(part, 4, ">u2").astype(np.uint32)
        jumbo = (payload == 0) & (on_wire[six] > 0xFFFF + 40)  # RFC 2675 and segmentation offload
        ip_len[six] = np.where(jumbo, on_wire[six], np.where(available[six] >= 6, payload + 40, 0))
        position[six] = 40
        ip_proto[six] = part[:, 6]
        whole = available[six] >= 40
        has_addr[six] = has_l4[six] = whole
        dst_multicast[six] = whole & (part[:, 24] == 0xFF)
        for key, is_home, offset in ((src_key, src_home, 8), (dst_key, dst_home, 24)):
            high, low = field(part, offset, ">u8"), field(part, offset + 8, ">u8")
            key[six] = _hash(high, low) * whole
            is_home[six] = _home6(high, low, home) & whole
    inside = np.minimum(available, np.where(ip_len >= position.astype(np.uint32), ip_len, 0).astype(np.int32))
    _skip_extensions(frames.data, at, inside, is_ipv6, ip_proto, position, is_fragment, has_l4)

    has_l4 &= position <= inside
    is_tcp, is_udp = has_l4 & (ip_proto == TCP), has_l4 & (ip_proto == UDP)
    is_icmp, is_icmp6 = has_l4 & (ip_proto == ICMP) & is_ipv4, has_l4 & (ip_proto == ICMP6) & is_ipv6
    transport = gather(frames.data, at + np.minimum(position, available), 16)
    left = inside - position
    has_ports = (is_tcp | is_udp) & (left >= 4)
    arp_op, arp_ip = _arp(header, np.flatnonzero(is_arp & (available >= 28)))
    return PacketBatch(
        until_ns=until_ns,
        dropped=dropped,
        ts_ns=ts_ns,
        wire_len=wire_len,
        ethertype=ethertype,
        src_mac=link.src_mac,
        is_broadcast=link.is_broadcast,
        is_multicast=link.is_multicast,
        ip_version=is_ipv4 * np.uint8(4) + is_ipv6 * np.uint8(6),
        ip_len=ip_len,
        ip_proto=ip_proto,
        src_key=src_key * has_addr,
        dst_key=dst_key * has_addr,
        src_home=src_home,
        dst_home=dst_home,
        dst_multicast=dst_multicast,
        has_addr=has_addr,
        is_fragment=is_fragment,
        src_port=field(transport, 0, ">u2") * has_ports,
        dst_port=field(transport, 2, ">u2") * has_ports,
        has_ports=has_ports,
        tcp_flags=transport[:, 13] * (is_tcp & (left >= 14) & (transport[:, 12] >= 0x50)),  # five words at least
        icmp_type=transport[:, 0] * ((is_icmp | is_icmp6) & (left >= 1)),
        arp_op=arp_op,
        arp_ip=arp_ip,
        is_ipv4=is_ipv4,
        is_ipv6=is_ipv6,
        is_arp=is_arp,
        is_tcp=is_tcp,
        is_udp=is_udp,
        is_icmp=is_icmp,
        is_icmp6=is_icmp6,
        frames=frames,
    )


def _skip_extensions(
    data: Bytes,
    at: Offsets,
    inside: NDArray[np.int32],
    is_ipv6: Bools,
    ip_proto: Bytes,
    position: NDArray[np.int32],
    is_fragment: Bools,
    has_l4: Bools,
) -> None:
    """Step over IPv6 extension headers, and AH in both versions; the last five columns are changed in place."""
    six = is_ipv6 & ((ip_proto == HOP_BY_HOP) | (ip_proto == ROUTING) | (ip_proto == OPTIONS) | (ip_proto == FRAGMENT))
    rows = np.flatnonzero((six | (ip_proto == AH)) & has_l4)
    for _ in range(MAX_EXTENSIONS):
        rows = rows[position[rows] + 8 <= inside[rows]]
        if not len(rows):
            return
        header = gather(data, at[rows] + position[rows], 8)
        kind = ip_proto[rows]
        split = kind == FRAGMENT
        length = header[:, 1].astype(np.int32)
        position[rows] += np.where(split, 8, np.where(kind == AH, length * 4 + 8, length * 8 + 8))
        ip_proto[rows] = header[:, 0]
        is_fragment[rows] |= split
        has_l4[rows] &= ~(split & (field(header, 2, ">u2") >> 3 != 0))
        kind = header[:, 0]
        more = is_ipv6[rows] & ((kind == HOP_BY_HOP) | (kind == ROUTING) | (kind == OPTIONS) | (kind == FRAGMENT))
        rows = rows[(more | (kind == AH)) & has_l4[rows]]


def _arp(header: Bytes, rows: NDArray[np.intp]) -> tuple[Bytes, NDArray[np.uint32]]:
    """Operation and the sender's IPv4 address of ARP packets (RFC 826), 0 in other rows."""
    operation, address = np.zeros(len(header), np.uint8), np.zeros(len(header), np.uint32)
    if len(rows):
        part = header[rows]
        operation[rows] = np.where(part[:, 6] == 0, part[:, 7], 0)
        address[rows] = field(part, 14, ">u4") * (field(part, 4, ">u2") == 0x0604)
    return operation, address


def _home4(address: NDArray[np.uint32], home: HomeNets) -> Bools:
    inside = np.zeros(len(address), np.bool_)
    for net, mask in home.ipv4:
        inside |= address & mask == net
    return inside


def _home6(high: U64s, low: U64s, home: HomeNets) -> Bools:
    inside = np.zeros(len(high), np.bool_)
    for net_high, net_low, mask_high, mask_low in home.ipv6:
        inside |= (high & mask_high == net_high) & (low & mask_low == net_low)
    return inside


def _hash(high: U64s, low: U64s) -> U64s:
    """A 64-bit key of an IPv6 address: multiplications and shifts, the same in every run.

    The top bit is set, so that no IPv6 address has the key of an IPv4 address.
    """
    key = high * np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ key >> np.uint64(32) ^ low) * np.uint64(0xD6E8FEB86659FD93)
    key = (key ^ key >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
    return (key ^ key >> np.uint64(32)) | np.uint64(1 << 63)


def _halves(number: int) -> tuple[np.uint64, np.uint64]:
    return np.uint64(number >> 64), np.uint64(number & (1 << 64) - 1)
