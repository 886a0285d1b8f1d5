"""Capture files: pcap and pcapng, plain or compressed by gzip, from a path or standard input."""

from __future__ import annotations

from collections import deque
from mmap import mmap
from pathlib import Path
from typing import Protocol

import numpy as np

from netspot.errors import CutCapture, SourceError
from netspot.miner import pcap, pcapng
from netspot.miner.decode import PRIVATE, HomeNets, decode
from netspot.miner.headers import Buffer
from netspot.miner.pcap import Index, Pcap, Records, Rows
from netspot.miner.pcapng import Pcapng
from netspot.miner.records import MAX_RECORD
from netspot.miner.stream import Stream
from netspot.packets import Frames, PacketBatch, nothing

CHUNK = 1 << 22  # of the file that is in memory at a time [byte]
OVERRUN = 1 << 17  # zeros behind it, into which the last chains of records may step
MOST = 16_384  # packets in a batch: some 350 bytes each while they are decoded


class Format(Protocol):
    def index(self, raw: Buffer, begin: int, end: int, most: int) -> Index:
        """The whole packets in ``raw[begin:end]``, at most ``most``."""

    def rows(self, records: Records) -> Rows:
        """What one piece of an index tells of its packets."""


class CaptureFile:
    """A capture file as a source; ``-`` is standard input. Its bytes pass once, in order, through one buffer."""

    live = False

    def __init__(self, path: str, home: HomeNets = PRIVATE, snap: int = MAX_RECORD) -> None:
        """Opens the file and reads its header; of each packet ``snap`` bytes are looked at.

        SourceError where there is no capture, CutCapture where it ends within its header.
        """
        self.series = "stdin" if path == "-" else Path(path).name.encode(errors="replace").decode()
        self._name = "standard input" if path == "-" else path
        self._home, self._snap = home, snap
        self._raw = mmap(-1, CHUNK + OVERRUN)  # some processors read slowly to 1 to 31 bytes behind a page's beginning
        self._view, self._data = memoryview(self._raw), np.frombuffer(self._raw, np.uint8)
        self._begin = self._end = 0  # of the bytes in the buffer that are still to come
        self._base = 0  # offset of the buffer in the capture [byte]
        self._over = False
        self._pieces: deque[Records] = deque()
        self._fault = ""  # what is wrong behind the last piece
        self._packets = 0
        self._until_ns = 0
        try:
            self._stream = Stream(path)
        except OSError as error:
            raise SourceError(f"{self._name}: {error.strerror}") from None
        self._format = self._recognise()

    def read(self, timeout_s: float) -> PacketBatch | None:
        """See ``Source``; ``timeout_s`` counts where the bytes come through a pipe."""
        while not self._pieces:
            if self._fault:
                raise self._cut(self._fault)
            if self._begin < self._end and self._index():
                continue
            if self._over and self._begin == self._end and not self._stream.error:
                return None
            if self._over:
                raise self._cut(self._stream.error or "the file ends in the middle of a record")
            if not self._fill(timeout_s):
                return nothing(self._until_ns)
        return self._batch(self._pieces.popleft())

    def progress(self) -> tuple[int, int | None]:
        """Bytes of the file that were read, and how many it has, None where nobody knows."""
        return self._stream.done, self._stream.total

    def close(self) -> None:
        self._stream.close()

    def _recognise(self) -> Format:
        """The format that the first bytes tell; the header of a pcap file is used up."""
        while self._end < pcap.HEADER and not self._over:
            self._fill(None)
        header = bytes(self._view[: min(self._end, pcap.HEADER)])
        if header[:4] == pcapng.MAGIC:
            return Pcapng()
        if header[:4] not in pcap.MAGICS:
            begin = f"it begins with {header[:4].hex(' ')}" if header else "it is empty"
            raise SourceError(f"{self._name}: no capture: {begin}; known are pcap and pcapng, plain or in gzip")
        if len(header) < pcap.HEADER:
            raise self._cut(self._stream.error or "the file ends in its header")
        self._begin = pcap.HEADER
        try:
            return Pcap(header)
        except SourceError as error:
            raise SourceError(f"{self._name}: {error}") from None

    def _index(self) -> bool:
        """Find the packets that the buffer holds; False where more bytes are needed."""
        index = self._format.index(self._raw, self._begin, self._end, MOST)
        self._pieces.extend(index.packets)
        behind = index.stop + index.skip
        found = behind > self._begin or bool(index.fault)
        self._begin, self._fault = behind, index.fault
        return found

    def _fill(self, timeout_s: float | None) -> bool:
        """Read on, behind what is left in the buffer; False where nothing comes in time."""
        if not self._stream.wait(timeout_s):
            return False
        left = max(self._end - self._begin, 0)
        passed = self._end - left
        self._view[:left] = self._view[passed : self._end]
        self._base, self._begin, self._end = self._base + passed, self._begin - passed, left
        while self._end < CHUNK:
            count = self._stream.readinto(self._view[self._end : CHUNK])
            self._end += count
            self._over = not count
            if self._over or not self._stream.wait(0):
                break
        return True

    def _batch(self, records: Records) -> PacketBatch:
        rows = self._format.rows(records)
        captured = np.minimum(rows.captured, np.uint32(self._snap))
        frames = Frames(self._data, rows.start, captured, rows.link_type)
        self._until_ns = max(self._until_ns, int(rows.ts_ns.max()))
        self._packets += len(rows.start)
        try:
            return decode(frames, rows.ts_ns, rows.wire_len, self._home, self._until_ns)
        except SourceError as error:
            raise SourceError(f"{self._name}: {error}") from None

    def _cut(self, what: str) -> CutCapture:
        at = self._base + min(self._begin, self._end)
        return CutCapture(f"{self._name}: {what}, at byte {at}; {self._packets} whole packets before it were read")
