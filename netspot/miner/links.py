"""The link types: from the first captured byte of each frame to its network header, a batch of frames at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspot.errors import SourceError
from netspot.miner.headers import IPV4, IPV6, Bytes, blank, constant, field, gather, indices
from netspot.miner.link import (
    LLC,
    NETWORK,
    Link,
    Parser,
    addressed,
    beginning,
    by_ppp,
    by_version,
    choice,
    inside,
    plain,
)
from netspot.miner.tags import unwrap
from netspot.miner.wireless import radiotap, wifi
from netspot.packets import Frames

ETHERNET, PPI = 1, 192
_ETHERNET_HEADER = constant(np.uint32, 14)  # [byte]


def locate(frames: Frames) -> Link:
    """Find the network header of each frame, and gather it. SourceError where nobody decodes the link type."""
    link = parser(frames.link_type)(frames)
    if link.header is None:
        link = link._replace(header=gather(frames.data, frames.start + link.network, NETWORK))
    unwrap(frames, link)
    return link


def parser(link_type: int) -> Parser:
    """The function that decodes a link type; SourceError, with all that there are, where there is none."""
    if link_type in LINKS:
        return LINKS[link_type][1]
    known = ", ".join(f"{name} {number}" for number, (name, _) in sorted(LINKS.items()))
    raise SourceError(f"link type {link_type} ({FOREIGN.get(link_type, 'unknown')}) is not decoded; known are {known}")


def _ethernet(frames: Frames) -> Link:
    """One gather serves this header and, where no tag stands between, the next one."""
    header = gather(frames.data, frames.start, 14 + NETWORK)
    blank(header[:, :14], indices(frames.captured < _ETHERNET_HEADER), frames.captured)
    return addressed(frames, 14, field(header, 12, ">u2"), header, header[:, 14:])


def _raw(frames: Frames) -> Link:
    return plain(frames, 0, by_version(beginning(frames, 1)[:, 0]))


def _only(ethertype: int) -> Parser:
    """A link type that has no header: all frames begin with the same protocol."""
    return lambda frames: plain(frames, 0, np.full(len(frames.start), ethertype, np.uint16))


def _null(frames: Frames) -> Link:
    """A word with the address family, in the byte order of the machine that captured: the smaller reading is it."""
    header = beginning(frames, 4)
    return plain(frames, 4, _by_family(np.minimum(field(header, 0, ">u4"), field(header, 0, "<u4"))))


def _by_family(family: NDArray[Any]) -> NDArray[np.uint16]:
    """EtherType of an address family: IPv6 is 10 on Linux, 24, 28 and 30 on the BSDs and macOS."""
    ipv6 = (family == 10) | (family == 24) | (family == 28) | (family == 30)
    return choice((family == 2, IPV4), (ipv6, IPV6))


def _ppp(frames: Frames) -> Link:
    """RFC 1661, with or without the address and control bytes of RFC 1662, or Cisco's HDLC."""
    header = beginning(frames, 4)
    start = field(header, 0, ">u2")
    cisco = (start == 0x0F00) | (start == 0x8F00)
    framed = (start == 0xFF03) | cisco
    high = np.where(framed, header[:, 2], header[:, 0])
    compressed = (high & 1 == 1) & ~cisco
    protocol = np.where(framed, field(header, 2, ">u2"), start)
    ethertype = np.where(cisco, protocol, by_ppp(np.where(compressed, high, protocol)))
    return plain(frames, 2 * framed + 2 - compressed, ethertype)


def _sll(frames: Frames) -> Link:
    """Linux cooked capture: packet type, ARPHRD_ type, length of the sender's address, address, protocol."""
    header = beginning(frames, 16)
    return _cooked(plain(frames, 16, _cooked_type(header, 14, 2)), header[:, 1], header[:, 5], header[:, 6:14])


def _sll2(frames: Frames) -> Link:
    header = beginning(frames, 20)
    return _cooked(plain(frames, 20, _cooked_type(header, 0, 8)), header[:, 10], header[:, 11], header[:, 12:20])


def _cooked_type(header: Bytes, at: int, arphrd_at: int) -> NDArray[np.uint16]:
    """The EtherType that a cooked header's protocol is, except for netlink and 802.11."""
    protocol, arphrd = field(header, at, ">u2"), field(header, arphrd_at, ">u2")
    foreign = (arphrd == 824) | ((arphrd >= 801) & (arphrd <= 803)) | (protocol < 0x600)
    return np.where(protocol == 4, LLC, np.where(foreign, 0, protocol)).astype(np.uint16)


def _cooked(link: Link, packet_type: Bytes, length: Bytes, address: Bytes) -> Link:
    src_mac = (field(address, 0, ">u8") >> np.uint64(16)) * (length == 6)
    return link._replace(src_mac=src_mac, is_broadcast=packet_type == 1, is_multicast=packet_type == 2)


def _ppi(frames: Frames) -> Link:
    """Per-packet information: its header names the link type of what follows, which may differ from row to row."""
    header = beginning(frames, 8)
    length, numbers = field(header, 2, "<u2"), field(header, 4, "<u4")
    link = plain(frames, length, np.zeros(len(header), np.uint16))
    for number in set(numbers.tolist()) & set(LINKS) - {PPI}:
        rows = indices(numbers == number)
        part = Frames(frames.data, frames.start[rows], frames.captured[rows], number)
        found = inside(part, length[rows], LINKS[number][1])
        columns: Any = zip(link[:5], found[:5], strict=True)
        for column, values in columns:
            column[rows] = values
    return link


def _nflog(frames: Frames) -> Link:
    """Netfilter log: family, version, resource; then attributes, of which number 9 is the packet.

    Length and number of an attribute are in the byte order of the machine that captured.
    """
    family = beginning(frames, 1)[:, 0]
    at = np.minimum(frames.captured, 4).astype(np.int32)
    ethertype = np.zeros(len(at), np.uint16)
    rows = np.arange(len(at))
    for _ in range(64):  # attributes that are looked through; the kernel writes about twenty kinds
        available = frames.captured[rows].astype(np.int32) - at[rows]
        header = gather(frames.data, frames.start[rows] + at[rows], 4)
        blank(header, indices(available < 4), available)
        swapped = field(header, 2, "<u2") & 0xFF00 != 0  # attribute numbers are small
        length = np.where(swapped, field(header, 0, ">u2"), field(header, 0, "<u2")).astype(np.int32)
        number = np.where(swapped, field(header, 2, ">u2"), field(header, 2, "<u2")) & 0x7FFF
        packet = (number == 9) & (length >= 4) & (available >= 4)
        ethertype[rows[packet]] = _by_family(family[rows[packet]])
        at[rows] += np.minimum(np.where(packet, 4, length + 3 & ~3), available).astype(np.int32)
        rows = rows[~packet & (length >= 4) & (available >= 4)]
        if not len(rows):
            break
    return plain(frames, at, ethertype)


LINKS: dict[int, tuple[str, Parser]] = {
    0: ("NULL", _null),
    ETHERNET: ("Ethernet", _ethernet),
    9: ("PPP", _ppp),
    12: ("raw IP", _raw),
    14: ("raw IP", _raw),
    50: ("PPP in HDLC", _ppp),
    51: ("PPPoE", _only(0x8864)),
    101: ("raw IP", _raw),
    104: ("Cisco HDLC", _ppp),
    105: ("802.11", wifi),
    108: ("LOOP", _null),
    113: ("Linux cooked", _sll),
    127: ("802.11 radiotap", radiotap),
    PPI: ("PPI", _ppi),
    219: ("MPLS", _only(0x8847)),
    228: ("IPv4", _only(IPV4)),
    229: ("IPv6", _only(IPV6)),
    239: ("NFLOG", _nflog),
    276: ("Linux cooked v2", _sll2),
}
# Names of some that nobody decodes here, for the error message.
FOREIGN = {
    6: "Token Ring", 10: "FDDI", 107: "Frame Relay", 119: "Prism", 163: "AVS", 187: "Bluetooth HCI H4", 189: "USB",
    195: "802.15.4", 197: "ERF", 201: "Bluetooth HCI H4 with direction", 220: "USB", 227: "CAN", 230: "802.15.4",
    251: "Bluetooth LE", 253: "Netlink", 256: "Bluetooth LE with radio", 272: "NORDIC BLE", 283: "802.15.4 TAP",
}  # fmt: skip
