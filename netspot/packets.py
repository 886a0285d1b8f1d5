"""What a source delivers: a batch of packets as columns of header fields, one row a frame."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspot.record import Record

Bools = NDArray[np.bool_]

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20  # TCP flags, RFC 9293 section 3.1


class Frames(NamedTuple):
    """The captured bytes that the rows were decoded from; readable only until the source's next ``read``.

    Row ``i`` is ``data[start[i] : start[i] + captured[i]]``. ``data`` belongs to the source (a file chunk, the
    mapped ring): who needs bytes longer copies them.
    """

    data: NDArray[np.uint8]  # shape (bytes,)
    start: NDArray[np.int64]  # offset of the link header, one a row [byte]
    captured: NDArray[np.uint32]  # captured length, one a row [byte]
    link_type: int  # what the bytes begin with: a LINKTYPE_ number (pcap-linktype(7))

    def rows(self, begin: int, end: int) -> Frames:
        return Frames(self.data, self.start[begin:end], self.captured[begin:end], self.link_type)


class PacketBatch(Record):
    """``n`` packets as columns of shape ``(n,)``, in order of delivery.

    A field that a packet lacks is 0: select with the masks.

    Addresses, protocol and ports are those of the outermost IP header and the header directly behind it; what is
    inside a tunnel or quoted by an ICMP error is not looked at.
    """

    until_ns: int  # the watermark: all that was captured before it has been delivered [ns since epoch]
    dropped: int  # lost by the kernel since the batch before this one [frame]
    ts_ns: NDArray[np.int64]  # capture time [ns since epoch]
    wire_len: NDArray[np.uint32]  # frame length on the wire [byte]
    ethertype: NDArray[np.uint16]  # behind VLAN tags, MPLS labels and PPPoE; IPv4 and IPv6 also where the link has none
    src_mac: NDArray[np.uint64]  # source hardware address in the low 48 bits, 0 where the link has none
    is_broadcast: Bools  # sent to the link's broadcast address
    is_multicast: Bools  # sent to a link multicast address other than broadcast
    ip_version: NDArray[np.uint8]  # 4, 6 or 0
    ip_len: NDArray[np.uint32]  # IPv4 total length, or 40 + IPv6 payload length [byte]
    ip_proto: NDArray[np.uint8]  # IANA protocol number of the transport, IPv6 extension headers and AH skipped
    src_key: NDArray[np.uint64]  # IPv4 address as an integer, or a 64-bit hash of the IPv6 address
    dst_key: NDArray[np.uint64]
    src_home: Bools  # the address lies in one of the home networks
    dst_home: Bools
    dst_multicast: Bools  # IPv4 224.0.0.0/4 and 255.255.255.255, IPv6 ff00::/8: neither home nor outside
    has_addr: Bools  # both addresses were captured whole
    is_fragment: Bools  # part of a fragmented packet, the first one included
    src_port: NDArray[np.uint16]  # TCP, UDP; 0 in later fragments and where the capture is too short
    dst_port: NDArray[np.uint16]
    has_ports: Bools  # both ports were captured
    tcp_flags: NDArray[np.uint8]  # low 8 bits of the flags: CWR ECE URG ACK PSH RST SYN FIN
    icmp_type: NDArray[np.uint8]  # of ICMP or ICMPv6
    arp_op: NDArray[np.uint8]  # 1 request, 2 reply
    arp_ip: NDArray[np.uint32]  # the IPv4 address that an ARP packet's sender claims
    is_ipv4: Bools
    is_ipv6: Bools
    is_arp: Bools
    is_tcp: Bools  # a TCP header follows the IP header: never so for a later fragment
    is_udp: Bools
    is_icmp: Bools  # ICMP over IPv4
    is_icmp6: Bools
    frames: Frames

    def __len__(self) -> int:
        return len(self.ts_ns)

    def rows(self, begin: int, end: int) -> PacketBatch:
        """Rows ``begin`` to ``end`` as views; ``dropped`` goes with the first row, the watermark stays."""
        dropped = self.dropped if begin == 0 else 0
        columns = (getattr(self, name)[begin:end] for name in COLUMNS)
        values: list[Any] = [self.until_ns, dropped, *columns, self.frames.rows(begin, end)]
        return PacketBatch(*values)


DTYPES: dict[str, type] = {  # of the columns that are no masks
    "ts_ns": np.int64, "wire_len": np.uint32, "ethertype": np.uint16, "src_mac": np.uint64, "ip_version": np.uint8,
    "ip_len": np.uint32, "ip_proto": np.uint8, "src_key": np.uint64, "dst_key": np.uint64, "src_port": np.uint16,
    "dst_port": np.uint16, "tcp_flags": np.uint8, "icmp_type": np.uint8, "arp_op": np.uint8, "arp_ip": np.uint32,
}  # fmt: skip
COLUMNS: tuple[str, ...] = PacketBatch.fields[2:-1]  # those that have rows


_NO_ROWS: dict[str, Any] = {name: np.empty(0, DTYPES.get(name, np.bool_)) for name in COLUMNS}
_NO_FRAMES = Frames(np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.uint32), 1)


def nothing(until_ns: int, dropped: int = 0) -> PacketBatch:
    """A batch without packets: only time has gone on."""
    return PacketBatch(until_ns, dropped, **_NO_ROWS, frames=_NO_FRAMES)
