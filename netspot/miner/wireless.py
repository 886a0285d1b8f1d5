"""IEEE 802.11 frames, plain or behind a radiotap header (radiotap.org)."""

from __future__ import annotations

import numpy as np

from netspot.miner.headers import field
from netspot.miner.link import LLC, Link, addressed, beginning, inside
from netspot.packets import Bools, Frames


def wifi(frames: Frames, padded: Bools | None = None) -> Link:
    """IEEE 802.11: a data frame has an LLC header behind addresses, QoS control and HT control.

    Encrypted frames and later fragments have no network header. Of an A-MSDU the first subframe is seen.
    ``padded``: the headers that capturing hardware filled up to a multiple of four bytes.
    """
    header = beginning(frames, 34)
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
    return addressed(frames, length + 14 * amsdu, (data & clear) * LLC, addresses)


def radiotap(frames: Frames) -> Link:
    header = beginning(frames, 48)
    words = np.ones(len(header), np.int64)  # of the presence bitmap: each says whether another follows
    for k in range(8):
        more = field(header, 4 + 4 * k, "<u4") >> 31 == 1
        words += more & (words == k + 1)
    at = 4 + 4 * words
    at = np.where(header[:, 4] & 1 == 1, (at + 7 & ~7) + 8, at)  # a time in microseconds, aligned
    flags = header[np.arange(len(header)), np.minimum(at, 47)]
    padded = (header[:, 4] & 2 == 2) & (flags & 0x20 != 0)
    return inside(frames, field(header, 2, "<u2"), lambda frame: wifi(frame, padded))
