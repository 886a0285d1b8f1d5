"""Filter programs, run by the kernel: a filter on a socket pair sees the bytes that a packet socket's would."""

from __future__ import annotations

import ctypes
import socket

import pytest

from netspot.config import MinerConfig
from netspot.errors import SourceError
from netspot.miner import bpf
from netspot.miner.devices import Device
from netspot.packets import ACK, SYN
from tests import frames as f


def build(expression: str, link_type: int = 1, snapshot_len: int = 96) -> bpf.Program:
    config = MinerConfig(filter=expression, snapshot_len=snapshot_len)
    return bpf.build(config, Device("absent0"), link_type)  # which cannot be opened: compiled for frames as in a file


def passes(program: bpf.Program, frame: bytes) -> int | None:
    """The length to which the kernel cuts the frame, or None where it drops it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        bpf.attach(far, program)
        far.setblocking(False)
        try:
            near.send(frame)
            return len(far.recv(1 << 16))
        except (BlockingIOError, PermissionError):
            return None


@pytest.mark.parametrize(
    ("expression", "frame", "accepted"),
    [
        ("tcp port 22", f.eth(f.ip4(f.tcp(SYN, dport=22))), True),
        ("tcp port 22", f.eth(f.ip4(f.tcp(SYN, dport=23))), False),
        ("tcp[tcpflags] & tcp-syn != 0", f.eth(f.ip4(f.tcp(SYN))), True),
        ("tcp[tcpflags] & tcp-syn != 0", f.eth(f.ip4(f.tcp(ACK))), False),
        ("vlan 5 and udp", f.eth(f.vlan(f.ip4(f.udp()), vid=5)), True),
        ("ip6 and not src host fd00::1", f.eth(f.ip6(f.udp())), False),
        ("ether src 02:00:00:00:00:01", f.eth(f.arp()), True),
        ("greater 100", f.eth(f.ip4(f.udp(bytes(200)))), True),
        ("  ", f.eth(f.arp()), True),
    ],
)
def test_filter_on_ethernet(expression, frame, accepted):
    assert passes(build(expression), frame) == (min(len(frame), 96) if accepted else None)


def test_no_filter_is_one_return():
    assert build("", snapshot_len=68) == [bpf.Instruction(0x06, 0, 0, 68)]


@pytest.mark.parametrize("size", [60, 96, 97, 1500])
def test_frames_are_cut_to_the_snapshot_length(size):
    assert passes(build(""), bytes(size)) == min(size, 96)


@pytest.mark.parametrize(
    ("expression", "accepted"),
    [("src host 192.168.1.1", None), ("ether src 02:00:00:00:00:01", SourceError), ("vlan 3", SourceError)],
)
def test_filter_where_there_is_no_link_header(expression, accepted):
    """The protocol is asked of the kernel, network headers lie at the start; link addresses can't be had."""
    if accepted is SourceError:
        with pytest.raises(SourceError, match=expression):
            build(expression, bpf.COOKED)
    else:
        loads = [i.k for i in build(expression, bpf.COOKED) if i.code in (0x20, 0x28)]
        assert bpf._PROTOCOL in loads and 12 in loads


def test_syntax_error_has_the_words_of_libpcap_and_the_filter():
    with pytest.raises(SourceError, match=r"^miner\.filter 'tcp prot 3': .*syntax error.*pcap-filter\(7\)"):
        build("tcp prot 3")


@pytest.mark.parametrize(
    "expression", ["tcp port 70000", "host no-such-name.invalid", "ip broadcast", "a\0b", "é", "("]
)
def test_other_mistakes_are_errors_too(expression):
    with pytest.raises(SourceError, match=r"^miner\.filter "):
        build(expression)


def test_program_that_is_too_long():
    with pytest.raises(SourceError, match="shorter expression"):
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with near, far:
            bpf.attach(far, build("") * 5000)


def test_missing_libpcap(monkeypatch):
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(SourceError, match=r"apt install libpcap0\.8"):
        build("tcp")
    assert build("")  # needs no libpcap


def test_structures_have_the_kernels_sizes():
    assert ctypes.sizeof(bpf._RawInstruction) == 8
    assert ctypes.sizeof(bpf._RawProgram) == 2 * ctypes.sizeof(ctypes.c_void_p)
