"""The sample of headers, and the capture files of incidents that are made of it."""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from netspot.analyzer import Names
from netspot.events import Incident, Window
from netspot.miner.capfile import CaptureFile
from netspot.miner.captures import QUEUE_BYTES, RING_BYTES, Captures, records
from netspot.miner.evidence import LOOKED_AT, MOST, QUIET, STRATA, WIDTH, Headers, HeaderSample, _scattered
from netspot.packets import SYN, PacketBatch
from tests.frames import START_NS, Layer, ah, arp, batch, eth, frag6, icmp6, ip, ip4, ip6, sll, tcp, udp

S = 10**9


def sampled(*batches: PacketBatch) -> Headers:
    sample = HeaderSample()
    for each in batches:
        sample.add(each)
    return sample.close()


def frames(n: int, flags: int = 0x10) -> list[bytes]:
    return [eth(ip4(tcp(flags, sport=i & 0xFFFF), src=f"10.0.{i // 250 % 250}.{i % 250}")) for i in range(n)]


def test_a_quiet_window_is_kept_whole_and_decodes_as_it_came() -> None:
    packets = batch([*frames(100), eth(arp(2)), eth(ip6(udp(b"x" * 300)))])
    headers = sampled(packets.rows(0, 50), packets.rows(50, len(packets)))
    seen = headers.seen().packets
    assert len(seen) == 102 and (headers.weight == 1).all()
    for column in ("src_key", "dst_key", "src_port", "tcp_flags", "arp_op", "ip_len", "wire_len", "ts_ns", "is_udp"):
        assert (getattr(seen, column) == getattr(packets, column)).all(), column
    assert headers.captured.max() == WIDTH


def test_packets_in_an_order_made_to_stay_do_not_fill_the_memory() -> None:
    """Whoever knows the numbers can have connections begun fall on those that are kept: then fewer numbers are."""
    begun, other = eth(ip4(tcp(SYN))), eth(ip4(tcp(0x10)))
    sample, size, kept = HeaderSample(), 16_000, []
    for begin in range(0, 8 * size, size):
        low = _scattered(begin, size) < 1 << 28
        sample.add(batch([begun if each else other for each in low.tolist()]))
        kept.append(sample._rows)
    assert max(kept) <= MOST
    flags, weight = sample.close().seen().packets.tcp_flags, sample._every
    assert np.count_nonzero(flags == SYN) < MOST and (weight == 1).all()


@pytest.mark.parametrize("size", [700, 16_000])
def test_a_busy_window_is_sampled_and_weighed(size: int) -> None:
    """A flood of one kind does not hide the few of another."""
    rare = [eth(ip4(tcp(SYN, dport=p), src="10.9.9.9")) for p in range(40)]
    batches = [batch([*frames(size), *rare[:20]]), batch([*frames(size), *rare[20:]])]
    headers = sampled(*batches)
    assert len(headers.ts_ns) <= sum(STRATA) + QUIET
    assert (np.diff(headers.ts_ns) >= 0).all()
    seen = headers.seen().packets
    assert np.count_nonzero(seen.tcp_flags == SYN) == 40
    assert int(headers.weight.sum()) == pytest.approx(2 * size + 40, rel=0.1)


def test_of_packets_that_alternate_both_sorts_are_kept() -> None:
    sides = [eth(ip4(tcp(), src="10.0.0.66", dst="192.168.1.5")), eth(ip4(tcp(), src="192.168.1.5", dst="10.0.0.66"))]
    headers = sampled(batch(sides * 4000))
    for thinner in (headers, headers.thinner(), headers.thinner().thinner(), headers.thinner(3)):
        seen = thinner.seen()
        asked = seen.packets.src_key == np.uint64(0x0A000042)
        assert seen.weight[asked].sum() == pytest.approx(4000, rel=0.15)
        assert seen.weight[~asked].sum() == pytest.approx(4000, rel=0.15)


def test_each_window_begins_empty() -> None:
    sample = HeaderSample()
    sample.add(batch(frames(2000)))
    sample.close()
    sample.add(batch(frames(3)))
    assert len(sample.close().ts_ns) == 3 and len(sample.close().ts_ns) == 0


def test_addresses_of_both_versions_are_found_again() -> None:
    seen = sampled(batch([eth(ip4(tcp())), eth(ip6(tcp(), src="2001:db8::7"))])).seen()
    assert seen.address(int(seen.packets.src_key[0])) == "192.168.1.1"
    assert seen.address(int(seen.packets.src_key[1])) == "2001:db8::7"
    assert seen.address(int(seen.packets.dst_key[1])) == "fd00::2"
    assert seen.address(1 << 63 | 5) is None


def test_names_asked_for() -> None:
    labels = b"\x03www\x07example\x03org\0"
    queries = [
        eth(ip4(udp(bytes(12) + labels))),
        eth(ip6(udp(bytes(12) + labels[:9]))),
        eth(ip4(udp(bytes(12) + b"\xff"))),
    ]
    seen = sampled(batch(queries)).seen()
    assert seen.query_names(np.arange(3)) == ["www.example.org", "www.exam", ""]


def test_a_look_back_is_bounded() -> None:
    windows = [sampled(batch(frames(500))) for _ in range(30)]
    seen = windows[-1].seen(windows[:-1])
    assert len(seen.packets) <= LOOKED_AT and seen.weight.sum() == pytest.approx(15_000, rel=0.01)


# Capture files -----------------------------------------------------------------------------------------------------


def window(second: int, headers: Headers) -> Window:
    return Window(START_NS + second * S, START_NS + (second + 1) * S, {}, 0, 1.0, 1, {"headers": headers})


def incident(second: int, event_type: str, id: str = "pi-1") -> Incident:
    return Incident(id, START_NS + second * S, event_type, 1, "t", (), 0, None, {})  # type: ignore[arg-type]


def play(captures: Captures, events: dict[int, Sequence[Incident]], seconds: int, size: int = 20) -> None:
    for second in range(seconds):
        times = [START_NS + second * S + i for i in range(size)]
        captures.step(window(second, sampled(batch(frames(size), times))), [], events.get(second, ()), {})


def test_a_file_shows_the_time_before_and_until_the_end(tmp_path: Path) -> None:
    captures = Captures(tmp_path / "incidents", 1)
    play(captures, {50: [incident(50, "opened")], 60: [incident(60, "closed")]}, 70)
    captures.close()
    path = captures.path("pi-1")
    assert path is not None and captures.path("pi-2") is None
    assert [p.name for p in (tmp_path / "incidents").iterdir()] == ["pi-1.pcap"]
    source = CaptureFile(str(path))
    packets = source.read(0)
    assert packets is not None and len(packets) == 20 * 41
    assert packets.ts_ns[0] == START_NS + 20 * S and packets.ts_ns[-1] == START_NS + 60 * S + 19
    source.close()


def test_an_incident_that_the_end_of_the_program_cuts_is_kept(tmp_path: Path) -> None:
    captures = Captures(tmp_path, 1)
    play(captures, {5: [incident(5, "opened")]}, 8)
    captures.close()
    assert captures.path("pi-1") is not None


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"pi-old{i}.pcap").write_bytes(bytes(100_000))
        os.utime(tmp_path / f"pi-old{i}.pcap", (i, i))
    (tmp_path / ".pi-0.pcap.part").write_bytes(b"left behind")
    captures = Captures(tmp_path, 1)
    play(captures, {5: [incident(5, "opened")], 100: [incident(100, "closed")]}, 110, size=400)
    captures.close()
    names = {path.name for path in tmp_path.iterdir()}
    assert "pi-1.pcap" in names and "pi-old11.pcap" in names and "pi-old0.pcap" not in names
    assert not any(name.endswith(".part") for name in names)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1 << 20
    assert (tmp_path / "pi-1.pcap").stat().st_size <= 1 << 18


def test_the_ring_is_bounded(tmp_path: Path) -> None:
    captures = Captures(tmp_path, 1)
    play(captures, {}, 40, size=1100)
    assert sum(headers.nbytes for _, headers in captures._ring) == captures._ring_bytes <= RING_BYTES
    captures.close()


def test_a_full_disk_costs_captures_and_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "incidents"
    blocked.write_text("a file where a folder should be")
    captures = Captures(blocked, 1)
    with caplog.at_level(logging.WARNING):
        play(
            captures, {5: [incident(5, "opened")], 9: [incident(9, "closed")], 12: [incident(12, "opened", "pi-2")]}, 15
        )
        captures.close()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert captures.path("pi-1") is None


class Stalled:
    """A disk on which nothing goes on until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        monkeypatch.setattr("netspot.miner.captures.records", self.records)

    def records(self, headers: Headers, rename: object = None) -> tuple[bytes, int]:
        assert self.go_on.wait(60)
        return records(headers)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_slow_disk_delays_nothing_and_leaves_no_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Stalled(monkeypatch)
    captures = Captures(tmp_path, 100)
    headers = sampled(batch(frames(500)))
    began = time.monotonic()
    for second in range(300):
        events = {5: [incident(5, "opened")], 290: [incident(290, "closed")]}.get(second, [])
        captures.step(window(second, headers), [], events, {})
    assert captures.dropped > 50 and captures._given <= QUEUE_BYTES
    captures.close()
    assert time.monotonic() - began < 5 and captures.path("pi-1") is None
    disk.go_on.set()
    until(lambda: captures.path("pi-1"))
    captures._thread.join(10)
    assert captures._taken == captures._given and [path.name for path in tmp_path.iterdir()] == ["pi-1.pcap"]


def test_a_second_writer_leaves_the_file_of_the_first_alone(tmp_path: Path) -> None:
    first = Captures(tmp_path, 1)
    play(first, {5: [incident(5, "opened")]}, 6)
    until(lambda: list(tmp_path.glob(".pi-1.*.part")))
    second = Captures(tmp_path, 1)
    second.close()
    first.close()
    assert first.path("pi-1") is not None


@pytest.mark.parametrize("period_ms", [10, 50, 100])
def test_many_small_windows_find_room_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, period_ms: int) -> None:
    """The time before, and the windows of the alarm itself, however short the period and busy the disk."""
    disk = Stalled(monkeypatch)
    captures = Captures(tmp_path, 100)
    n, period_ns = 30_000 // period_ms + 10, period_ms * 10**6
    for i in range(n):
        start = START_NS + i * period_ns
        headers = sampled(batch(frames(2), [start, start + 1]))
        events = [incident(0, "opened")] if i == n - 5 else []
        captures.step(Window(start, start + period_ns, {}, 0, 1.0, 1, {"headers": headers}), [], events, {})
    assert captures.dropped == 0
    disk.go_on.set()
    captures.close()
    captures._thread.join(20)
    source = CaptureFile(str(captures.path("pi-1")))
    packets = source.read(0)
    source.close()
    assert packets is not None and packets.ts_ns[-1] == START_NS + (n - 1) * period_ns + 1
    assert 30 * S <= packets.ts_ns[-1] - packets.ts_ns[0] <= 30 * S + 6 * period_ns


def test_a_file_that_is_full_ends_without_holes(tmp_path: Path) -> None:
    captures = Captures(tmp_path, 1)
    sizes = [500] * 12 + [1000] + [2] * 8
    for second, size in enumerate(sizes):
        times = [START_NS + second * S + i for i in range(size)]
        events = {0: [incident(0, "opened")], 20: [incident(20, "closed")]}.get(second, [])
        captures.step(window(second, sampled(batch(frames(size), times))), [], events, {})
    captures.close()
    assert (tmp_path / "pi-1.pcap").stat().st_size <= 1 << 18
    source = CaptureFile(str(tmp_path / "pi-1.pcap"))
    times = np.concatenate([batch.ts_ns for batch in iter(lambda: source.read(0), None) if batch is not None])
    source.close()
    last = int(times[-1] - START_NS) // S
    assert 0 < last < 12 and len(times) == 500 * (last + 1)


def link_of(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size = struct.unpack_from("<I", data, at + 8)[0]
        found.append(data[at + 16 : at + 16 + size])
        at += 16 + size
    return found


@pytest.mark.parametrize("mode", ["shortened", "hashed"])
@pytest.mark.parametrize("link", [eth, sll])
def test_no_address_is_kept_where_none_is_wanted(mode: str, link: object) -> None:
    wrap = link if callable(link) else eth
    secret = b"203.0.113.9 and 2001:db8:1:2::9 in the payload"
    plain = [
        wrap(ip4(tcp(payload=secret), src="203.0.113.9", dst="192.168.1.12")),
        wrap(ip6(udp(secret), src="2001:db8:1:2::9", dst="fd00::77")),
        wrap(arp(2, sender="203.0.113.9")),
    ]
    headers = sampled(batch(plain, link_type=1 if link is eth else 113))
    data, link_type = records(headers, Names(mode).address)
    kept = link_of(data)
    assert link_type == 101 and [len(frame) for frame in kept] == [40, 48]
    for word in (bytes([203, 0, 113, 9]), bytes([192, 168, 1, 12]), b"203.0", bytes.fromhex("02000000000001")):
        assert word not in data
    again = batch(kept, link_type=101)
    assert again.dst_port.tolist() == [80, 53] and again.is_tcp.tolist() == [True, False]
    if mode == "shortened":
        assert again.src_key[0] == 0xCB007100 and kept[1][8:24] == bytes.fromhex("20010db80001" + "00" * 10)


def checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


def summed(packet: bytes, place: int) -> bytes:
    """``packet`` with its IPv4 header checksum and, at ``place`` of what follows the header, that of the transport."""
    four = packet[0] >> 4 == 4
    length = (packet[0] & 15) * 4 if four else 40
    head, rest = packet[:length], packet[length:]
    pseudo = packet[12:20] if four else packet[8:40]
    rest = rest[:place] + checksum(pseudo + rest) + rest[place + 2 :]
    return (head[:10] + checksum(head) + head[12:] if four else head) + rest


def told(address: str, mode: str) -> tuple[bytes, int]:
    """Packets from ``address`` (IPv4, or the last group of one of IPv6), and what is kept of them."""
    route = b"\x07\x07\x04" + ip(address) + b"\0"
    redirect = Layer(b"\x05\0\0\0" + ip(address) + ip4(udp(), src=address), 0, 1)
    source = f"2001:db8:1::{ip(address)[3]:x}"
    routing = Layer(b"\x06\x02\0\x01\0\0\0\0" + ip(source) + tcp(), 0, 43)
    packets = [
        summed(ip4(tcp(SYN), src=address), 16),
        summed(ip4(tcp(), src=address, options=route), 16),
        summed(ip4(udp(b"even"), src=address), 6),
        summed(ip4(redirect, src=address), 2),
        summed(ip4(b"\x16\0\0\0" + ip(address), src=address, proto=2), 2),
        ip4(ah(tcp()), src=address),
        summed(ip6(tcp(), src=source), 16),
        summed(ip6(udp(b"even"), src=source), 6),
        summed(ip6(icmp6(137, ip(source)), src=source), 2),
        ip6(routing, src=source),
        ip6(frag6(udp(ip(source)), offset=9), src=source),
    ]
    wrapped = [eth(Layer(packet, 0x86DD if packet[0] >> 4 == 6 else 0x0800)) for packet in packets]
    return records(sampled(batch(wrapped)), Names(mode).address)


def test_nothing_that_is_kept_depends_on_a_hidden_byte() -> None:
    """The last byte can't be computed from a checksum, nor read elsewhere: every one of the network gives the same."""
    data, _ = told("203.0.113.9", "shortened")
    assert len(link_of(data)) == 11
    for last in (0, 1, 77, 254):
        assert told(f"203.0.113.{last}", "shortened")[0] == data
    for frame in link_of(data)[:4]:
        assert frame[10:12] == b"\0\0" and len(frame) >= 28
    assert link_of(data)[0][20:36] == ip4(tcp(SYN))[20:36]


def test_a_hash_leaves_nothing_to_compute_either() -> None:
    frames = link_of(told("203.0.113.9", "hashed")[0])
    assert [len(frame) for frame in frames] == [40, 48, 28, 28, 20, 20, 60, 48, 48, 40, 40]
    assert not any(ip("203.0.113.9") in frame or ip("2001:db8:1::9") in frame for frame in frames)
    places = {0: 36, 1: 44, 2: 26, 3: 22, 6: 56, 7: 46, 8: 42}  # of the transport's checksum
    assert all(frames[i][at : at + 2] == b"\0\0" for i, at in places.items())
    assert all(frame[10:12] == b"\0\0" for frame in frames[:6])


def test_another_program_reads_it(tmp_path: Path) -> None:
    from shutil import which

    if which("tcpdump") is None:
        pytest.skip("tcpdump is not installed")
    captures = Captures(tmp_path, 1)
    play(captures, {5: [incident(5, "opened")], 9: [incident(9, "closed")]}, 10)
    captures.close()
    read = subprocess.run(["tcpdump", "-nr", tmp_path / "pi-1.pcap"], check=True, capture_output=True, text=True)
    assert len(read.stdout.splitlines()) == 200 and "IP 10.0.0.0.0 > 192.168.1.2.80" in read.stdout
