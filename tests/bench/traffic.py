"""The capture that the speed benches read: made here, the same on every machine."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np

EPOCH_S = 1_700_000_000
SEED = 2026


def write(path: Path, packets: int, packets_per_s: float = 20_000, seed: int = SEED) -> None:
    """Ethernet, IPv4 and IPv6, TCP and UDP among 300 hosts, 440 bytes a frame on average, whole frames captured."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for first in range(0, packets, 50_000):
            n = min(50_000, packets - first)
            t_us = ((first + np.arange(n) + rng.random(n)) * 1e6 / packets_per_s).astype(np.int64)
            out.write(_records(rng, t_us))


def _records(rng: np.random.Generator, t_us: np.ndarray) -> bytes:
    n = len(t_us)
    kind = rng.choice(4, n, p=(0.62, 0.18, 0.15, 0.05))  # TCP, UDP over IPv4; TCP over IPv6; ARP
    length = rng.choice((60, 66, 90, 590, 1514), n, p=(0.28, 0.23, 0.15, 0.11, 0.23)).astype(np.int64)
    length[kind == 3] = 60
    length[kind == 2] = np.maximum(length[kind == 2], 90)
    end = np.cumsum(length + 16)
    start = end - length - 16
    data = rng.integers(0, 256, int(end[-1]), dtype=np.uint8)  # payloads that look like anything
    host, server = rng.integers(0, 40, n), rng.zipf(1.3, n) % 260

    def put(rows: np.ndarray, at: int, *columns: np.ndarray | int) -> None:
        for i, column in enumerate(columns):
            data[start[rows] + at + i] = column[rows] if isinstance(column, np.ndarray) else column

    rows = np.arange(n)
    header = np.stack([EPOCH_S + t_us // 1_000_000, t_us % 1_000_000, length, length], 1).astype("<u4")
    put(rows, 0, *header.view(np.uint8).reshape(n, 16).T)
    put(rows, 16, *(2, 0, 0, 0, 0), host, *(2, 0, 0, 0, 1), server & 0xFF)
    v4, v6, arp = np.flatnonzero(kind < 2), np.flatnonzero(kind == 2), np.flatnonzero(kind == 3)
    ip = length - 14
    put(v4, 28, 8, 0, 0x45, 0, ip >> 8, ip & 255, 0, 0, 0x40, 0, 64, np.where(kind == 1, 17, 6), 0, 0)
    put(v4, 42, 192, 168, 1, host, 203, server >> 8, server & 255, 7)
    put(v6, 28, 0x86, 0xDD, 0x60, 0, 0, 0, (ip - 40) >> 8, (ip - 40) & 255, 6, 64, 0x20, 1, *[0] * 13, host)
    put(v6, 54, 0x20, 2, *[0] * 12, server >> 8, server & 255)
    put(arp, 28, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + (host & 1))
    port = 32768 + (host * 97 + server * 13) % 20_000
    flags = rng.choice((0x10, 0x18, 0x02, 0x12, 0x11, 0x04), n, p=(0.5, 0.4, 0.03, 0.03, 0.03, 0.01))
    for group, at in ((v4, 50), (v6, 70)):
        put(group, at, port >> 8, port & 255, 1, 187)
        put(group[kind[group] != 1], at + 12, 0x50, flags)
    return data.tobytes()


def write_flood(path: Path, packets: int, sources: int, packets_per_s: float = 50_000, seed: int = SEED) -> None:
    """SYNs of 60 bytes to one port from so many random sources; prints how many are distinct."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0x0B000000, 0xDF000000, packets if sources >= packets else sources)
    source = source if sources >= packets else rng.choice(source, packets)
    record = np.zeros((packets, 76), np.uint8)
    t_us = (np.arange(packets) * 1e6 / packets_per_s).astype(np.int64)
    header = np.stack([EPOCH_S + t_us // 1_000_000, t_us % 1_000_000, np.full(packets, 60), np.full(packets, 60)], 1)
    record[:, :16] = header.astype("<u4").view(np.uint8)
    record[:, 28:40] = (8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6)
    record[:, 42:46] = source.astype(">u4").view(np.uint8).reshape(-1, 4)
    record[:, 46:54] = (192, 168, 1, 12, 0x9C, 0x40, 0, 80)
    record[:, 62:64] = (0x50, 2)
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + record.tobytes())
    print(len(np.unique(source)))


if __name__ == "__main__":  # in a process of its own, so that the peak memory of the bench stays small
    name, file, *numbers = sys.argv[1:]
    {"write": write, "write_flood": write_flood}[name](Path(file), *map(int, numbers))
