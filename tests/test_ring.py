"""The receive ring, with real packets of other programs between two network namespaces."""

from __future__ import annotations

import collections
import csv
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from netspot.config import MinerConfig
from netspot.errors import SourceError
from netspot.miner.devices import open_live
from netspot.miner.live import LiveSource
from netspot.packets import ACK, COLUMNS, FIN, RST, SYN, URG, PacketBatch
from tests import frames as f
from tests.netns import Namespace, join, needs, veth

pytestmark = needs("tcpreplay", "trafgen")

# to a station that is not there, so that nobody answers
TRAFGEN = "{ eth(da=02:00:00:00:00:99, sa=02:00:00:00:00:02), ipv4(saddr=10.9.0.2, daddr=10.9.0.77), tcp(dp=80, syn) }"

FRAMES = [
    f.eth(f.ip4(f.tcp(SYN, dport=22))),
    f.eth(f.ip4(f.udp(b"x" * 900), src="10.0.0.9"), dst=f.BROADCAST),
    f.eth(f.ip4(f.icmp(), dst="224.0.0.1"), dst="01:00:5e:00:00:01"),
    f.eth(f.ip6(f.tcp(), src="2001:db8::1")),
    f.eth(f.ip6(f.ext6(f.udp(), 0))),
    f.eth(f.arp(2, sender="10.9.0.7")),
    f.eth(f.vlan(f.ip4(f.tcp(dport=443)), vid=5)),
    f.eth(f.vlan(f.vlan(f.ip4(f.udp()), vid=6), vid=7, tpid=0x88A8)),
    f.eth(f.mpls(f.ip4(f.udp()))),
    f.eth(f.pppoe(f.ip6(f.icmp6()))),
    f.eth(f.snap(f.arp())),
    f.eth(f.ip4(f.tcp(), frag=3)),
    f.eth(b"\x00" * 50, ethertype=0x88CC),
    f.eth(f.ip4(b"", total=0)),
]


@pytest.fixture(scope="module")
def pair():
    with veth(mtu=65521) as pair:
        yield pair


@pytest.fixture
def listening(pair):
    """Opens a source in the first namespace."""
    opened = []
    with pair[0].entered():

        def listen(**settings) -> LiveSource:
            opened.append(open_live(MinerConfig(**{"device": "veth0", **settings})))
            return opened[-1]

        yield listen
        for source in opened:
            source.close()


def collect(source: LiveSource, packets: int, seconds: float = 10) -> list[PacketBatch]:
    """Batches until so many packets have come; columns are copies, but the frames of old batches are not."""
    batches, seen, end = [], 0, time.monotonic() + seconds
    while seen < packets and time.monotonic() < end:
        batches.append(source.read(0.5))
        seen += len(batches[-1]) + batches[-1].dropped
    batches.append(source.read(0.05))  # what should not have come
    return batches


def column(batches: list[PacketBatch], name: str) -> np.ndarray:
    return np.concatenate([getattr(batch, name) for batch in batches])


def replay(sender: Namespace, path: Path, *options: str) -> None:
    text = sender.run("tcpreplay", "-q", "-i", "veth0", *(options or ("--topspeed",)), str(path))
    assert "Failed packets:            0" in text, text


def capture_of(frames: list[bytes], folder: Path) -> Path:
    path = folder / "sent.pcap"
    path.write_bytes(f.pcap(frames))
    return path


def test_replayed_capture_gives_the_columns_of_the_file(pair, listening, tmp_path):
    source = listening()
    replay(pair[1], capture_of(FRAMES * 50, tmp_path))
    batches = collect(source, len(FRAMES) * 50)
    expected = f.batch(FRAMES * 50, home=source._home)
    for name in set(COLUMNS) - {"ts_ns"}:
        assert column(batches, name).tolist() == getattr(expected, name).tolist(), name
    assert sum(batch.dropped for batch in batches) == 0


def shared_captures() -> list[dict[str, str]]:
    """Rows of the index of captures on Ethernet, with what another program counted in each."""
    folder = Path(os.environ.get("NETSPOT_SHARED", Path(__file__).parents[2] / "shared")) / "captures"
    if not (folder / "index.csv").exists():
        return []
    rows = csv.DictReader((folder / "index.csv").open())
    whole = (row for row in rows if row["linktype"] == "ether" and row["tshark_rc"] == "0")
    return [row | {"path": str(folder / row["file"])} for row in whole]


@pytest.mark.parametrize("row", shared_captures(), ids=lambda row: row["file"])
def test_replayed_capture_gives_the_counts_of_the_file(listening, pair, row):
    source = listening()
    pair[1].run("tcpreplay", "-q", "-i", "veth0", "--pps=20000", row["path"])
    batches = collect(source, int(row["packets"]), 3)
    got = {"packets": sum(map(len, batches))}
    masks = {"ipv4": "is_ipv4", "ipv6": "is_ipv6", "arp": "is_arp", "tcp": "is_tcp", "udp": "is_udp"}
    for name, mask in (masks | {"icmp": "is_icmp", "icmpv6": "is_icmp6"}).items():
        got[name] = int(column(batches, mask).sum())
    flags = column(batches, "tcp_flags")
    for name, bit in (("syn", SYN), ("ack", ACK), ("fin", FIN), ("rst", RST), ("urg", URG)):
        got[name] = int((flags & bit != 0).sum())
    got["ip_bytes"] = int(column(batches, "ip_len").sum())
    known = column(batches, "has_addr")
    for name, key in (("uniq_src_ip", "src_key"), ("uniq_dst_ip", "dst_key")):
        got[name] = len(np.unique(column(batches, key)[known]))
    assert got == {name: int(row[name]) for name in got}


def test_any_gives_the_columns_of_a_cooked_capture(pair, listening, tmp_path):
    source = listening(device="any")
    replay(pair[1], capture_of(FRAMES, tmp_path))
    batches = collect(source, len(FRAMES))
    expected = f.batch(FRAMES, home=source._home)
    for name in set(COLUMNS) - {"ts_ns", "wire_len"}:
        assert column(batches, name).tolist() == getattr(expected, name).tolist(), name
    tags = np.array([4 if frame[12:14] in (b"\x81\x00", b"\x88\xa8") else 0 for frame in FRAMES])
    assert (column(batches, "wire_len") == expected.wire_len - 14 - tags + 20).all()


@pytest.mark.parametrize("snapshot_len", [192, 68])
def test_frames_are_the_bytes_on_the_wire(pair, listening, tmp_path, snapshot_len):
    source = listening(snapshot_len=snapshot_len)
    replay(pair[1], capture_of(FRAMES, tmp_path))
    batch = source.read(1)
    assert len(batch) == len(FRAMES)
    data, start, captured, _ = batch.frames
    got = [bytes(data[a : a + n]) for a, n in zip(start.tolist(), captured.tolist(), strict=True)]
    for bytes_read, sent in zip(got, FRAMES, strict=True):
        assert bytes_read == sent[: len(bytes_read)]
        assert len(bytes_read) in (len(sent), snapshot_len, snapshot_len + 4)  # with a tag that was put back


def test_cooked_frames_are_linux_cooked_v2(pair, listening, tmp_path):
    source = listening(device="any")
    replay(pair[1], capture_of(FRAMES[:2], tmp_path))
    batch = source.read(1)
    data, start, captured, link_type = batch.frames
    assert link_type == 276
    first = bytes(data[start[0] : start[0] + captured[0]])
    assert first[:2] == b"\x08\x00" and first[8:20] == b"\x00\x01\x03\x06" + f.mac(f.HOST) + b"\0\0"
    assert first[20:] == FRAMES[0][14:]


@pytest.mark.parametrize("device", ["veth0", "any"])
def test_counts_window_by_window(pair, listening, device):
    """Bursts of another program in the middle of each second: each second's count is exact."""
    source = listening(device=device)
    counts: collections.Counter[int] = collections.Counter()
    second = time.time_ns() // 10**9 + 1
    bursts = {second: 1_000, second + 1: 20_003, second + 2: 7}
    for begin, packets in bursts.items():
        time.sleep(max(0, begin + 0.1 - time.time()))
        sender = pair[1].start("trafgen", "-q", "-P1", "--dev", "veth0", "-n", str(packets), TRAFGEN)
        while (left_s := begin + 1 - time.time()) > 0:
            batch = source.read(left_s)
            assert batch.dropped == 0
            counts.update((batch.ts_ns // 10**9).tolist())
        assert batch.until_ns >= (begin + 1) * 10**9 - 2 * 10**7
        sender.wait()
    counts.update((source.read(0).ts_ns // 10**9).tolist())
    assert dict(counts) == bursts


def test_silence_moves_the_watermark(listening):
    source = listening()
    before_ns = time.time_ns()
    batch = source.read(0.2)
    assert len(batch) == batch.dropped == 0
    assert before_ns + 19 * 10**7 <= batch.until_ns <= time.time_ns()


def test_nothing_is_older_than_the_watermark_before_it(pair, listening):
    source = listening(ring_mib=1)
    sender = pair[1].start("trafgen", "-q", "-P1", "--dev", "veth0", "-n", "100000", TRAFGEN)
    until_ns, seen, late = 0, 0, 0
    while seen < 100_000:
        batch = source.read(1)
        seen += len(batch) + batch.dropped
        late += int((batch.ts_ns < until_ns).sum())
        assert not len(batch) or batch.ts_ns.max() <= batch.until_ns or sender.poll() is None
        until_ns = batch.until_ns
    assert late <= 5  # timestamps are taken a moment before a frame is handed over


def overload(source: LiveSource, sender: Namespace, sent: int) -> tuple[int, int]:
    """Send so many packets to a reader that is far too slow: how many it counted, how many the kernel dropped."""
    process = sender.start("trafgen", "-q", "-P1", "--dev", "veth0", "-n", str(sent), TRAFGEN)
    counted = dropped = 0
    for _ in range(1000):
        batch = source.read(0.3)
        counted, dropped = counted + len(batch), dropped + batch.dropped
        time.sleep(0.1)
        if not len(batch) and process.poll() is not None:
            break
    return counted, dropped


@pytest.mark.parametrize("ring_mib", [1, 4])
def test_overload_is_counted_exactly(pair, listening, ring_mib):
    source = listening(ring_mib=ring_mib)
    memory = []
    for _ in range(2):
        counted, dropped = overload(source, pair[1], 100_000)
        assert counted + dropped == 100_000
        assert dropped > 0
        memory.append(resident_mib())
    assert memory[1] < memory[0] + 4  # 100,000 frames would be 18 MiB


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"filter": "tcp port 22"}, [0]),
        ({"filter": "vlan 5"}, [6]),
        ({"filter": "not ip6 and not tcp and less 60"}, [5, 2, 7, 8, 10, 13]),
        ({"filter": "ip6", "device": "any"}, [3, 4]),
        ({"filter": "src net 10.0.0.0/8 and udp", "device": "any"}, [1]),
        ({"direction": "in"}, range(len(FRAMES))),
        ({"direction": "out"}, []),
        ({"direction": "in", "filter": "arp", "device": "any"}, [5]),
    ],
    ids=str,
)
def test_filter_and_direction(pair, listening, tmp_path, settings, expected):
    source = listening(**settings)
    replay(pair[1], capture_of(FRAMES, tmp_path))
    batches = collect(source, len(expected), 1)
    got = f.batch([FRAMES[k] for k in sorted(expected)])
    assert column(batches, "ethertype").tolist() == got.ethertype.tolist()
    assert column(batches, "dst_port").tolist() == got.dst_port.tolist()


def test_loopback_only_where_asked_for_and_once(pair, listening):
    pair[0].ip("link", "set", "lo", "up")
    sources = [listening(device="any"), listening(device="any", loopback=True), listening(device="lo")]
    with pair[0].entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            sender.sendto(b"", ("127.0.0.1", 9))
            time.sleep(0.001)
    time.sleep(0.1)
    seen = [int(source.read(0.1).is_udp.sum()) for source in sources]
    pair[0].ip("link", "set", "lo", "down")
    assert seen == [0, 3, 3]


def test_interface_goes_down_away_and_back(caplog):
    with veth() as (near, far), near.entered():
        source = open_live(MinerConfig(device="veth0"))
        assert counted(source, far) == 5
        near.ip("link", "set", "veth0", "down")
        source.read(0.1)
        near.ip("link", "set", "veth0", "up")
        assert back(source, far)
        near.ip("link", "del", "veth0")
        source.read(1.5)
        join(near, far)
        assert back(source, far)
        assert counted(source, far) == 5
        source.close()
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 4 and "down" in texts[0] and "back" in texts[1] and "down" in texts[2] and "back" in texts[3]


def counted(source: LiveSource, sender: Namespace) -> int:
    sender.run("trafgen", "-q", "-P1", "--dev", "veth0", "-n", "5", TRAFGEN)
    return sum(len(source.read(0.1)) for _ in range(3))


def back(source: LiveSource, sender: Namespace) -> bool:
    """Read until packets come again, at most some seconds."""
    for _ in range(20):
        if counted(source, sender) == 5 and not source._lost:
            return True
        source.read(0.2)
    return False


def test_opened_while_down(pair, caplog):
    with veth() as (near, far), near.entered():
        near.ip("link", "set", "veth0", "down")
        source = open_live(MinerConfig(device="veth0", filter="tcp"))
        source.read(0.1)
        near.ip("link", "set", "veth0", "up")
        assert back(source, far)
        source.close()


def test_auto_follows_the_default_route(caplog):
    with veth() as (near, far), near.entered():
        near.ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
        near.ip("link", "set", "veth1", "up")
        near.ip("route", "add", "default", "via", "10.9.0.2")
        source = open_live(MinerConfig(device="auto"))
        assert source.series == "veth0"
        near.ip("link", "del", "veth0")
        for _ in range(5):
            source.read(0.5)
        assert source.series == "veth1"
        source.close()


def test_closing_stops_the_capture_although_a_batch_lives_on(pair, listening, tmp_path):
    source = listening()
    replay(pair[1], capture_of(FRAMES, tmp_path))
    data, start, _, _ = source.read(1).frames
    source.close()
    replay(pair[1], capture_of(FRAMES[1:2] * 100, tmp_path))
    assert bytes(data[start[0] :][: len(FRAMES[0])]) == FRAMES[0]
    source.close()  # does nothing


@pytest.mark.parametrize(("direction", "expected"), [("both", 6), ("in", 3), ("out", 3)])
def test_what_a_bridge_forwards_is_counted_as_direction_says(tmp_path, direction, expected):
    """On ``any`` it is seen arriving and leaving."""
    with veth() as (near, far), near.entered():
        near.ip("link", "add", "br0", "type", "bridge")
        near.ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth1", "netns", far.name)
        for namespace, name in ((near, "br0"), (near, "veth1"), (far, "veth1")):
            namespace.ip("link", "set", name, "addrgenmode", "none")
            namespace.ip("link", "set", name, "up")
        near.ip("link", "set", "veth0", "master", "br0")
        near.ip("link", "set", "veth1", "master", "br0")
        while near.ip("-d", "link", "show").count("bridge_slave state forwarding") < 2:
            time.sleep(0.02)
        source = open_live(MinerConfig(device="any", direction=direction, filter="udp port 9"))
        replay(far, capture_of([f.eth(f.ip6(f.udp(dport=9)), dst="02:00:00:00:00:99")] * 3, tmp_path))
        assert len(column(collect(source, 7, 1), "ts_ns")) == expected
        source.close()


def test_ring_that_is_too_big(listening):
    with pytest.raises(SourceError, match="ring_mib 4095"):
        listening(ring_mib=4095)
