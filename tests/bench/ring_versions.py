"""What the other ring layout, TPACKET_V3, would cost: it packs frames tighter, but chains them by offsets.

    python tests/bench/ring_versions.py

Needs root, tcpreplay. The same 60-byte and 200-byte packets go into rings of 4 MiB of both versions, which nobody reads
meanwhile: how many fit. Then the time to find all frames: V2 has them in fixed slots; V3's chain is walked in Python,
and by pointer doubling in numpy (each round joins chains of twice the length).
"""

from __future__ import annotations

import mmap
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from netspot.config import MinerConfig
from netspot.miner.devices import resolve
from netspot.miner.ring import Ring
from tests import frames as f
from tests.netns import Namespace, veth

RING, BLOCK = 4 << 20, 1 << 18
SOL_PACKET, RX_RING, VERSION, TPACKET_V3 = 263, 5, 10, 2


def main() -> None:
    with veth() as (near, far), near.entered(), tempfile.TemporaryDirectory() as folder:
        for size in (60, 200):
            path = Path(folder) / "sent.pcap"
            path.write_bytes(f.pcap([f.eth(f.ip4(f.udp(bytes(size - 42))), dst="02:00:00:00:00:99")] * 50_000))
            measure(far, path, size)


def measure(far: Namespace, path: Path, size: int) -> None:
    v2, (v3, memory) = Ring(resolve("veth0"), MinerConfig()), open_v3("veth0")
    far.run("tcpreplay", "-q", "--topspeed", "-i", "veth0", str(path))
    time.sleep(0.2)
    slots = v2._waiting(1 << 16)
    blocks = [k for k in range(0, RING, BLOCK) if struct.unpack_from("=I", memory, k + 8)[0] & 1]
    packets = sum(struct.unpack_from("=I", memory, k + 12)[0] for k in blocks)
    data = np.frombuffer(memory, np.uint8)
    assert all((walked(memory, k) == doubled(data, k)).all() for k in blocks)
    timings = (
        once(lambda: v2._waiting(slots)) / slots,
        once(lambda: [walked(memory, k) for k in blocks]) / packets,
        once(lambda: [doubled(data, k) for k in blocks]) / packets,
    )
    print(f"{size} bytes: V2 holds {slots}, V3 {packets}; to find a frame [ns]: V2 {timings[0]:.0f}, ", end="")
    print(f"V3 in Python {timings[1]:.0f}, V3 in numpy {timings[2]:.0f}")
    v2.close()
    v3.close()


def open_v3(name: str) -> tuple[socket.socket, mmap.mmap]:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, VERSION, TPACKET_V3)
    request = struct.pack("=IIIIIII", BLOCK, RING // BLOCK, 2048, RING // 2048, 100, 0, 0)
    sock.setsockopt(SOL_PACKET, RX_RING, request)
    memory = mmap.mmap(sock.fileno(), RING)
    sock.bind((name, 3))
    return sock, memory


def walked(memory: mmap.mmap, block: int) -> np.ndarray:
    """Offsets of the frames of a block, one after the other."""
    count, at = struct.unpack_from("=II", memory, block + 12)
    at += block
    offsets = []
    for _ in range(count):
        offsets.append(at)
        at += struct.unpack_from("=I", memory, at)[0]
    return np.array(offsets)


def doubled(data: np.ndarray, block: int) -> np.ndarray:
    """The same without a loop over frames: frames are aligned to 8 bytes, so follow all such places at once."""
    count, first = data[block + 12 : block + 20].view(np.uint32).tolist()
    words = data[block : block + BLOCK].view(np.uint32)[::2]
    places = len(words)
    step = np.minimum(np.arange(places) + words // 8, places - 1)
    offsets = np.array([first // 8])
    while len(offsets) < count:
        offsets = np.concatenate((offsets, step[offsets]))
        step = step[step]
    return block + 8 * offsets[:count].astype(np.int64)


def once(call: Callable[[], object]) -> float:
    """Median time [ns] of 20 calls."""
    times = []
    for _ in range(20):
        begin = time.thread_time_ns()
        call()
        times.append(time.thread_time_ns() - begin)
    return sorted(times)[10]


if __name__ == "__main__":
    main()
