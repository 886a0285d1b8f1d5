"""Capture files: formats, byte orders, clocks, gzip, pipes; files that are cut, broken or no captures."""

from __future__ import annotations

import gzip
import io
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netspot.errors import CutCapture, NetspotError, SourceError
from netspot.miner import capfile
from netspot.miner.capfile import CaptureFile
from netspot.packets import SYN, PacketBatch
from tests import frames as f
from tests.test_captures import INDEX

FRAMES = [f.eth(f.ip4(f.tcp(SYN, b"x" * size, dport=size))) for size in (0, 1, 2, 3, 90)]
TIMES = [f.START_NS + k * 1_234_567_000 for k in range(len(FRAMES))]
PORTS = [0, 1, 2, 3, 90]


def read(data: bytes, tmp_path: Path) -> list[PacketBatch]:
    path = tmp_path / "capture"
    path.write_bytes(data)
    return list(batches(CaptureFile(str(path))))


def batches(source: CaptureFile) -> Iterator[PacketBatch]:
    while (batch := source.read(1.0)) is not None:
        yield batch


def column(found: list[PacketBatch], name: str) -> list[int]:
    return [value for batch in found for value in getattr(batch, name).tolist()]


def whole_packets(path: Path) -> tuple[int, type | None]:
    """The packets that a file gives before it ends, and how it ended."""
    count = 0
    try:
        for batch in batches(CaptureFile(str(path))):
            count += len(batch)
    except NetspotError as error:
        return count, type(error)
    return count, None


# ---- what is accepted ----------------------------------------------------------------------------------------------

NANO = [ts + 7 for ts in TIMES]
FORMATS = {
    "little": (f.pcap(FRAMES, TIMES), TIMES),
    "big": (f.pcap(FRAMES, TIMES, order=">"), TIMES),
    "nanoseconds": (f.pcap(FRAMES, NANO, nanoseconds=True), NANO),
    "nanoseconds big": (f.pcap(FRAMES, NANO, nanoseconds=True, order=">"), NANO),
    "pcapng": (f.pcapng(FRAMES, TIMES), TIMES),
    "pcapng big": (f.pcapng(FRAMES, TIMES, order=">"), TIMES),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("compressed", [False, True])
def test_formats(name: str, compressed: bool, tmp_path: Path) -> None:
    data, times = FORMATS[name]
    found = read(gzip.compress(data) if compressed else data, tmp_path)
    assert column(found, "ts_ns") == times
    assert column(found, "dst_port") == PORTS
    assert column(found, "wire_len") == [len(frame) for frame in FRAMES]
    assert found[-1].until_ns == max(times)


def test_frames_are_the_captured_bytes(tmp_path: Path) -> None:
    (batch,) = read(f.pcap(FRAMES, snap=60), tmp_path)
    rows = zip(batch.frames.start.tolist(), batch.frames.captured.tolist(), strict=True)
    assert [batch.frames.data[start : start + n].tobytes() for start, n in rows] == [frame[:60] for frame in FRAMES]
    assert batch.wire_len.tolist() == [len(frame) for frame in FRAMES]


def test_modified_pcap_with_longer_record_headers(tmp_path: Path) -> None:
    data = struct.pack("<IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    data += b"".join(struct.pack("<IIIIIHBB", 7, 8, len(x), len(x), 1, 0x800, 0, 0) + x for x in FRAMES)
    found = read(data, tmp_path)
    assert column(found, "dst_port") == PORTS
    assert column(found, "ts_ns") == [7_000_008_000] * 5


def test_gzip_of_several_members(tmp_path: Path) -> None:
    data = f.pcap(FRAMES)
    found = read(gzip.compress(data[:100]) + gzip.compress(data[100:]), tmp_path)
    assert column(found, "dst_port") == PORTS


@pytest.mark.parametrize(("tsresol", "stamp", "tsoffset", "expected_ns"), [
    (6, 5_000_001, 0, 5_000_001_000),
    (9, 5_000_000_001, 0, 5_000_000_001),
    (3, 5_001, 0, 5_001_000_000),
    (12, 5_000_000_001_999, 0, 5_000_000_001),
    (0x80 | 10, 5 * 1024 + 512, 0, 5_500_000_000),
    (0x80 | 40, 5 << 40 | 1 << 39, 0, 5_500_000_000),
    (6, 5_000_001, 100, 105_000_001_000),
    (6, 105_000_001, -100, 5_000_001_000),
    (0, (1 << 64) - 1, 0, 9_000_000_000 * 10**9),  # beyond what 64 bits of nanoseconds can hold
    (9, (1 << 64) - 1, 0, 9_000_000_000 * 10**9),
    (6, 9_000_000_000_000_000, 9_000_000_000, 9_000_000_000 * 10**9),  # where the end of its window fits too
    (127, (1 << 64) - 1, 0, 1_844_674_407),
])  # fmt: skip
def test_pcapng_clocks(tsresol: int, stamp: int, tsoffset: int, expected_ns: int, tmp_path: Path) -> None:
    data = f.section() + f.interface(tsresol=tsresol, tsoffset=tsoffset) + f.enhanced(FRAMES[0], stamp)
    assert column(read(data, tmp_path), "ts_ns") == [expected_ns]


def test_pcapng_interfaces_sections_and_other_blocks(tmp_path: Path) -> None:
    """Each interface has its link type and clock, each section its byte order and interfaces."""
    ip, cooked = f.ip4(f.udp(dport=9)), f.sll(f.ip4(f.udp(dport=8)))
    data = f.section() + f.interface(1) + f.interface(113, tsresol=9)
    data += f.enhanced(FRAMES[1], 1_000_000, 0) + f.enhanced(cooked, 2_000_000_000, 1) + f.block(5, bytes(12))
    data += f.interface(101) + f.enhanced(FRAMES[2], 3_000_000, 0) + f.enhanced(ip, 4_000_000, 2)
    data += f.block(0x0BAD, bytes(600_000)) + f.block(10, bytes(48))  # more than the longest packet
    data += f.section(">") + f.interface(228, order=">") + f.enhanced(ip, 5_000_000, 0, ">")
    found = read(data, tmp_path)
    assert column(found, "dst_port") == [1, 8, 2, 9, 9]
    assert column(found, "ts_ns") == [k * 10**9 for k in (1, 2, 3, 4, 5)]
    assert [b.frames.link_type for b in found] == [1, 113, 1, 101, 228]


def test_pcapng_simple_and_obsolete_packet_blocks(tmp_path: Path) -> None:
    old = struct.pack("<HHIIII", 0, 3, 0, 2_000_000, len(FRAMES[3]), 99) + FRAMES[3] + bytes(-len(FRAMES[3]) % 4)
    data = f.section() + f.interface(1, snap=60) + f.simple(FRAMES[1]) + f.block(2, old)
    data += f.simple(FRAMES[4][:60], wire_len=len(FRAMES[4]))
    found = read(data, tmp_path)
    assert column(found, "dst_port") == [1, 3, 90]
    assert column(found, "ts_ns") == [0, 2 * 10**9, 2 * 10**9]  # a simple block has the time of the packet before it
    assert column(found, "wire_len") == [len(FRAMES[1]), 99, len(FRAMES[4])]
    assert found[0].frames.captured.tolist()[2] == 60


def test_no_packets(tmp_path: Path) -> None:
    assert read(f.pcap([]), tmp_path) == []
    assert read(f.pcapng([]), tmp_path) == []


@pytest.mark.parametrize("name", FORMATS)
def test_batches_are_the_same_whatever_their_size(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many packets through a small buffer, some at a time."""
    frames = [f.eth(f.ip4(f.udp(b"y" * (k % 300), dport=k))) for k in range(20_000)]
    order = ">" if "big" in name else "<"
    data = (
        f.pcapng(frames, order=order) if "pcapng" in name else f.pcap(frames, nanoseconds="nano" in name, order=order)
    )
    monkeypatch.setattr(capfile, "CHUNK", 1 << 20)
    monkeypatch.setattr(capfile, "MOST", 777)
    found = read(data, tmp_path)
    assert column(found, "dst_port") == list(range(20_000))
    assert max(len(batch) for batch in found) <= 777
    untils = [batch.until_ns for batch in found]
    assert untils == [int(batch.ts_ns[-1]) for batch in found]


def test_time_that_runs_backwards_or_jumps(tmp_path: Path) -> None:
    times = [100, 50, 4_000_000_000, 3]
    found = read(f.pcap(FRAMES[:4], [t * 10**9 for t in times]), tmp_path)
    assert column(found, "ts_ns") == [t * 10**9 for t in times]
    assert found[-1].until_ns == 4_000_000_000 * 10**9  # the highest that was read


def test_progress(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcap"
    path.write_bytes(f.pcap(FRAMES))
    source = CaptureFile(str(path))
    assert source.series == "capture.pcap"
    assert not source.live
    list(batches(source))
    assert source.progress() == (path.stat().st_size, path.stat().st_size)
    source.close()
    source.close()


def test_a_pipe_delivers_what_has_come(tmp_path: Path) -> None:
    """Whole packets at once, an empty batch while none comes, the rest afterwards."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    data, go_on = f.pcap(FRAMES), threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(data[:200])
            go_on.wait(20)
            pipe.write(data[200:])

    writer = threading.Thread(target=write)
    writer.start()
    source = CaptureFile(str(path))
    first, second = source.read(5.0), source.read(0.05)
    go_on.set()
    rest = list(batches(source))
    writer.join()
    assert first is not None
    assert first.dst_port.tolist() == [0, 1]
    assert second is not None
    assert (len(second), second.until_ns) == (0, first.until_ns)
    assert column(rest, "dst_port") == [2, 3, 90]
    assert source.progress() == (len(data), None)


# ---- what is not ---------------------------------------------------------------------------------------------------

PCAP = f.pcap(FRAMES)
NG = f.pcapng(FRAMES)
HUGE = struct.pack("<IIII", 1, 1, 2**31 - 1, 2**31 - 1)
BAD = {
    "text": (b"no capture at all", SourceError, "it begins with 6e 6f 20 63"),
    "empty": (b"", SourceError, "it is empty"),
    "three bytes": (PCAP[:3], SourceError, "no capture"),
    "header cut": (PCAP[:10], CutCapture, "ends in its header, at byte 0; 0 whole packets"),
    "record cut": (PCAP[:-1], CutCapture, "in the middle of a record, at byte 310; 4 whole packets"),
    "2 GB": (PCAP + HUGE + bytes(100), CutCapture, f"2147483647 bytes, more than 262144, at byte {len(PCAP)}; 5 whole"),
    "link type": (f.pcap([], link_type=187), SourceError, "link type 187 (Bluetooth HCI H4) is not decoded; known are"),
    "link type 999": (f.pcap([], link_type=999), SourceError, "999 (unknown) is not decoded; known are NULL 0, Eth"),
    "gzip cut": (gzip.compress(PCAP)[:-20], CutCapture, "the compressed data end early"),
    "gzip broken": (gzip.compress(PCAP)[:-8] + b"12345678", CutCapture, "data are broken, at byte 310; 4 whole"),
    "gzip of text": (gzip.compress(b"hello"), SourceError, "it begins with 68 65 6c 6c"),
    "section cut": (NG[:11], CutCapture, "in the middle of a record, at byte 0; 0 whole"),
    "no magic": (NG[:8] + b"abcd" + NG[12:], CutCapture, "a section header without byte-order magic, at byte 0"),
    "short section": (NG[:4] + b"\x08\0\0\0" + NG[8:], CutCapture, "a section header of 8 bytes, at byte 0"),
    "endless block": (NG + f.block(6, b"")[:4] + bytes(40), CutCapture, f"type 6 with 0 bytes, at byte {len(NG)}; 5"),
    "2 GB block": (NG + struct.pack("<II", 6, 2**31), CutCapture, "in the middle of a record"),
    "2 GB packet": (NG + struct.pack("<II", 6, 2**31) + bytes(99), CutCapture, "type 6 with 2147483648 bytes"),
    "2 GB comment": (NG + struct.pack("<II", 0xBAD, 2**31) + bytes(99), CutCapture, "in the middle of a record"),
    "lengths differ": (NG[:-4] + b"\0\0\0\0", CutCapture, "whose fields contradict each other"),
    "no interface": (f.section() + f.enhanced(b"x", 1), CutCapture, "contradict each other, at byte 28; 0 whole"),
    "late interface": (NG + f.enhanced(b"x", 1, 1) + f.interface(), CutCapture, f"at byte {len(NG)}; 5 whole"),
    "long capture": (NG + f.block(6, struct.pack("<5I", 0, 0, 0, 99, 99) + NG[:4]), CutCapture, "contradict each"),
    "interfaces": (f.section() + f.interface() * 1025, CutCapture, "a block of type 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_end_with_one_clear_line(name: str, tmp_path: Path) -> None:
    data, kind, text = BAD[name]
    with pytest.raises(SourceError) as error:
        read(data, tmp_path)
    assert type(error.value) is kind
    assert text in str(error.value)
    assert str(tmp_path / "capture") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_foreign_interface_ends_after_the_packets_before_it(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(NG + f.interface(187) + f.enhanced(b"abcd", 1, 1))
    source = CaptureFile(str(path))
    assert len(source.read(1.0) or ()) == 5
    with pytest.raises(SourceError, match="link type 187"):
        source.read(1.0)


@pytest.mark.parametrize("path", ["/nowhere/x.pcap", "/tmp"])
def test_files_that_cannot_be_opened(path: str) -> None:
    with pytest.raises(SourceError, match=path):
        CaptureFile(path)


@pytest.mark.parametrize("name", FORMATS)
def test_cut_at_every_byte(name: str, tmp_path: Path) -> None:
    """As many packets as end before the cut, and CutCapture unless it falls between two records."""
    data, _ = FORMATS[name]
    pieces = f.pcapng if "pcapng" in name else f.pcap
    ends = [len(pieces(FRAMES[: k + 1])) for k in range(len(FRAMES))]
    between = {len(pieces([])), *ends} | ({len(f.section())} if "pcapng" in name else set())
    path = tmp_path / "cut"
    for length in range(4, len(data)):
        path.write_bytes(data[:length])
        count = sum(end <= length for end in ends)
        assert whole_packets(path) == (count, None if length in between else CutCapture), length


def test_gzip_cut_at_every_byte(tmp_path: Path) -> None:
    """No packet too many, no other exception, and the whole packets of all that could be expanded."""
    data = gzip.compress(PCAP, 0)
    path = tmp_path / "cut"
    last = 0
    for length in range(4, len(data)):
        path.write_bytes(data[:length])
        found, error = whole_packets(path)
        assert error in (CutCapture, SourceError)
        assert last <= found <= len(FRAMES)
        last = found
    assert last == len(FRAMES)


@pytest.mark.skipif(not os.environ.get("NETSPOT_LONG"), reason="takes minutes: set NETSPOT_LONG=1")
@pytest.mark.skipif(not INDEX.exists(), reason="no shared captures")
def test_shared_captures_cut_at_many_bytes(tmp_path: Path) -> None:
    for capture in sorted(INDEX.parent.glob("*.pcap*")):
        data, path, last = capture.read_bytes(), tmp_path / "cut", 0
        for length in range(4, len(data), max(len(data) // 2000, 1)):
            path.write_bytes(data[:length])
            found, error = whole_packets(path)
            assert error in (None, CutCapture)
            assert found >= last
            last = found


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(f.pcap([bytes(1500)] * 8000))
    source = CaptureFile(str(path))
    assert len(source.read(1.0) or ()) > 0
    os.truncate(path, 100)
    with pytest.raises(CutCapture):
        list(batches(source))


def test_memory_stays_bounded_by_a_bomb(tmp_path: Path) -> None:
    """Records of no bytes, without end."""
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as out:
        out.write(f.pcap([]))
        for _ in range(40):
            out.write(bytes(1 << 20))
    (tmp_path / "bomb").write_bytes(bomb.getvalue())
    resident = rss()
    count, error = whole_packets(tmp_path / "bomb")
    assert (count, error) == (40 * (1 << 16), None)
    assert rss() - resident < 16


def rss() -> float:
    """[MiB]"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
