"""Header bytes -> PacketBatch, vectorised."""

from __future__ import annotations

import ipaddress
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import ARP, IPV4, IPV6, RARP, Bytes, blank, constant, field, gather, indices
from netspot.miner.link import NETWORK
from netspot.miner.links import locate
from netspot.packets import Bools, Frames, PacketBatch
from netspot.record import Record

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
U32s = NDArray[np.uint32]
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
_HEADER = np.dtype(f"V{NETWORK}")
_NO_HEADER = np.zeros((), _HEADER)
HOP_BY_HOP, ROUTING, FRAGMENT, AH, OPTIONS = 0, 43, 44, 51, 60  # IP protocol numbers that are no transport

_EXTENSIONS_6 = np.zeros(256, np.bool_)  # AH is one in both versions
_EXTENSIONS_6[[HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS]] = True

# Operands, see ``constant``. Of Ethernet and IP:
_IPV4, _IPV6, _ARP, _RARP = (constant(np.uint16, number) for number in (IPV4, IPV6, ARP, RARP))
_ICMP, _TCP, _UDP, _AH, _ICMP6 = (constant(np.uint8, number) for number in (1, 6, 17, AH, 58))
_LENGTH, _NONE = constant(np.uint32, 0xFFFF), constant(np.uint32, 0)
_IHL_5, _IHLS = constant(np.uint32, 0x45 << 24), constant(np.uint32, 0x0B << 24)  # version 4, 5 to 15 words of header
_WORDS_AT, _WORDS = constant(np.uint32, 22), constant(np.uint32, 60)  # of the header's length, times four
_FRAGMENT, _FRAGMENT_AT, _ZERO = constant(np.uint16, 0x3FFF), constant(np.uint16, 0x1FFF), constant(np.uint16, 0)
_CLASS, _CLASS_D, _EVERYBODY = (constant(np.uint32, word) for word in (0xF0000000, 0xE0000000, 0xFFFFFFFF))
_FIXED_6, _MULTICAST_6 = constant(np.uint32, 40), constant(np.uint8, 0xFF)
_HEADER_TCP = constant(np.uint16, 5 << 12)  # a header has five words at least
_TWO = constant(np.uint8, 2)
_HASH = tuple(constant(np.uint64, factor) for factor in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93))
_HALF, _TOP = constant(np.uint64, 32), constant(np.uint64, 1 << 63)
# and of captured lengths [byte]:
_HEADER_6, _HEADER_4, _LENGTH_END, _PORTS, _FLAGS_END, _NOTHING = (
    constant(np.int32, length) for length in (40, 20, 6, 4, 14, 0)
)


class HomeNets(Record):
    """The networks that are home; an address in none of them is outside."""

    nets: tuple[IPNetwork, ...] = ()

    @cached_property
    def ipv4(self) -> list[tuple[U32s, U32s]]:
        """(address, mask) of each IPv4 network, shape ``()``."""
        nets = [net for net in self.nets if net.version == 4]
        return [(constant(np.uint32, int(net.network_address)), constant(np.uint32, int(net.netmask))) for net in nets]

    @cached_property
    def ipv6(self) -> list[list[tuple[int, U64s, U64s]]]:
        """Of each IPv6 network (half, address, mask) for the halves of an address that tell: 0 high, 1 low."""
        return [
            [
                (half, constant(np.uint64, address), constant(np.uint64, mask))
                for half, (address, mask) in enumerate(
                    zip(_halves(net.network_address), _halves(net.netmask), strict=True)
                )
                if mask or not half
            ]
            for net in self.nets
            if net.version == 6
        ]


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

    A batch of 16,000 small Ethernet frames takes about 300 instructions a packet: a third for the gather and the fields
    that it holds in network byte order, a seventh for some 200 numpy calls, the rest for masks and home networks.
    """
    link = locate(frames)
    ethertype, header = link.ethertype, link.header
    assert header is not None
    is_ipv4, is_ipv6 = ethertype == _IPV4, ethertype == _IPV6
    is_arp = (ethertype == _ARP) | (ethertype == _RARP)
    available = frames.captured.astype(np.int32) - link.network
    short = indices(available < _HEADER_6)
    if len(short):
        blank(header, short[~is_ipv4[short] | (available[short] < 20)], available)
    six, arp = indices(is_ipv6), indices(is_arp)
    if len(six):
        other_version = six[(header[six, 0] >> 4 != 6) & (available[six] != 0)]
        is_ipv6[other_version] = False
        six = six[is_ipv6[six]] if len(other_version) else six
    headers = header.view(_HEADER)[:, 0]  # whole ones are copied in less than half the time
    header6, header_arp = (headers[rows].view(np.uint8).reshape(len(rows), NETWORK) for rows in (six, arp))
    other = indices(~is_ipv4)
    if len(other):
        headers[other] = _NO_HEADER  # so that all fields of IPv4 are 0 there

    fields = header.view(IP_HEADER)[:, 0]
    word = fields["word"].astype(np.uint32)
    ip_len = word & _LENGTH
    odd = indices(is_ipv4 & ((ip_len == _NONE) | (word - _IHL_5 >= _IHLS)))
    if len(odd):
        wrong = odd[word[odd] - _IHL_5 >= _IHLS]
        header[wrong] = word[wrong] = ip_len[wrong] = 0  # another version, or a header of less than 20 bytes
        offload = odd[(word[odd] != 0) & (available[odd] >= 4)]  # segmentation offload leaves the length open
        ip_len[offload] = _on_wire(wire_len, link.network, offload)
    position = ((word >> _WORDS_AT) & _WORDS).view(np.int32)  # of the transport, from the network header [byte]
    ip_proto = fields["proto"].copy()
    fragment = fields["fragment"].astype(np.uint16)
    is_fragment = fragment & _FRAGMENT != _ZERO
    has_addr = (position >= _HEADER_4) & (available >= _HEADER_4) & (position <= ip_len.view(np.int32))
    has_l4 = (fragment & _FRAGMENT_AT == _ZERO) & has_addr
    cut = indices(is_ipv4 & ~has_addr)
    if len(cut):
        header[cut, 12:20] = 0
    addresses = np.empty((2, len(header)), np.uint32)  # of source and destination
    addresses[0], addresses[1] = fields["src"], fields["dst"]
    is_home = _home4(addresses, home) & has_addr
    dst_multicast = (addresses[1] & _CLASS == _CLASS_D) | (addresses[1] == _EVERYBODY)
    keys = addresses.astype(np.uint64)
    ip_version = is_ipv4.view(np.uint8) << _TWO
    if len(six):
        ip_version[six] = 6
        payload = field(header6, 4, ">u2").astype(np.uint32)
        ip_len[six] = (payload + _FIXED_6) * (available[six] >= _LENGTH_END)
        jumbo = six[payload == _NONE]  # RFC 2675, and segmentation offload of more than 64 KiB
        if len(jumbo):
            ip_len[jumbo] = np.maximum(ip_len[jumbo], _beyond(wire_len, link.network, jumbo))
        position[six] = 40
        ip_proto[six] = header6[:, 6]
        whole = available[six] >= _HEADER_6
        has_addr[six] = has_l4[six] = whole
        dst_multicast[six] = whole & (header6[:, 24] == _MULTICAST_6)
        halves = header6[:, 8:40].view(">u8").T.astype(np.uint64)  # high and low of source, then of destination
        high, low = halves[::2], halves[1::2]
        hashes, at_home = _hash(high, low) * whole, _home6(high, low, home) & whole
        for side in (0, 1):  # of source, then of destination; one by one takes a quarter of the time
            keys[side][six], is_home[side][six] = hashes[side], at_home[side]

    inside = np.minimum(available, ip_len.view(np.int32))
    has_l4 &= position <= inside
    with_ah = indices(is_ipv4 & (ip_proto == _AH))
    if len(six) or len(with_ah):
        extended = np.concatenate((six, with_ah))
        _skip_extensions(frames, extended, link.network, inside, is_ipv6, ip_proto, position, is_fragment, has_l4)
    is_tcp, is_udp = has_l4 & (ip_proto == _TCP), has_l4 & (ip_proto == _UDP)
    is_icmp, is_icmp6 = has_l4 & (ip_proto == _ICMP) & is_ipv4, has_l4 & (ip_proto == _ICMP6) & is_ipv6
    elsewhere = indices(has_l4 & (position != _HEADER_4))
    if len(elsewhere):
        start = frames.start[elsewhere] + link.network[elsewhere] + position[elsewhere]
        fields["transport"][elsewhere] = gather(frames.data, start, 16).view("V16")[:, 0]
    left = inside - position
    has_ports = (is_tcp | is_udp) & (left >= _PORTS)
    flags = fields["flags"].astype(np.uint16)
    has_flags = is_tcp & (left >= _FLAGS_END) & (flags >= _HEADER_TCP)
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
        src_key=keys[0],
        dst_key=keys[1],
        src_home=is_home[0],
        dst_home=is_home[1],
        dst_multicast=dst_multicast,
        has_addr=has_addr,
        is_fragment=is_fragment,
        src_port=fields["sport"].astype(np.uint16) * has_ports,
        dst_port=fields["dport"].astype(np.uint16) * has_ports,
        has_ports=has_ports,
        tcp_flags=_only(flags.astype(np.uint8), has_flags),
        icmp_type=_only(fields["type"], (is_icmp | is_icmp6) & (left > _NOTHING)),
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
        kind = ip_proto[rows]
        rows = rows[(_EXTENSIONS_6[kind] & is_ipv6[rows] | (kind == _AH)) & has_l4[rows]]
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


def _arp(header: Bytes, rows: NDArray[np.intp], available: NDArray[np.int32]) -> tuple[Bytes, NDArray[np.uint32]]:
    """Operation and the sender's IPv4 address of ARP packets (RFC 826), 0 in other rows; ``header`` is of ``rows``."""
    operation, address = np.zeros(len(available), np.uint8), np.zeros(len(available), np.uint32)
    if len(rows):
        known = (available[rows] >= 28) & (field(header, 4, ">u2") == 0x0604)  # six and four bytes of address
        operation[rows] = header[:, 7] * (header[:, 6] == 0)
        address[rows] = field(header, 14, ">u4") * known
    return operation, address


def _home4(address: U32s, home: HomeNets) -> Bools:
    inside = np.zeros(address.shape, np.bool_)
    for net, mask in home.ipv4:
        inside |= address & mask == net
    return inside


def _home6(high: U64s, low: U64s, home: HomeNets) -> Bools:
    inside = np.zeros(high.shape, np.bool_)
    for net in home.ipv6:
        matches = [(high, low)[half] & mask == address for half, address, mask in net]
        inside |= matches[0] if len(matches) == 1 else matches[0] & matches[1]
    return inside


def _hash(high: U64s, low: U64s) -> U64s:
    """A 64-bit key of an IPv6 address: multiplications and shifts, the same in every run.

    The top bit is set, so that no IPv6 address has the key of an IPv4 address.
    """
    key = high * _HASH[0]
    key = (key ^ key >> _HALF ^ low) * _HASH[1]
    key = (key ^ key >> _HALF) * _HASH[1]
    hashed: U64s = (key ^ key >> _HALF) | _TOP
    return hashed


def _halves(number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> tuple[int, int]:
    return int(number) >> 64, int(number) & (1 << 64) - 1
