"""What lies between an EtherType and the network header: VLAN tags, MPLS labels, PPPoE, LLC and SNAP.

It moves only the offsets of the rows that carry it, one tag a round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspot.miner.headers import IPV4, Bytes, blank, constant, field, gather, indices
from netspot.miner.link import LLC, NETWORK, Link, by_ppp, by_version
from netspot.packets import Frames

MAX_TAGS = 16  # tags, labels and sublayers that are looked through; a frame with more has no network header

_TAG, _LONG_TAG, _ETAG, _MPLS, _PPPOE, _LLC = 1, 2, 3, 4, 5, 6
_IPV4, _UNTAGGED = constant(np.uint16, IPV4), constant(np.uint8, 0)
_KIND = np.zeros(1 << 16, np.uint8)
_KIND[LLC:0x600] = _LLC
_KIND[[0x8100, 0x88A8, 0x9100, 0x9200]] = _TAG  # 802.1Q, 802.1ad and what came before it
_KIND[[0x8926, 0x892F]] = _LONG_TAG  # VN-tag, HSR
_KIND[0x893F] = _ETAG  # 802.1BR
_KIND[[0x8847, 0x8848]] = _MPLS
_KIND[0x8864] = _PPPOE


def unwrap(frames: Frames, link: Link) -> None:
    """Move network, ethertype and header, in place, behind all tags."""
    ethertype, header = link.ethertype, link.header
    assert header is not None
    rows = indices(ethertype != _IPV4)
    for _ in range(MAX_TAGS):
        rows = rows[_KIND[ethertype[rows]] != _UNTAGGED]
        if not len(rows):
            return
        captured, offset = frames.captured[rows].astype(np.int32), link.network[rows]
        tag = header[rows, :8]
        blank(tag, indices(captured - offset < 8), captured - offset)
        step, inner = _next(tag, ethertype[rows])
        inner[captured - offset < step] = 0
        offset = np.minimum(offset + step, captured)
        link.network[rows], ethertype[rows] = offset, inner
        header[rows] = gather(frames.data, frames.start[rows] + offset, NETWORK)
    ethertype[rows[_KIND[ethertype[rows]] != _UNTAGGED]] = 0


def _next(header: Bytes, ethertype: NDArray[np.uint16]) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Length of one tag [byte] and the EtherType behind it, 0 where none is known."""
    kind = _KIND[ethertype]
    words = [field(header, at, ">u2") for at in (0, 2, 4, 6)]
    last_label = header[:, 2] & 1 == 1  # RFC 3032
    label_type = np.where(last_label, by_version(header[:, 4]), ethertype)
    compressed = header[:, 6] & 1 == 1  # the PPP protocol in one byte (RFC 1661 section 6.5)
    ppp_type = by_ppp(np.where(compressed, header[:, 6], words[3]))
    bare_ip = words[0] == 0x0606  # IP right behind the three bytes of LLC
    snap = (words[0] == 0xAAAA) & (words[1] == 0x0300) & (words[2] == 0)
    llc_type = snap * words[3] + bare_ip * np.uint16(IPV4)
    steps: Any = (0, 4, 6, 8, 4, 8 - compressed, 8 - 5 * bare_ip)
    types: Any = (0, words[1], words[2], words[3], label_type, ppp_type, llc_type)
    step, inner = np.choose(kind, steps), np.choose(kind, types)
    return step.astype(np.int32), inner.astype(np.uint16)
