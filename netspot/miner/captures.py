"""Incidents as capture files: the sampled headers from half a minute before until the end, written in a thread.

``incidents/<id>.pcap`` (nanoseconds, the link type of the source) is written under a hidden name and gets its own
when the incident is over, so that a reader never sees half of one. Together the files stay below a size; the oldest
make room. A disk that is full costs captures, never a window.
"""

from __future__ import annotations

import ipaddress
import logging
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
QUEUE = 256  # windows on their way to the disk; more are dropped and counted
MAGIC = 0xA1B23C4D  # pcap with nanoseconds
RAW = 101  # LINKTYPE_RAW: the frame begins with its IP header

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
        self._queue: queue.Queue[tuple[str, Headers | None] | None] = queue.Queue(QUEUE)
        self._thread = threading.Thread(target=self._write_all, name="captures", daemon=True)
        self._thread.start()

    def step(self, window: Window, samples: Sequence[Any], events: Sequence[Event], health: Mapping[str, Any]) -> None:
        """Take the window's headers; begin or end a file where an incident does."""
        headers = window.evidence.get("headers")
        if headers is not None and len(headers.ts_ns):
            self._remember(window.end_ns, headers)
            if self._open:
                self._put(self._open, headers)
        for event in events:
            if isinstance(event, Incident) and event.event_type == "opened":
                self._open = event.id
                for _, earlier in self._ring:
                    self._put(event.id, earlier)
            elif isinstance(event, Incident) and event.event_type == "closed" and self._open:
                self._put(self._open, None)
                self._open = ""

    def path(self, id: str) -> Path | None:
        """The finished file of an incident; any thread may ask."""
        path = self._folder / f"{id}.pcap"
        return path if path.is_file() else None

    def close(self) -> None:
        """End the file that is being written; waits for the disk at most ten seconds."""
        if self._open:
            self._put(self._open, None)
            self._open = ""
        try:
            self._queue.put(None, timeout=5)
        except queue.Full:
            return
        self._thread.join(5)

    def _remember(self, now_ns: int, headers: Headers) -> None:
        self._ring.append((now_ns, headers))
        self._ring_bytes += headers.nbytes
        while len(self._ring) > 1 and (
            self._ring_bytes > RING_BYTES or not 0 <= now_ns - self._ring[0][0] <= BEFORE_NS
        ):
            self._ring_bytes -= self._ring.popleft()[1].nbytes

    def _put(self, id: str, headers: Headers | None) -> None:
        try:
            self._queue.put_nowait((id, headers))
        except queue.Full:
            self.dropped += 1

    # In the thread ----------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        file = _File(self._folder, self._limit)
        file.tidy()
        while (item := self._queue.get()) is not None:
            id, headers = item
            if headers is None:
                file.finish()
                continue
            data, link_type = records(headers, self._rename)
            file.append(id, data, link_type)
        file.finish()


class _File:
    """The capture file that is being written, and the room that all have."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._id = ""
        self._size = self._link_type = 0
        self._failed = False

    def append(self, id: str, data: bytes, link_type: int) -> None:
        """Write to the file of incident ``id``; one that fills its share of the room, or the disk, ends early."""
        if id != self._id:
            self.finish()
            self._id, self._size, self._link_type = id, 0, link_type
        if self._size < 0 or link_type != self._link_type or not data:
            return
        head = b"" if self._size else struct.pack("<IHHiIII", MAGIC, 2, 4, 0, 0, WIDTH, link_type)
        if self._size + len(data) > self._limit // 4:
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
        if self._id and self._size > 0:
            try:
                self._part.replace(self._folder / f"{self._id}.pcap")
            except OSError as error:
                self._fail(error)
        self._id, self._size = "", 0

    def tidy(self) -> None:
        """Remove what a crash left behind."""
        try:
            for path in self._folder.glob(".*.pcap.part"):
                path.unlink()
        except OSError as error:
            self._fail(error)

    @property
    def _part(self) -> Path:
        return self._folder / f".{self._id}.pcap.part"

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
        self._size = -1  # nothing more of this incident


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
    """(rows with IP addresses, their bytes from the IP header on, lengths, bytes of the link header)."""
    seen = Seen(headers)
    p = seen.packets
    rows = np.flatnonzero(p.has_addr)
    at = (seen.network[rows] - seen.frames.start[rows]).astype(np.uint32)
    data = gather(seen.frames.data, seen.network[rows], WIDTH)
    four = p.is_ipv4[rows]
    internet = np.where(four, (data[:, 0] & 15) * np.uint32(4), 40)
    transport = np.where(p.is_tcp[rows], 20, 8)  # no options and no payload: they may hold addresses too
    captured = np.minimum(headers.captured[rows] - at, internet + transport).astype(np.uint32)
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
