"""Send frames; alone, so that it can be copied to any machine:  traffic.py INTERFACE KIND PACKETS PACKETS_PER_SECOND

KIND is home (TCP acknowledgements, now and then a SYN) or flood (SYN only).
"""

from __future__ import annotations

import socket
import struct
import sys
import time

SYN, ACK = 0x02, 0x10
SLOT_S = 0.02


def tcp(number: int, flags: int) -> bytes:
    """An Ethernet frame of 60 bytes with a TCP segment from 10.1.0.x to 10.2.0.1:443."""
    ports = struct.pack("!HHIIBBHHH", 40_000 + number % 8, 443, number, 0, 0x50, flags, 8192, 0, 0)
    network = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, bytes((10, 1, 0, number % 16)), bytes((10, 2, 0, 1))
    )
    return bytes.fromhex("02000000000202000000000108 00") + network + ports + bytes(6)


def frames(kind: str) -> list[bytes]:
    if kind == "flood":
        return [tcp(number, SYN) for number in range(64)]
    return [tcp(number, SYN if number % 16 == 0 else ACK) for number in range(64)]


def send(interface: str, kind: str, packets: int, per_second: float) -> None:
    """In slots of 20 ms; as quickly as it goes where the rate cannot be kept."""
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.bind((interface, 0))
    chosen, start_s, sent = frames(kind), time.monotonic(), 0
    while sent < packets:
        due = min(packets, int((time.monotonic() - start_s + SLOT_S) * per_second) + 1)
        for number in range(sent, due):
            out.send(chosen[number % 64])
        sent = max(sent, due)
        time.sleep(max(0.0, start_s + sent / per_second - time.monotonic()))
    print(f"sent {sent} in {time.monotonic() - start_s:.2f} s")


if __name__ == "__main__":
    send(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
