"""Header bytes at an offset per row, as arrays: what the link layer and the decoder are made of."""

from __future__ import annotations

from functools import cache
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspot.packets import Bools

Buffer = bytearray | mmap  # bytes of a file, in place
Bytes = NDArray[np.uint8]
Offsets = NDArray[np.int64]

IPV4, IPV6, ARP, RARP = 0x0800, 0x86DD, 0x0806, 0x8035  # EtherTypes


def constant(dtype: type, value: int) -> NDArray[Any]:
    """A number as an array of shape ``()``: numpy makes one of any other operand, which takes as long as the operation
    on a few hundred rows.
    """
    return np.array(value, dtype)


def indices(mask: Bools) -> NDArray[np.intp]:
    """Where ``mask`` holds: ``np.flatnonzero`` without the Python around it."""
    return mask.nonzero()[0]


def gather(data: Bytes, offsets: Offsets, width: int) -> Bytes:
    """``width`` bytes from each of ``offsets``, shape ``(n, width)``.

    One index a row: the data seen as overlapping records of ``width`` bytes, of which numpy copies whole ones.
    """
    records = np.ndarray((max(len(data) - width + 1, 0),), f"V{width}", data, strides=(1,))
    return records[offsets].view(np.uint8).reshape(len(offsets), width)


def blank(header: Bytes, rows: NDArray[np.intp], available: NDArray[Any]) -> None:
    """Zero, in place, what lies behind the captured length in the given rows: those bytes are another frame's."""
    if len(rows):
        inside = np.arange(header.shape[1]) < available[rows, None]
        header[rows] = header[rows] * inside


@cache
def _column(dtype: str) -> tuple[np.dtype[Any], np.dtype[Any]]:
    kind = np.dtype(dtype)
    return kind, kind.newbyteorder("=")


def field(header: Bytes, at: int, dtype: str) -> NDArray[Any]:
    """The field of ``dtype`` at byte ``at`` of each row, contiguous, in the machine's byte order."""
    kind, native = _column(dtype)
    return header[:, at : at + kind.itemsize].view(kind)[:, 0].astype(native)
