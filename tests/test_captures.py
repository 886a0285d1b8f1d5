"""Every capture of the shared collection gives the counts that tshark gives (``index.csv`` beside them)."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from netspot.errors import CutCapture, SourceError
from netspot.miner.capfile import CaptureFile
from netspot.packets import ACK, FIN, RST, SYN, URG, PacketBatch

SHARED = Path(os.environ.get("NETSPOT_SHARED") or Path(__file__).parents[2] / "shared")
INDEX = SHARED / "captures" / "index.csv"

if not INDEX.exists():
    pytest.skip(f"no {INDEX}: set NETSPOT_SHARED", allow_module_level=True)

CAPTURES = {row["file"]: row for row in csv.DictReader(INDEX.open())}
BROKEN = {
    "bad_cut_midrecord.pcap": (CutCapture, "at byte 2152; 28 whole packets"),
    "bad_huge_caplen.pcap": (CutCapture, "2147483647 bytes, more than 262144, at byte 24; 0 whole packets"),
    "bad_zero_bytes.pcap": (SourceError, "it is empty"),
}
MASKS = {"ipv4": "is_ipv4", "ipv6": "is_ipv6", "arp": "is_arp", "tcp": "is_tcp", "udp": "is_udp"}
MASKS |= {"icmp": "is_icmp", "icmpv6": "is_icmp6"}
FLAGS = {"syn": SYN, "ack": ACK, "fin": FIN, "rst": RST, "urg": URG}


@pytest.mark.parametrize("name", CAPTURES)
def test_counts_are_those_of_tshark(name: str) -> None:
    expected = CAPTURES[name]
    batches, error = read_all(INDEX.parent / name)
    kind, text = BROKEN.get(name, (type(None), ""))
    assert type(error) is kind and text in str(error)
    assert counts(batches) == {column: expected[column] for column in counts([])}


def read_all(path: Path) -> tuple[list[PacketBatch], SourceError | None]:
    """All batches, and how the file ended. The columns are copies; ``frames`` are not."""
    batches: list[PacketBatch] = []
    try:
        source = CaptureFile(str(path))
        batches.extend(iter(lambda: source.read(1.0), None))
    except SourceError as error:
        return batches, error
    return batches, None


def counts(batches: list[PacketBatch]) -> dict[str, str]:
    """The columns of the index that this program counts, in its notation."""
    found: dict[str, int] = {"packets": sum(len(b) for b in batches)}
    found |= {column: sum(int(getattr(b, mask).sum()) for b in batches) for column, mask in MASKS.items()}
    found |= {column: sum(int(np.count_nonzero(b.tcp_flags & flag)) for b in batches) for column, flag in FLAGS.items()}
    found["ip_bytes"] = sum(int(b.ip_len.sum()) for b in batches)
    found["frame_bytes"] = sum(int(b.wire_len.sum()) for b in batches)
    found["uniq_src_ip"] = distinct(b.src_key[b.has_addr] for b in batches)
    found["uniq_dst_ip"] = distinct(b.dst_key[b.has_addr] for b in batches)
    found["uniq_tcp_src_port"] = distinct(b.src_port[b.is_tcp & b.has_ports] for b in batches)
    found["uniq_tcp_dst_port"] = distinct(b.dst_port[b.is_tcp & b.has_ports] for b in batches)
    times = [int(ts) for b in batches for ts in (b.ts_ns[0], b.ts_ns[-1])]
    text = {column: str(value) for column, value in found.items()}
    text |= {"first_ts": seconds(times[:1]), "last_ts": seconds(times[-1:])}
    return text


def seconds(times: list[int]) -> str:
    return "".join(f"{ts_ns // 10**9}.{ts_ns % 10**9:09d}" for ts_ns in times)


def distinct(values: Iterator[np.ndarray]) -> int:
    return len({value for array in values for value in array.tolist()})
