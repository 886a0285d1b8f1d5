"""Header bytes -> PacketBatch, vectorised."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import ARP, IPV4, IPV6, RARP, Bytes, blank, field, gather
from netspot.miner.links import locate
from netspot.packets import Bools, Frames, PacketBatch

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
U64s = NDArray[np.uint64]

PAD = 256  # readable bytes that must follow the last frame in ``Frames.data``, so that a gather needs no bound per row
MAX_EXTENSIONS = 8  # IPv6 extension headers that are looked through
IP_HEADER = np.dtype(
    {  # of IPv4 without options, and of the transport behind it
        "names": ["word", "fragment", "proto", "src", "dst", "transport", "sport", "dport", "type", "flags"],
        "formats": [">u4", ">u2", "u1", ">u4", ">u4", "V16", ">u2", ">u2", "u1", ">u2"],
        "offsets": [0, 6, 9, 12, 16, 20, 20, 22, 20, 32],
        "itemsize": 40,
    }
)
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
) -> PacketBatch:
    """Decode the headers of ``frames``, whatever their bytes are. SourceError where the link type is unknown.

    A batch of 16,000 small Ethernet frames takes about 320 instructions a packet: a third for the gather and the fields
    that it holds in network byte order, a fifth for some 200 numpy calls, the rest for masks and home networks.
    """
    link = locate(frames)
    ethertype, header = link.ethertype, link.header
    assert header is not None
    is_ipv4, is_ipv6, is_arp = ethertype == IPV4, ethertype == IPV6, ethertype == ARP
    available = frames.captured.astype(np.int32) - link.network
    blank(header, np.flatnonzero((available < 40) & ~(is_ipv4 & (available >= 20))), available)
    other = np.flatnonzero(~is_ipv4)
    is_arp[other] |= ethertype[other] == RARP
    is_ipv6[other] &= (header[other, 0] >> 4 == 6) | (available[other] == 0)
    six, arp = other[is_ipv6[other]], other[is_arp[other]]
    header6, header_arp = header[six], header[arp]
    header[other] = 0  # so that all fields of IPv4 are 0 in other rows

    fields = header.view(IP_HEADER)[:, 0]
    word = fields["word"].astype(np.uint32)
    ip_len = word & np.uint32(0xFFFF)
    odd = np.flatnonzero(is_ipv4 & ((ip_len == 0) | (word - np.uint32(0x45000000) >= np.uint32(0x0B000000))))
    wrong = odd[word[odd] - np.uint32(0x45000000) >= np.uint32(0x0B000000)]
    header[wrong] = word[wrong] = ip_len[wrong] = 0  # another version, or a header of less than 20 bytes
    offload = odd[(word[odd] != 0) & (available[odd] >= 4)]  # segmentation offload leaves the length open
    ip_len[offload] = _on_wire(wire_len, link.network, offload)
    position = (word >> np.uint32(22) & np.uint32(60)).view(
        np.int32
    )  # of the transport, from the network header [byte]
    ip_proto = fields["proto"].copy()
    fragment = fields["fragment"].astype(np.uint16)
    is_fragment = fragment & 0x3FFF != 0
    has_addr = (position >= 20) & (available >= 20) & (position <= ip_len.view(np.int32))
    has_l4 = (fragment & 0x1FFF == 0) & has_addr
    header[np.flatnonzero(is_ipv4 & ~has_addr), 12:20] = 0
    src, dst = fields["src"].astype(np.uint32), fields["dst"].astype(np.uint32)
    src_home, dst_home = _home4(src, home) & has_addr, _home4(dst, home) & has_addr
    dst_multicast = (dst & 0xF0000000 == 0xE0000000) | (dst == 0xFFFFFFFF)
    src_key, dst_key = src.astype(np.uint64), dst.astype(np.uint64)
    ip_version = is_ipv4.view(np.uint8) << 2
    ip_version[six] = 6
    if len(six):
        payload = field(header6, 4, ">u2").astype(np.uint32)
        ip_len[six] = (payload + 40) * (available[six] >= 6)
        jumbo = six[payload == 0]  # RFC 2675, and segmentation offload of more than 64 KiB
        ip_len[jumbo] = np.maximum(ip_len[jumbo], _beyond(wire_len, link.network, jumbo))
        position[six] = 40
        ip_proto[six] = header6[:, 6]
        whole = available[six] >= 40
        has_addr[six] = has_l4[six] = whole
        dst_multicast[six] = whole & (header6[:, 24] == 0xFF)
        addresses = header6[:, 8:40].view(">u8").T.astype(np.uint64)  # shape (4, n): halves of source and destination
        high, low = addresses[::2], addresses[1::2]
        src_key[six], dst_key[six] = _hash(high, low) * whole
        src_home[six], dst_home[six] = _home6(high, low, home) & whole

    inside = np.minimum(available, ip_len.view(np.int32))
    has_l4 &= position <= inside
    rows = np.concatenate((six, np.flatnonzero(is_ipv4 & (ip_proto == AH))))
    _skip_extensions(frames, rows, link.network, inside, is_ipv6, ip_proto, position, is_fragment, has_l4)
    is_tcp, is_udp = has_l4 & (ip_proto == TCP), has_l4 & (ip_proto == UDP)
    is_icmp, is_icmp6 = has_l4 & (ip_proto == ICMP) & is_ipv4, has_l4 & (ip_proto == ICMP6) & is_ipv6
    elsewhere = np.flatnonzero(has_l4 & (position != 20))
    if len(elsewhere):
        start = frames.start[elsewhere] + link.network[elsewhere] + position[elsewhere]
        fields["transport"][elsewhere] = gather(frames.data, start, 16).view("V16")[:, 0]
    left = inside - position
    has_ports = (is_tcp | is_udp) & (left >= 4)
    flags = fields["flags"].astype(np.uint16)
    has_flags = is_tcp & (left >= 14) & (flags >= 0x5000)  # a header has five words at least
    arp_op, arp_ip = _arp(header_arp, arp, available)
    return PacketBatch(
        until_ns=until_ns,
        dropped=dropped,
        ts_ns=ts_ns,
        wire_len=wire_len,
        ethertype=ethertype,
        src_mac=link.src_mac,
        is_broadcast=link.is_broadcast,
        is_multicast=link.is_multicast,
        ip_version=ip_version,
        ip_len=ip_len,
        ip_proto=ip_proto,
        src_key=src_key,
        dst_key=dst_key,
        src_home=src_home,
        dst_home=dst_home,
        dst_multicast=dst_multicast,
        has_addr=has_addr,
        is_fragment=is_fragment,
        src_port=fields["sport"].astype(np.uint16) * has_ports,
        dst_port=fields["dport"].astype(np.uint16) * has_ports,
        has_ports=has_ports,
        tcp_flags=_only(flags.astype(np.uint8), has_flags),
        icmp_type=_only(fields["type"], (is_icmp | is_icmp6) & (left >= 1)),
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


def _only(values: Bytes, mask: Bools) -> Bytes:
    """``values`` where ``mask`` is set, else 0: a multiplication of bytes costs ten times more."""
    return values & (-mask.view(np.int8)).view(np.uint8)


def _on_wire(wire_len: NDArray[np.uint32], network: NDArray[np.int32], rows: NDArray[np.intp]) -> NDArray[np.uint32]:
    """Bytes of the frames behind the start of the network header."""
    length: NDArray[np.int64] = wire_len[rows].astype(np.int64) - network[rows]
    return np.maximum(length, 0).astype(np.uint32)


def _beyond(wire_len: NDArray[np.uint32], network: NDArray[np.int32], rows: NDArray[np.intp]) -> NDArray[np.uint32]:
    """The same where it is more than the length field can hold, else 0."""
    length = _on_wire(wire_len, network, rows)
    length[length <= 0xFFFF + 40] = 0
    return length


def _skip_extensions(
    frames: Frames,
    rows: NDArray[np.intp],
    network: NDArray[np.int32],
    inside: NDArray[np.int32],
    is_ipv6: Bools,
    ip_proto: Bytes,
    position: NDArray[np.int32],
    is_fragment: Bools,
    has_l4: Bools,
) -> None:
    """Step over IPv6 extension headers, and AH in both versions, where ``rows`` have them.

    The last four columns are changed in place.
    A header that is not captured whole leaves the row without transport.
    """
    for _ in range(MAX_EXTENSIONS):
        rows = rows[_is_extension(ip_proto[rows], is_ipv6[rows]) & has_l4[rows]]
        if not len(rows):
            return
        kind, before = ip_proto[rows], position[rows]
        header = gather(frames.data, frames.start[rows] + network[rows] + before, 8)
        split = kind == FRAGMENT
        units = header[:, 1].astype(np.int32)
        after = before + 8 + np.where(split, 0, np.where(kind == AH, units * 4, units * 8))
        whole = (before + 8 <= inside[rows]) & (after <= inside[rows])
        rows, header, split, after = rows[whole], header[whole], split[whole], after[whole]
        ip_proto[rows] = header[:, 0]
        position[rows] = after
        is_fragment[rows] |= split
        has_l4[rows] &= ~(split & (field(header, 2, ">u2") >> 3 != 0))


def _is_extension(ip_proto: Bytes, is_ipv6: Bools) -> Bools:
    options: Bools = (ip_proto == HOP_BY_HOP) | (ip_proto == OPTIONS) | (ip_proto == ROUTING) | (ip_proto == FRAGMENT)
    options &= is_ipv6
    options |= ip_proto == AH
    return options


def _arp(header: Bytes, rows: NDArray[np.intp], available: NDArray[np.int32]) -> tuple[Bytes, NDArray[np.uint32]]:
    """Operation and the sender's IPv4 address of ARP packets (RFC 826), 0 in other rows; ``header`` is of ``rows``."""
    operation, address = np.zeros(len(available), np.uint8), np.zeros(len(available), np.uint32)
    if len(rows):
        known = (available[rows] >= 28) & (field(header, 4, ">u2") == 0x0604)  # six and four bytes of address
        operation[rows] = header[:, 7] * (header[:, 6] == 0)
        address[rows] = field(header, 14, ">u4") * known
    return operation, address


def _home4(address: NDArray[np.uint32], home: HomeNets) -> Bools:
    inside = np.zeros(len(address), np.bool_)
    for net, mask in home.ipv4:
        inside |= address & mask == net
    return inside


def _home6(high: U64s, low: U64s, home: HomeNets) -> Bools:
    inside = np.zeros(high.shape, np.bool_)
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
