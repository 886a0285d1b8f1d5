"""The packet socket's receive ring (AF_PACKET, TPACKET_V2): the kernel writes frames into memory that we read in place.

The ring is a matrix: one row, a slot, holds a ``tpacket2_hdr``, a ``sockaddr_ll`` and the frame, all fixed-width. The
word at its start says who owns it. So numpy sees the status words, timestamps and lengths as strided columns. The slots
of a batch are copied out at once, as far as its longest frame reaches, and given back to the kernel: that costs less
than a ring so much bigger, and the whole ring is the kernel's while the batch is counted and windows are closed.

References: linux/if_packet.h; the kernel's Documentation/networking/packet_mmap.rst; packet(7).
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import select
import socket
import struct
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspot.config import MinerConfig
from netspot.errors import SourceError
from netspot.miner import bpf
from netspot.miner.decode import PAD
from netspot.miner.devices import ANY, COOKED_V2, Device, no_permission
from netspot.miner.headers import indices
from netspot.miner.live import MAX_ROWS
from netspot.packets import Frames

_SOL_PACKET = 263
_ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _VERSION = 1, 5, 6, 10  # options of SOL_PACKET
_TPACKET_V2, _MR_PROMISC, _ETH_P_ALL = 1, 1, 3
_USER, _VLAN_VALID, _VLAN_TPID_VALID = 1 << 0, 1 << 4, 1 << 6  # TP_STATUS_
_HEADROOM = 80  # where the network header lies in a slot if the link header has at most 16 bytes [byte]
_ALIGNMENT = 16  # TPACKET_ALIGNMENT
_FENCE = threading.Lock()

_HEADER_NAMES = ["status", "len", "captured", "mac", "net", "sec", "nsec", "tci", "tpid"]  # struct tpacket2_hdr
_ADDRESS_NAMES = ["protocol", "ifindex", "arphrd", "pkttype", "address_length", "address"]  # struct sockaddr_ll
_SLOT = np.dtype(
    {
        "names": _HEADER_NAMES + _ADDRESS_NAMES,
        "formats": ["u4", "u4", "u4", "u2", "u2", "u4", "u4", "u2", "u2", ">u2", "i4", "u2", "u1", "u1", "V8"],
        "offsets": [0, 4, 8, 12, 14, 16, 20, 24, 26, 34, 36, 40, 42, 43, 44],
    }
)
_SLL2 = np.dtype(  # the header of LINKTYPE_LINUX_SLL2
    {
        "names": _ADDRESS_NAMES,
        "formats": [">u2", ">i4", ">u2", "u1", "u1", "V8"],
        "offsets": [0, 4, 8, 10, 11, 12],  # bytes 2 and 3 are reserved: zero in a new ring, and nobody writes them
    }
)


class Ring:
    """One packet socket and its mapped ring. Needs CAP_NET_RAW."""

    def __init__(self, device: Device, config: MinerConfig) -> None:
        """Capture begins here; where the interface is down, as soon as it is up. Raises SourceError."""
        self.cooked = device.name == ANY or device.link_type == COOKED_V2
        self.link_type = device.link_type
        self.slot_bytes = -(-(_HEADROOM + config.snapshot_len) // _ALIGNMENT) * _ALIGNMENT
        self.slots = (config.ring_mib << 20) // self.slot_bytes
        self.batch_rows = min(MAX_ROWS, max(1, self.slots // 2))
        self._head = 0  # the slot that the kernel fills next, or has filled
        self.socket = _packet_socket(device.name, self.cooked)
        try:
            bpf.attach(self.socket, bpf.build(config, device, bpf.COOKED if self.cooked else self.link_type))
            self._map(config)
            if config.promiscuous and device.index:
                membership = struct.pack("=iHH8s", device.index, _MR_PROMISC, 0, b"")
                self.socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, membership)
            _bind(self.socket, device)  # last, so that nothing is received that the filter did not see
        except BaseException:
            self.socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def _map(self, config: MinerConfig) -> None:
        """Ask for the ring and see it as columns.

        It is one block, so that slots of any size follow each other without a gap; the kernel takes scattered pages
        where it has no memory in one piece.
        """
        block_bytes = config.ring_mib << 20
        self.socket.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
        try:
            request = struct.pack("=IIII", block_bytes, 1, self.slot_bytes, self.slots)
            self.socket.setsockopt(_SOL_PACKET, _RX_RING, request)
            self._memory = mmap.mmap(self.socket.fileno(), block_bytes)
        except OSError as error:
            raise SourceError(
                f"miner.ring_mib {config.ring_mib}: the kernel gives no ring of this size with slots of "
                f"{self.slot_bytes} bytes ({error.strerror}); make it smaller"
            ) from None
        self._ring = np.ndarray((self.slots, self.slot_bytes), np.uint8, self._memory)
        self._status, self._headers = _column(self._ring, "u4", 0), _column(self._ring, _SLOT, 0)
        self.data = np.zeros(self.batch_rows * self.slot_bytes + PAD, np.uint8)  # the frames of one batch
        self._copies = self.data[:-PAD].reshape(self.batch_rows, self.slot_bytes)
        self._copied_headers = _column(self._copies, _SLOT, 0)
        self._pseudo_headers = _column(self._copies, _SLL2, _HEADROOM - _SLL2.itemsize)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a frame is there; true where the interface was lost instead."""
        events = self._poll.poll(max(0, math.ceil(timeout_s * 1000)))
        if not any(flags & (select.POLLERR | select.POLLHUP) for _, flags in events):
            return False
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0  # ENETDOWN; asking clears it

    def holds(self, frames: int) -> bool:
        """Whether at least so many wait, from 1 to ``slots``."""
        return bool(self._status.item((self._head + frames - 1) % self.slots) & _USER)

    def take(self) -> tuple[Frames, NDArray[np.int64], NDArray[np.uint32]]:
        """The frames that wait, at most ``batch_rows``; their times [ns since epoch] and lengths on the wire [byte]."""
        n = self._draw(0)
        if self._head == 0:  # the end of the ring: on with its beginning
            n += self._draw(n)
        header = self._copied_headers[:n]
        start = np.arange(n, dtype=np.int64) * self.slot_bytes + header["mac"]
        captured, wire_len = header["captured"].copy(), header["len"].copy()
        extra = self._put_pseudo_headers(header, start) if self.cooked else self._put_tags(header, start)
        start -= extra
        captured += extra
        wire_len += extra
        return Frames(self.data, start, captured, self.link_type), _time_ns(header), wire_len

    def _draw(self, row: int) -> int:
        """Copy what waits, up to the end of the ring, to ``row`` and below, and give the slots back; how many."""
        n = self._waiting(self.batch_rows - row)
        slots = slice(self._head, self._head + n)
        _fence()
        width = _HEADROOM + int(self._headers["captured"][slots].max(initial=0))
        self._copies[row : row + n, :width] = self._ring[slots, :width]
        _fence()
        self._status[slots] = 0
        self._head = slots.stop % self.slots
        return n

    def next_ns(self, otherwise: int) -> int:
        """When the first frame that still waits was captured [ns since epoch]."""
        if not self.holds(1):
            return otherwise
        _fence()
        return int(_time_ns(self._headers[self._head : self._head + 1])[0])

    def _waiting(self, limit: int) -> int:
        """How many slots from the head on are ours, seen piece by piece: far fewer than all are, mostly."""
        at, end, step = self._head, min(self._head + limit, self.slots), 256
        while at < end:
            owned = self._status[at : min(at + step, end)] & _USER
            first = int(owned.argmin())
            if not owned[first]:
                return at + first - self._head
            at += step
            step *= 4
        return end - self._head

    def _put_pseudo_headers(self, header: NDArray[Any], network: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Write what the kernel told of each frame before it, as captures of ``any`` have it; how long it is [byte]."""
        target = self._pseudo_headers[: len(header)]
        for name in _ADDRESS_NAMES:
            target[name] = header[name]
        rows = indices(header["status"] & _VLAN_VALID != 0)
        if len(rows):
            target["protocol"][rows[self._tag_left(network[rows], header["protocol"][rows])]] = 0x8100
        return np.full(len(header), _SLL2.itemsize, np.uint32)

    def _tag_left(self, network: NDArray[np.int64], protocol: NDArray[Any]) -> NDArray[np.bool_]:
        """Where a VLAN tag still stands before the network header, although ``protocol`` tells what is behind it.

        So do kernels since 6.10, for inner tags and for those that the driver does not insert by itself.
        """
        first = self.data[network[:, None] + np.arange(5)]
        behind_tag = first[:, 2].astype(np.uint16) << 8 | first[:, 3]
        version = np.where(protocol == 0x0800, 4, np.where(protocol == 0x86DD, 6, first[:, 4] >> 4))
        left: NDArray[np.bool_] = (behind_tag == protocol) & (first[:, 4] >> 4 == version)
        return left

    def _put_tags(self, header: NDArray[Any], start: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Put back the VLAN tags that the kernel took out, so that a frame is what it was on the wire; their length."""
        tagged: NDArray[np.bool_] = header["status"] & _VLAN_VALID != 0
        rows = indices(tagged)
        if len(rows):
            tag = np.zeros((len(rows), 2), ">u2")
            tag[:, 0] = np.where(header["status"][rows] & _VLAN_TPID_VALID != 0, header["tpid"][rows], 0x8100)
            tag[:, 1] = header["tci"][rows]
            addresses = start[rows, None] + np.arange(12)  # of destination and source
            self.data[addresses - 4] = self.data[addresses]
            self.data[addresses[:, 8:]] = tag.view(np.uint8)
        return tagged.astype(np.uint32) * np.uint32(4)

    def drops(self) -> int:
        """Frames that the kernel lost since the last call, because the ring was full."""
        return int(struct.unpack("=II", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1])

    def close(self) -> None:
        """Stop, and free everything but the last batch."""
        if self.socket.fileno() >= 0:
            self.socket.close()
            del self._ring, self._status, self._headers
            self._memory.close()  # it holds a descriptor of its own, so the capture ends here


def _column(slots: NDArray[np.uint8], dtype: Any, offset: int) -> NDArray[Any]:
    """The same bytes of each slot, shape ``(n,)``."""
    return np.ndarray((len(slots),), dtype, slots, offset, (slots.shape[1],))


def _time_ns(header: NDArray[Any]) -> NDArray[np.int64]:
    times: NDArray[np.int64] = header["sec"].astype(np.int64) * 1_000_000_000 + header["nsec"]
    return times


# ---- system calls --------------------------------------------------------------------------------------------------


def _packet_socket(name: str, cooked: bool) -> socket.socket:
    """A packet socket that receives nothing yet."""
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM if cooked else socket.SOCK_RAW, 0)
    except PermissionError:
        raise SourceError(no_permission(name)) from None
    except OSError as error:
        raise SourceError(f"{name}: no packet socket can be opened: {error.strerror}") from None


def _bind(sock: socket.socket, device: Device) -> None:
    """Receive all protocols, on interface index 0 from all; socket.bind takes names only."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(_ETH_P_ALL), device.index, 0, 0, 0, b"")
    if libc.bind(sock.fileno(), address, len(address)):
        raise SourceError(f"{device.name}: cannot capture there: {os.strerror(ctypes.get_errno())}")


def _fence() -> None:
    """Order what is read and written before against after, for the kernel on another core.

    ARM may reorder both. A lock that is released and one that is taken after it do not pass each other.
    """
    for _ in range(2):
        with _FENCE:
            pass
