"""Incidents as capture files: the sampled headers from half a minute before until the end, written in a thread.

``incidents/<id>.pcap`` (nanoseconds, the link type of the source) is written under a hidden name and gets its own
when the incident is over, so that a reader never sees half of one. Together the files stay below a size; the oldest
make room. A disk that is full costs captures, never a window; the windows that a file lacks because the disk is slow
are counted.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import queue
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspot.events import Event, Incident, Window
from netspot.miner.evidence import WIDTH, Headers, Seen
from netspot.miner.headers import gather

log = logging.getLogger("netspot.captures")

BEFORE_NS = 30 * 10**9  # what a file shows of the time before the alarm
RING_BYTES = 4 << 20  # of that, in memory
QUEUE_BYTES = 16 << 20  # windows on their way to the disk; more are dropped and counted
WINDOW_BYTES = 1 << 10  # what a window takes beside its rows
MAGIC = 0xA1B23C4D  # pcap with nanoseconds
RAW = 101  # LINKTYPE_RAW: the frame begins with its IP header
RUN = os.urandom(4).hex()  # tells the unfinished files of this process from those that a crash left behind

Rename = Callable[[str], str]  # an address -> the one that is told instead


class Captures:
    """Fed on the main loop with each window and its events; the disk is touched by a thread of its own alone."""

    def __init__(self, folder: Path, mib: int, rename: Rename | None = None) -> None:
        """``rename``: keep no address, and nothing behind the headers, but what it makes of them."""
        self.dropped = 0  # windows that the disk was too slow for
        self._folder, self._limit, self._rename = folder, mib << 20, rename
        self._ring: deque[tuple[int, Headers]] = deque()
        self._ring_bytes = 0
        self._open = ""
        self._begun = False  # something of the open incident is on its way
        # Bounded by bytes; an end follows only what was begun, so that ends need no bound of their own.
        self._queue: queue.SimpleQueue[tuple[str, list[Headers]] | None] = queue.SimpleQueue()
        self._given = self._taken = 0  # bytes, each written by one thread
        self._thread = threading.Thread(target=self._write_all, name="captures", daemon=True)
        self._thread.start()

    def step(self, window: Window, samples: Sequence[Any], events: Sequence[Event], health: Mapping[str, Any]) -> None:
        """Take the window's headers; begin or end a file where an incident does."""
        headers = window.evidence.get("headers")
        if headers is not None and len(headers.ts_ns):
            self._remember(window.end_ns, headers)
            if self._open:
                self._put([headers])
        for event in events:
            if isinstance(event, Incident) and event.event_type == "opened":
                self._end()
                self._open = event.id
                self._put([earlier for _, earlier in self._ring])
            elif isinstance(event, Incident) and event.event_type == "closed":
                self._end()

    def path(self, id: str) -> Path | None:
        """The finished file of an incident; any thread may ask."""
        path = self._folder / f"{id}.pcap"
        return path if path.is_file() else None

    def close(self) -> None:
        """End the file that is being written; waits for the disk at most a second, then its thread goes on alone."""
        self._end()
        self._queue.put(None)
        self._thread.join(1)

    def _remember(self, now_ns: int, headers: Headers) -> None:
        self._ring.append((now_ns, headers))
        self._ring_bytes += headers.nbytes
        while len(self._ring) > 1 and (
            self._ring_bytes > RING_BYTES or not 0 <= now_ns - self._ring[0][0] <= BEFORE_NS
        ):
            self._ring_bytes -= self._ring.popleft()[1].nbytes

    def _put(self, windows: list[Headers]) -> None:
        size = _size(windows)
        if self._given - self._taken + size > QUEUE_BYTES:
            self.dropped += len(windows)
        elif windows:
            self._given += size
            self._begun = True
            self._queue.put((self._open, windows))

    def _end(self) -> None:
        if self._begun:
            self._queue.put((self._open, []))
        self._open, self._begun = "", False

    # In the thread ----------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        file = _File(self._folder, self._limit)
        file.tidy()
        while (item := self._queue.get()) is not None:
            id, windows = item
            for headers in windows:
                file.append(id, *records(headers, self._rename))
            if not windows:
                file.finish()
            self._taken += _size(windows)
        file.finish()


def _size(windows: list[Headers]) -> int:
    return sum(headers.nbytes + WINDOW_BYTES for headers in windows)


class _File:
    """The capture file that is being written, and the room that all have."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._id = ""
        self._size = self._link_type = 0
        self._full = self._failed = False

    def append(self, id: str, data: bytes, link_type: int) -> None:
        """Write to the file of incident ``id``. It ends before the first window that its share has no room for.

        A disk that is full removes it.
        """
        if id != self._id:
            self.finish()
            self._id, self._link_type = id, link_type
        if self._full or link_type != self._link_type or not data:
            return
        head = b"" if self._size else struct.pack("<IHHiIII", MAGIC, 2, 4, 0, 0, WIDTH, link_type)
        if self._size + len(head) + len(data) > self._limit // 4:
            self._full = True
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(len(head) + len(data))
            with self._part.open("ab" if self._size else "wb") as file:
                file.write(head + data)
            self._size += len(head) + len(data)
        except OSError as error:
            self._fail(error)

    def finish(self) -> None:
        """Give the file its name."""
        if self._size:
            try:
                self._part.replace(self._folder / f"{self._id}.pcap")
            except OSError as error:
                self._fail(error)
        self._id, self._size, self._full = "", 0, False

    def tidy(self) -> None:
        """Remove what a crash left behind."""
        try:
            for path in self._folder.glob(".*.pcap.part"):
                if not path.name.endswith(self._suffix):  # an earlier thread of this process may still be writing
                    path.unlink()
        except OSError as error:
            self._fail(error)

    _suffix = f".{RUN}.pcap.part"

    @property
    def _part(self) -> Path:
        return self._folder / f".{self._id}{self._suffix}"

    def _make_room(self, size: int) -> None:
        files = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self._folder.glob("*.pcap"))
        total = sum(size for _, size, _ in files) + self._size + size
        for _, old, path in files:
            if total <= self._limit:
                return
            path.unlink()
            total -= old

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            log.warning("%s: no captures of incidents for now: %s", self._folder, error.strerror or error)
        self._failed = True
        try:
            self._part.unlink(missing_ok=True)
        except OSError:
            log.debug("%s stays", self._part)
        self._size, self._full = 0, True  # nothing more of this incident


def records(headers: Headers, rename: Rename | None = None) -> tuple[bytes, int]:
    """``headers`` as records of a pcap file, and their link type (RAW without IP's frame where addresses change)."""
    data, captured, wire_len, link_type = headers.data, headers.captured, headers.wire_len, headers.link_type
    ts_ns = headers.ts_ns
    if rename is not None:
        rows, data, captured, skipped = _renamed(headers, rename)
        ts_ns, wire_len, link_type = ts_ns[rows], np.maximum(wire_len[rows] - skipped, captured), RAW
    head = np.stack([ts_ns // 10**9, ts_ns % 10**9, captured, wire_len], axis=1).astype("<u4")
    both = np.concatenate([head.view(np.uint8).reshape(len(head), 16), data], axis=1)
    return both[np.arange(16 + WIDTH) < 16 + captured[:, None]].tobytes(), link_type


Renamed = tuple[NDArray[np.intp], NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32]]


def _renamed(headers: Headers, rename: Rename) -> Renamed:
    """(rows with IP addresses, their bytes from the IP header on, lengths, bytes of the link header).

    Nothing that depends on an address stays: no checksum (RFC 1071: one hidden byte could be solved for), no options,
    no payload, no gateway of a redirect, and no transport but TCP's, UDP's and ICMP's first bytes.
    """
    seen = Seen(headers)
    p = seen.packets
    rows = np.flatnonzero(p.has_addr)
    at = (seen.network[rows] - seen.frames.start[rows]).astype(np.uint32)
    data = gather(seen.frames.data, seen.network[rows], WIDTH)
    four = p.is_ipv4[rows]
    internet = np.where(four, (data[:, 0] & 15) * np.uint32(4), 40).astype(np.uint32)
    captured = np.minimum(headers.captured[rows] - at, internet)
    data[four, 10:12] = 0
    data[:, 20:60][four[:, None] & (np.arange(20, 60) < internet[:, None])] = 0
    direct = np.where(four, data[:, 9], data[:, 6]) == p.ip_proto[rows]  # not behind extension headers
    for mask, size, hidden in ((p.is_tcp, 20, (16, 18)), (p.is_udp, 8, (6, 8)), (p.is_icmp | p.is_icmp6, 8, (2, 8))):
        kept = np.flatnonzero(direct & mask[rows])
        captured[kept] = np.minimum(headers.captured[rows[kept]] - at[kept], internet[kept] + np.uint32(size))
        data[kept[:, None], internet[kept, None] + np.arange(*hidden)] = 0
    for places, select in (((12, 16), four), ((8, 24), ~four)):
        size = 4 if places[0] == 12 else 16
        for place in places:
            part = np.ascontiguousarray(data[select, place : place + size])
            unique, inverse = np.unique(part, axis=0, return_inverse=True)
            told = [_packed(rename(str(ipaddress.ip_address(address.tobytes())))) for address in unique]
            if told:
                data[select, place : place + size] = np.array(told, np.uint8)[inverse.reshape(-1)]
    return rows, data, captured, at


def _packed(text: str) -> list[int]:
    return list(ipaddress.ip_address(text.partition("/")[0]).packed)
