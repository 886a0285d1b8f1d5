"""What a link type says of its frames, and the pieces that its decoder is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import IPV4, IPV6, Bytes, blank, constant, field, gather, indices
from netspot.packets import Bools, Frames

LLC = 1  # stands for the EtherType where an LLC header follows, as any length that 802.3 allows does
NETWORK = 40  # bytes of the network header that are gathered: IPv6's, or IPv4's with the transport behind it
BROADCAST = constant(np.uint64, 0xFFFF_FFFF_FFFF)
_GROUP, _NONE, _TWO_BYTES = constant(np.uint8, 1), constant(np.uint8, 0), constant(np.uint64, 16)


class Link(NamedTuple):
    """What the link layer tells of each row; shape ``(n,)``."""

    network: NDArray[np.int32]  # offset of the network header from the start of the frame, at most ``captured`` [byte]
    ethertype: NDArray[np.uint16]  # 0 where the link header is cut
    src_mac: NDArray[np.uint64]
    is_broadcast: Bools
    is_multicast: Bools
    header: Bytes | None = None  # shape (n, NETWORK): the bytes from there, whosever they are behind ``captured``


Parser = Callable[[Frames], Link]


def beginning(frames: Frames, width: int) -> Bytes:
    """The first ``width`` bytes of each frame, zero behind the captured length."""
    header = gather(frames.data, frames.start, width)
    blank(header, indices(frames.captured < width), frames.captured)
    return header


def plain(frames: Frames, length: int | NDArray[Any], ethertype: NDArray[Any]) -> Link:
    """A link header of ``length`` bytes without hardware addresses."""
    n = len(frames.start)
    network, known = _behind(frames, length, ethertype)
    return Link(network, known, np.zeros(n, np.uint64), np.zeros(n, np.bool_), np.zeros(n, np.bool_))


def addressed(
    frames: Frames, length: int | NDArray[Any], ethertype: NDArray[Any], header: Bytes, network: Bytes | None = None
) -> Link:
    """With the addresses in ``header``: the destination in bytes 0 to 5, the source in 6 to 11; ``network`` is what
    was gathered behind them.
    """
    offset, known = _behind(frames, length, ethertype)
    is_multicast = header[:, 0] & _GROUP != _NONE
    is_broadcast = np.zeros(len(header), np.bool_)
    group = indices(is_multicast)
    if len(group):
        is_broadcast[group] = field(header[group], 0, ">u8") >> _TWO_BYTES == BROADCAST
        is_multicast[group] ^= is_broadcast[group]
    return Link(offset, known, field(header, 4, ">u8") & BROADCAST, is_broadcast, is_multicast, network)


def inside(frames: Frames, length: NDArray[Any], parse: Parser) -> Link:
    """What ``parse`` finds behind a header of ``length`` bytes."""
    skip = np.minimum(frames.captured, length)
    link = parse(Frames(frames.data, frames.start + skip, frames.captured - skip, frames.link_type))
    link.ethertype[frames.captured < length] = 0
    return link._replace(network=link.network + skip.astype(np.int32))


def choice(*choices: tuple[Bools, int]) -> NDArray[np.uint16]:
    """The EtherType whose mask is set, 0 where none is."""
    chosen = np.zeros(len(choices[0][0]), np.uint16)
    for mask, ethertype in choices:
        chosen[mask] = ethertype
    return chosen


def by_version(first: Bytes) -> NDArray[np.uint16]:
    """EtherType from the first byte of an IP header."""
    version = first >> 4
    return choice((version == 4, IPV4), (version == 6, IPV6))


def by_ppp(protocol: NDArray[Any]) -> NDArray[np.uint16]:
    """EtherType of a PPP protocol number."""
    labels = (protocol == 0x281) | (protocol == 0x283)
    return choice((protocol == 0x21, IPV4), (protocol == 0x57, IPV6), (labels, 0x8847))


def _behind(
    frames: Frames, length: int | NDArray[Any], ethertype: NDArray[Any]
) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    known = ethertype.astype(np.uint16)
    network = np.minimum(frames.captured, length)
    known[network < length] = 0
    return network.astype(np.int32), known
