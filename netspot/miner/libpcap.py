"""Live packets through libpcap by way of python-libpcap (the module ``pylibpcap``), for those who ask for it.

It hands out packets one by one, each as a tuple and a bytes object of its own: about four times the ring's cost a
packet (docs/capture.md has figures). Here as many as the kernel says are there are drawn at once, in C, joined and
decoded as one batch, so that no Python runs for a packet.

Its packet iterator blocks without end where nothing comes, whatever timeout is set (libpcap since 1.9.1). So we find
the socket it opened, ask the kernel how many packets it has put there, and never draw more; and our own filter program
is attached to that socket, since libpcap might skip packets that it filters itself.
"""

from __future__ import annotations

import itertools
import operator
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspot.config import MinerConfig
from netspot.errors import SourceError
from netspot.miner import bpf
from netspot.miner.decode import PAD
from netspot.miner.devices import Device, no_permission
from netspot.miner.headers import IPV4, IPV6, field, gather
from netspot.miner.links import locate
from netspot.packets import Frames

Row = tuple[int, float, bytes]  # captured length [byte], time [s since epoch], the bytes

_SOL_PACKET, _STATISTICS = 263, 6


class Pcap:
    """One capture handle of python-libpcap. Needs CAP_NET_RAW."""

    batch_rows = 2048  # libpcap's ring has 2 MiB, about 7,000 packets of the default snapshot length

    def __init__(self, device: Device, config: MinerConfig) -> None:
        """Capture begins here. Raises SourceError."""
        sniff = _module()
        self._snapshot_len = config.snapshot_len
        before = set(_packet_sockets())
        try:
            # immediate mode has slots for single packets, which poll() and the count of packets tell exactly
            self._sniff = sniff(
                device.name, promisc=config.promiscuous, snaplen=config.snapshot_len, timeout=1, immediate_mode=1
            )
        except Exception as error:
            raise SourceError(_refused(device, error)) from None
        (descriptor,) = set(_packet_sockets()) - before
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._rows: Iterator[Row] = self._sniff.capture()
        self._pending = self._drops = self._last_ns = 0
        self.link_type = bpf.datalink(device.name, config.snapshot_len)
        self._filter(device, config)

    def _filter(self, device: Device, config: MinerConfig) -> None:
        """Filter from now on, and forget what came before."""
        bpf.attach(self._socket, bpf.build(config, device, self.link_type))
        while self._poll.poll(0) and next(self._rows)[0]:
            pass
        self._count()
        self._pending = self._drops = 0

    def _count(self) -> None:
        """Ask how many packets have come since the last time; asking sets it to zero."""
        packets, drops = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        self._pending += packets - drops
        self._drops += drops

    def wait(self, timeout_s: float) -> bool:
        events = self._poll.poll(max(0, round(timeout_s * 1000)))
        if not any(flags & (select.POLLERR | select.POLLHUP) for _, flags in events):
            return False
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def holds(self, frames: int) -> bool:
        self._count()
        return self._pending >= frames

    def take(self) -> tuple[Frames, NDArray[np.int64], NDArray[np.uint32]]:
        self._count()
        drawn = min(self._pending, self.batch_rows)
        self._pending -= drawn
        rows = list(filter(operator.itemgetter(0), itertools.islice(self._rows, drawn)))  # 0 bytes: an error, no packet
        lengths, times, contents = zip(*rows, strict=True) if rows else ((), (), ())
        captured = np.array(lengths, np.uint32)
        start = np.cumsum(captured, dtype=np.int64) - captured
        data = np.frombuffer(b"".join((*contents, bytes(PAD))), np.uint8)
        ts_ns = np.rint(np.array(times, np.float64) * 1e6).astype(np.int64) * 1000
        self._last_ns = int(ts_ns[-1]) if len(rows) else 0
        frames = Frames(data, start, captured, self.link_type)
        return frames, ts_ns, self._wire_len(frames)

    def _wire_len(self, frames: Frames) -> NDArray[np.uint32]:
        """The lengths on the wire, which python-libpcap does not tell: of a cut frame, what its IP header says."""
        wire_len = frames.captured.copy()
        rows = np.flatnonzero(frames.captured >= self._snapshot_len)
        if len(rows):
            cut = Frames(frames.data, frames.start[rows], frames.captured[rows], frames.link_type)
            link = locate(cut)
            header = gather(frames.data, cut.start + link.network, 8)
            ipv4 = field(header, 2, ">u2").astype(np.int64)
            ipv6 = field(header, 4, ">u2").astype(np.int64) + 40
            ip_len = np.where(link.ethertype == IPV4, ipv4, np.where(link.ethertype == IPV6, ipv6, 0))
            wire_len[rows] = np.maximum(cut.captured, link.network + ip_len)
        return wire_len

    def next_ns(self, otherwise: int) -> int:
        return self._last_ns if self._pending else otherwise

    def drops(self) -> int:
        drops, self._drops = self._drops, 0
        return drops

    def close(self) -> None:
        self._socket.close()
        self._rows = iter(())
        self._sniff.close()


def _module() -> Any:
    try:
        from pylibpcap.base import Sniff
    except ImportError as error:
        raise SourceError(
            f"miner.backend libpcap: python-libpcap is missing ({error}): pip install python-libpcap==0.5.4 "
            f"(needs a compiler and libpcap-dev), or set miner.backend: ring"
        ) from None
    return Sniff


def _refused(device: Device, error: Exception) -> str:
    text = str(error) or type(error).__name__
    if "permission" in text.lower() or "not permitted" in text.lower():
        return no_permission(device.name)
    return f"{device.name}: libpcap cannot capture there: {text}"


def _packet_sockets() -> Iterator[int]:
    """The descriptors of this process that are packet sockets."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if str(entry.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry.name))) as copy:
                    if copy.family == socket.AF_PACKET:
                        yield int(entry.name)
        except OSError:  # closed meanwhile
            continue
