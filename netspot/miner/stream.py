"""The bytes of a file, a pipe or standard input, from first to last; what gzip compressed is expanded on the way."""

from __future__ import annotations

import os
import select
import stat
import zlib
from io import FileIO

GZIP = b"\x1f\x8b"
INPUT = 1 << 16  # compressed bytes in memory
OUTPUT = 1 << 18  # expanded bytes in memory: of a bomb, too, one piece after the other


class Stream:
    """Never seeks. What breaks on the way ends the stream, and ``error`` says what it was."""

    def __init__(self, path: str) -> None:
        """``-`` is standard input. OSError where the file cannot be opened."""
        self._raw = FileIO(0, closefd=False) if path == "-" else FileIO(path)
        state = os.fstat(self._raw.fileno())
        self._ready = stat.S_ISREG(state.st_mode)
        self.total = state.st_size if self._ready else None  # [byte], None where nobody knows
        self.done = 0  # read so far, of the file itself [byte]
        self.error = ""
        self._head = self._read(2)
        if len(self._head) == 1:
            self._head += self._read(1)
        self._gzip = zlib.decompressobj(31) if self._head == GZIP else None

    def wait(self, timeout_s: float | None) -> bool:
        """Whether ``readinto`` will return without delay, now or within ``timeout_s`` [s]."""
        pending = self._head or (self._gzip is not None and self._gzip.unconsumed_tail)
        return self._ready or bool(pending) or bool(select.select([self._raw], [], [], timeout_s)[0])

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of ``view``; the number of bytes, 0 at the end."""
        if self._gzip is not None:
            piece = self._expand(min(len(view), OUTPUT))
        elif self._head:
            piece, self._head = self._head[: len(view)], self._head[len(view) :]
        else:
            return self._fill(view)
        view[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._raw.close()

    def _expand(self, most: int) -> bytes:
        piece = b""
        while not piece and not self.error and self._gzip is not None:
            if self._gzip.eof:  # perhaps another member follows
                self._head = self._gzip.unused_data or self._read(INPUT)
                if len(self._head) == 1:
                    self._head += self._read(INPUT)
                if self._head[:2] != GZIP:
                    break
                self._gzip = zlib.decompressobj(31)
            data = self._gzip.unconsumed_tail or self._head or self._read(INPUT)
            self._head = b""
            before = self._gzip.copy()
            try:
                piece = self._gzip.decompress(data, most)
            except zlib.error:
                self.error = "the compressed data are broken"
                piece = _before_the_fault(before, data, most)
            if not data and not piece and not self._gzip.eof:
                self.error = "the compressed data end early"
        return piece

    def _read(self, most: int) -> bytes:
        view = memoryview(bytearray(most))
        return bytes(view[: self._fill(view)])

    def _fill(self, view: memoryview) -> int:
        try:
            count = self._raw.readinto(view) or 0
        except OSError as error:
            self.error = f"reading fails ({error.strerror})"
            count = 0
        self.done += count
        return count


def _before_the_fault(state: zlib._Decompress, data: bytes, most: int) -> bytes:
    """What ``data``, in which the expansion fails, gives until it does: zlib drops all that it made in one call."""
    pieces = []
    while most:
        trial = state.copy()
        try:
            pieces.append(trial.decompress(data, most))
            state, data = trial, trial.unconsumed_tail
        except zlib.error:
            most //= 2
    return b"".join(pieces)
