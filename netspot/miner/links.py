"""The link layer: from the first captured byte of each frame to its network header, whatever lies between.

A link type is a function in ``LINKS`` that looks at the first bytes of all frames of a batch at once. What follows an
EtherType (VLAN tags, MPLS labels, PPPoE, LLC/SNAP) moves only the offsets of the few rows that carry it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspot.errors import SourceError
from netspot.miner.headers import IPV4, IPV6, Bytes, blank, field, gather
from netspot.packets import Bools, Frames

ETHERNET = 1
NETWORK = 40  # bytes of the network header that are gathered: IPv6's, or IPv4's with the transport behind it
BROADCAST = np.uint64(0xFFFF_FFFF_FFFF)
MAX_TAGS = 16  # tags, labels and sublayers that are looked through; a frame with more has no network header
LLC = 1  # stands for the EtherType where an LLC header follows, as any length that 802.3 allows does


class Link(NamedTuple):
    """What the link layer tells of each row; shape ``(n,)``."""

    network: NDArray[np.int32]  # offset of the network header from the start of the frame, at most ``captured`` [byte]
    ethertype: NDArray[np.uint16]
    src_mac: NDArray[np.uint64]
    is_broadcast: Bools
    is_multicast: Bools
    header: Bytes | None = None  # shape (n, NETWORK): the bytes from there, whosever they are behind ``captured``


Parser = Callable[[Frames], Link]


def locate(frames: Frames, network: NDArray[Any] | None = None, ethertype: NDArray[Any] | None = None) -> Link:
    """Find the network header of each frame, and gather it. SourceError where nobody decodes the link type.

    ``network`` (offset in ``frames.data``) and ``ethertype`` where the kernel has told them already.
    """
    if network is None or ethertype is None:
        link = parser(frames.link_type)(frames)
    else:
        offset = np.minimum((network - frames.start).astype(np.int32), frames.captured.view(np.int32))
        link = _ethernet(frames) if frames.link_type == ETHERNET else _plain(offset, ethertype.astype(np.uint16))
        if link.header is not None and (offset != link.network).any():
            link = link._replace(header=None)
        link = link._replace(network=offset, ethertype=ethertype.astype(np.uint16))
    if link.header is None:
        link = link._replace(header=gather(frames.data, frames.start + link.network, NETWORK))
    _unwrap(frames, link)
    return link


def parser(link_type: int) -> Parser:
    """The function that decodes a link type; SourceError, with all that there are, where there is none."""
    if link_type in LINKS:
        return LINKS[link_type][1]
    known = ", ".join(f"{name} {number}" for number, (name, _) in sorted(LINKS.items()))
    raise SourceError(f"link type {link_type} ({FOREIGN.get(link_type, 'unknown')}) is not decoded; known are {known}")


# ---- behind the EtherType ------------------------------------------------------------------------------------------

_TAG, _LONG_TAG, _ETAG, _MPLS, _PPPOE, _LLC = 1, 2, 3, 4, 5, 6
_KIND = np.zeros(1 << 16, np.uint8)
_KIND[LLC:0x600] = _LLC
_KIND[[0x8100, 0x88A8, 0x9100, 0x9200]] = _TAG  # 802.1Q, 802.1ad and what came before it
_KIND[[0x8926, 0x892F]] = _LONG_TAG  # VN-tag, HSR
_KIND[0x893F] = _ETAG  # 802.1BR
_KIND[[0x8847, 0x8848]] = _MPLS
_KIND[0x8864] = _PPPOE


def _unwrap(frames: Frames, link: Link) -> None:
    """Move network, ethertype and header, in place, behind all tags."""
    ethertype, header = link.ethertype, link.header
    assert header is not None
    rows = np.flatnonzero(ethertype != IPV4)
    for _ in range(MAX_TAGS):
        rows = rows[_KIND[ethertype[rows]] != 0]
        if not len(rows):
            return
        captured, offset = frames.captured[rows].astype(np.int32), link.network[rows]
        tag = header[rows, :8]
        blank(tag, np.flatnonzero(captured - offset < 8), captured - offset)
        step, inner = _next(tag, ethertype[rows])
        offset = np.minimum(offset + step, captured)
        link.network[rows], ethertype[rows] = offset, inner
        header[rows] = gather(frames.data, frames.start[rows] + offset, NETWORK)
    ethertype[rows[_KIND[ethertype[rows]] != 0]] = 0


def _next(header: Bytes, ethertype: NDArray[np.uint16]) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Length of one tag [byte] and the EtherType behind it, 0 where none is known."""
    kind = _KIND[ethertype]
    words = [field(header, at, ">u2") for at in (0, 2, 4, 6)]
    last_label = header[:, 2] & 1 == 1  # RFC 3032
    label_type = np.where(last_label, _by_version(header[:, 4]), ethertype)
    compressed = header[:, 6] & 1 == 1  # the PPP protocol in one byte (RFC 1661 section 6.5)
    ppp_type = _by_ppp(np.where(compressed, header[:, 6], words[3]))
    bare_ip = words[0] == 0x0606  # IP right behind the three bytes of LLC
    snap = (words[0] == 0xAAAA) & (words[1] == 0x0300) & (words[2] == 0)
    llc_type = snap * words[3] + bare_ip * np.uint16(IPV4)
    steps: Any = (0, 4, 6, 8, 4, 8 - compressed, 8 - 5 * bare_ip)
    types: Any = (0, words[1], words[2], words[3], label_type, ppp_type, llc_type)
    step, inner = np.choose(kind, steps), np.choose(kind, types)
    return step.astype(np.int32), inner.astype(np.uint16)


def _by_version(first: Bytes) -> NDArray[np.uint16]:
    """EtherType from the first byte of an IP header."""
    version = first >> 4
    return _choice((version == 4, IPV4), (version == 6, IPV6))


def _by_ppp(protocol: NDArray[Any]) -> NDArray[np.uint16]:
    """EtherType of a PPP protocol number."""
    labels = (protocol == 0x281) | (protocol == 0x283)
    return _choice((protocol == 0x21, IPV4), (protocol == 0x57, IPV6), (labels, 0x8847))


def _by_family(family: NDArray[Any]) -> NDArray[np.uint16]:
    """EtherType of an address family: IPv6 is 10 on Linux, 24, 28 and 30 on the BSDs and macOS."""
    ipv6 = (family == 10) | (family == 24) | (family == 28) | (family == 30)
    return _choice((family == 2, IPV4), (ipv6, IPV6))


def _choice(*choices: tuple[Bools, int]) -> NDArray[np.uint16]:
    """The EtherType whose mask is set, 0 where none is."""
    chosen = np.zeros(len(choices[0][0]), np.uint16)
    for mask, ethertype in choices:
        chosen[mask] = ethertype
    return chosen


# ---- link types ----------------------------------------------------------------------------------------------------


def _head(frames: Frames, width: int) -> Bytes:
    """The first ``width`` bytes of each frame, zero behind the captured length."""
    header = gather(frames.data, frames.start, width)
    blank(header, np.flatnonzero(frames.captured < width), frames.captured)
    return header


def _skip(frames: Frames, length: int | NDArray[Any]) -> NDArray[np.int32]:
    """``length``, at most what was captured."""
    return np.minimum(frames.captured, length).astype(np.int32)


def _plain(network: NDArray[np.int32], ethertype: NDArray[np.uint16]) -> Link:
    """A link without hardware addresses."""
    n = len(network)
    return Link(network, ethertype, np.zeros(n, np.uint64), np.zeros(n, np.bool_), np.zeros(n, np.bool_))


def _addressed(header: Bytes, network: NDArray[np.int32], ethertype: NDArray[np.uint16]) -> Link:
    """With the addresses at the start of ``header``: destination in bytes 0 to 5, source in 6 to 11."""
    is_multicast = header[:, 0] & 1 == 1
    is_broadcast = np.zeros(len(header), np.bool_)
    group = np.flatnonzero(is_multicast)
    is_broadcast[group] = field(header[group], 0, ">u8") >> np.uint64(16) == BROADCAST
    is_multicast[group] ^= is_broadcast[group]
    return Link(network, ethertype, field(header, 4, ">u8") & BROADCAST, is_broadcast, is_multicast)


def _ethernet(frames: Frames) -> Link:
    """One gather serves this header and, where no tag stands between, the next one."""
    header = gather(frames.data, frames.start, 14 + NETWORK)
    blank(header[:, :14], np.flatnonzero(frames.captured < 14), frames.captured)
    link = _addressed(header, _skip(frames, 14), field(header, 12, ">u2"))
    return link._replace(header=header[:, 14:])


def _raw(frames: Frames) -> Link:
    return _plain(_skip(frames, 0), _by_version(_head(frames, 1)[:, 0]))


def _only(ethertype: int) -> Parser:
    """A link type that has no header: all frames begin with the same protocol."""
    return lambda frames: _plain(_skip(frames, 0), np.full(len(frames.start), ethertype, np.uint16))


def _null(frames: Frames) -> Link:
    """A word with the address family, in the byte order of the machine that captured: the smaller reading is it."""
    header = _head(frames, 4)
    family = np.minimum(field(header, 0, ">u4"), field(header, 0, "<u4"))
    return _plain(_skip(frames, 4), _by_family(family))


def _ppp(frames: Frames) -> Link:
    """RFC 1661, with or without the address and control bytes of RFC 1662, or Cisco's HDLC."""
    header = _head(frames, 4)
    start = field(header, 0, ">u2")
    cisco = (start == 0x0F00) | (start == 0x8F00)
    framed = (start == 0xFF03) | cisco
    high = np.where(framed, header[:, 2], header[:, 0])
    compressed = (high & 1 == 1) & ~cisco
    protocol = np.where(framed, field(header, 2, ">u2"), start)
    ethertype = np.where(cisco, protocol, _by_ppp(np.where(compressed, high, protocol)))
    return _plain(_skip(frames, 2 * framed + 2 - compressed), ethertype.astype(np.uint16))


def _sll(frames: Frames) -> Link:
    """Linux cooked capture: packet type, ARPHRD_ type, length of the sender's address, address, protocol."""
    header = _head(frames, 16)
    columns = header[:, 1], field(header, 2, ">u2"), header[:, 5], field(header, 6, ">u8"), field(header, 14, ">u2")
    return _cooked(_skip(frames, 16), *columns)


def _sll2(frames: Frames) -> Link:
    header = _head(frames, 20)
    columns = header[:, 10], field(header, 8, ">u2"), header[:, 11], field(header, 12, ">u8"), field(header, 0, ">u2")
    return _cooked(_skip(frames, 20), *columns)


def _cooked(
    network: NDArray[np.int32],
    packet_type: Bytes,
    arphrd: NDArray[np.uint16],
    address_length: Bytes,
    address: NDArray[np.uint64],
    protocol: NDArray[np.uint16],
) -> Link:
    other = (arphrd == 824) | (arphrd == 803) | (arphrd == 801) | (arphrd == 802)  # netlink, 802.11: no EtherType
    ethertype = np.where(other, 0, np.where(protocol == 4, LLC, protocol * (protocol >= 0x600)))
    src_mac = (address >> np.uint64(16)) * (address_length == 6)
    return Link(network, ethertype.astype(np.uint16), src_mac, packet_type == 1, packet_type == 2)


# ---- 802.11 and the headers that captures put before a frame -------------------------------------------------------


def _wifi(frames: Frames, padded: Bools | None = None) -> Link:
    """IEEE 802.11: a data frame has an LLC header behind addresses, QoS control and HT control.

    Encrypted frames and later fragments have no network header. Of an A-MSDU the first subframe is seen.
    ``padded``: the headers that capturing hardware filled up to a multiple of four bytes.
    """
    header = _head(frames, 34)
    to_ds, from_ds = header[:, 1] & 1 == 1, header[:, 1] & 2 == 2
    data = (header[:, 0] & 0x4C) == 0x08  # type 2, not one of the subtypes without a body
    qos = (header[:, 0] & 0x8C) == 0x88
    four = to_ds & from_ds
    length = 24 + 6 * four + qos * (2 + 4 * (header[:, 1] >> 7))
    if padded is not None:
        length = np.where(padded, length + 3 & ~3, length)
    amsdu = qos & (np.where(four, header[:, 30], header[:, 24]) & 0x80 != 0)
    clear = (header[:, 1] & 0x40 == 0) & (header[:, 22] & 0x0F == 0)
    addresses = np.zeros((len(header), 12), np.uint8)
    addresses[:, :6] = np.where(to_ds[:, None], header[:, 16:22], header[:, 4:10])
    source = np.where(from_ds[:, None], header[:, 16:22], header[:, 10:16])
    addresses[:, 6:] = np.where(four[:, None], header[:, 24:30], source)
    addresses *= header[:, :1] & 0x0C == 0x08
    return _addressed(addresses, _skip(frames, length + 14 * amsdu), (data & clear) * np.uint16(LLC))


def _radiotap(frames: Frames) -> Link:
    header = _head(frames, 48)
    words = np.ones(len(header), np.int64)  # of the presence bitmap: each says whether another follows
    for k in range(8):
        more = field(header, 4 + 4 * k, "<u4") >> 31 == 1
        words += more & (words == k + 1)
    at = 4 + 4 * words
    at = np.where(header[:, 4] & 1 == 1, (at + 7 & ~7) + 8, at)  # a time in microseconds, aligned
    flags = header[np.arange(len(header)), np.minimum(at, 47)]
    padded = (header[:, 4] & 2 == 2) & (flags & 0x20 != 0)
    return _inside(frames, field(header, 2, "<u2"), lambda inner: _wifi(inner, padded))


def _ppi(frames: Frames) -> Link:
    """Per-packet information: its header names the link type of what follows, which may differ from row to row."""
    header = _head(frames, 8)
    length, numbers = field(header, 2, "<u2"), field(header, 4, "<u4")
    link = _plain(_skip(frames, length), np.zeros(len(header), np.uint16))
    for number in set(numbers.tolist()) & set(LINKS) - {PPI}:
        rows = np.flatnonzero(numbers == number)
        part = Frames(frames.data, frames.start[rows], frames.captured[rows], number)
        found = _inside(part, length[rows], LINKS[number][1])
        columns: Any = zip(link[:5], found[:5], strict=True)
        for column, values in columns:
            column[rows] = values
    return link


def _inside(frames: Frames, length: NDArray[Any], parse: Parser) -> Link:
    """What ``parse`` finds behind a header of ``length`` bytes."""
    skip = _skip(frames, length)
    inner = Frames(frames.data, frames.start + skip, frames.captured - skip.astype(np.uint32), frames.link_type)
    link = parse(inner)
    return link._replace(network=link.network + skip)


def _nflog(frames: Frames) -> Link:
    """Netfilter log: family, version, resource; then attributes, of which number 9 is the packet.

    Length and number of an attribute are in the byte order of the machine that captured.
    """
    family = _head(frames, 1)[:, 0]
    at = _skip(frames, 4)
    ethertype = np.zeros(len(at), np.uint16)
    rows = np.arange(len(at))
    for _ in range(64):  # attributes that are looked through; the kernel writes about twenty kinds
        available = frames.captured[rows].astype(np.int32) - at[rows]
        header = gather(frames.data, frames.start[rows] + at[rows], 4)
        blank(header, np.flatnonzero(available < 4), available)
        swapped = field(header, 2, "<u2") & 0xFF00 != 0  # attribute numbers are small
        length = np.where(swapped, field(header, 0, ">u2"), field(header, 0, "<u2")).astype(np.int32)
        number = np.where(swapped, field(header, 2, ">u2"), field(header, 2, "<u2")) & 0x7FFF
        packet = (number == 9) & (length >= 4)
        ethertype[rows[packet]] = _by_family(family[rows[packet]])
        at[rows] += np.minimum(np.where(packet, 4, length + 3 & ~3), available).astype(np.int32)
        rows = rows[~packet & (length >= 4)]
        if not len(rows):
            break
    return _plain(at, ethertype)


PPI = 192

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
    105: ("802.11", _wifi),
    108: ("LOOP", _null),
    113: ("Linux cooked", _sll),
    127: ("802.11 radiotap", _radiotap),
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
