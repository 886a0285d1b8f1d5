"""Filter expression -> BPF program for a packet socket, compiled by libpcap through ctypes.

No function that takes a timeval is called: its size differs between libpcap builds for 32-bit ARM.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Any, NamedTuple

from netspot.config import MinerConfig
from netspot.errors import SourceError
from netspot.miner.devices import ANY, ARPHRD_LOOPBACK, Device

COOKED = 113  # LINKTYPE_LINUX_SLL, which is libpcap's DLT_LINUX_SLL
COOKED_HEADER = 16  # length of LINUX_SLL's pseudo-header, which a SOCK_DGRAM packet socket does not have [byte]

_LD_ABS_WORD, _JEQ, _RET, _RET_MASK = 0x20, 0x15, 0x06, 0x07  # linux/bpf_common.h
_LD, _LDX, _ABS, _IND, _MSH = 0x00, 0x01, 0x20, 0x40, 0xA0
_ANCILLARY = 0xFFFF_F000  # SKF_AD_OFF of linux/filter.h: loads from here on read what the kernel knows of the packet
_PROTOCOL, _PKTTYPE, _HATYPE = _ANCILLARY, _ANCILLARY + 4, _ANCILLARY + 28
_OUTGOING = 4  # a packet type of linux/if_packet.h
_SO_ATTACH_FILTER = 26
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_NETMASK_UNKNOWN = 0xFFFF_FFFF


class Instruction(NamedTuple):
    code: int
    jump_true: int
    jump_false: int
    k: int


Program = list[Instruction]

REJECT = Instruction(_RET, 0, 0, 0)


class _RawInstruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _RawProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_RawInstruction)))


def build(config: MinerConfig, device: Device, link_type: int) -> Program:
    """The whole program of one socket: direction, loopback, filter; what passes is cut to the snapshot length.

    ``link_type``: what the frames begin with, COOKED on a SOCK_DGRAM socket. Raises SourceError with libpcap's words.
    """
    program = [Instruction(_RET, 0, 0, config.snapshot_len)]
    if config.filter.strip():
        on = ANY if link_type == COOKED else device.name
        program = _cut(compile_filter(config.filter, link_type, config.snapshot_len, on), config.snapshot_len)
        if link_type == COOKED:
            program = _uncooked(program, config.filter)
    return _direction(config.direction) + _loopback(config, device) + program


def attach(sock: socket.socket, program: Program) -> None:
    """Filter what the socket receives from now on. SourceError where the kernel takes no program of this length."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
    except OSError as error:
        raise SourceError(
            f"miner.filter: the kernel refuses a program of {len(program)} instructions ({error.strerror}): "
            f"it takes {_MAX_INSTRUCTIONS}, and less where net.core.optmem_max is small; write a shorter expression"
        ) from None


def _direction(direction: str) -> Program:
    """Drop what this machine sends ("in"), or all else ("out")."""
    if direction == "both":
        return []
    skip_true, skip_false = (0, 1) if direction == "in" else (1, 0)
    return [
        Instruction(_LD_ABS_WORD, 0, 0, _PKTTYPE),
        Instruction(_JEQ, skip_true, skip_false, _OUTGOING),
        REJECT,
    ]


def _loopback(config: MinerConfig, device: Device) -> Program:
    """Drop packets of the loopback interface, or only their first sight: each is seen leaving and arriving."""
    program = [Instruction(_LD_ABS_WORD, 0, 0, _HATYPE)]
    if device.name == ANY and not config.loopback:
        return [*program, Instruction(_JEQ, 0, 1, ARPHRD_LOOPBACK), REJECT]
    if config.direction == "both" and (device.name == ANY or device.arphrd == ARPHRD_LOOPBACK):
        return [*program, Instruction(_JEQ, 0, 3, ARPHRD_LOOPBACK), *_direction("in")]
    return []


def _cut(program: Program, snapshot_len: int) -> Program:
    """Let every accepting return give the snapshot length."""
    return [i._replace(k=snapshot_len) if i.code == _RET and i.k else i for i in program]


def _uncooked(program: Program, expression: str) -> Program:
    """Move the loads of a program for LINUX_SLL to where a SOCK_DGRAM socket has the same bytes."""
    return [_uncooked_load(i, expression) if _loads_packet(i) else i for i in program]


def _loads_packet(i: Instruction) -> bool:
    return i.code & _RET_MASK in (_LD, _LDX) and i.code & 0xE0 in (_ABS, _IND, _MSH) and i.k < _ANCILLARY


def _uncooked_load(i: Instruction, expression: str) -> Instruction:
    if i.k >= COOKED_HEADER:
        return i._replace(k=i.k - COOKED_HEADER)
    known = {14: _PROTOCOL, 0: _PKTTYPE, 2: _HATYPE}  # offsets in the pseudo-header
    if i.code & 0xE0 != _ABS or i.k not in known:
        raise SourceError(
            f"miner.filter {expression!r}: link addresses cannot be filtered where interfaces are of several kinds, "
            f"nor where the link has none; use IP addresses, or one Ethernet device"
        )
    return Instruction(_LD_ABS_WORD, 0, 0, known[i.k])


# ---- libpcap -------------------------------------------------------------------------------------------------------


def compile_filter(expression: str, link_type: int, snapshot_len: int, device: str | None = None) -> Program:
    """What libpcap makes of the expression, for frames of ``link_type``.

    ``device`` None: for frames as in a file. On a device VLAN tags are stripped by the kernel, and only a program that
    is compiled for it finds them.
    """
    pcap = library()
    if "\0" in expression:
        raise SourceError(f"miner.filter {expression!r}: holds a zero byte")
    handle = _live_handle(pcap, device, link_type, snapshot_len) or pcap.pcap_open_dead(link_type, snapshot_len)
    raw = _RawProgram()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(raw), expression.encode(), 1, _NETMASK_UNKNOWN):
            reason = pcap.pcap_geterr(handle).decode(errors="replace")
            raise SourceError(f"miner.filter {expression!r}: {reason}; accepted is what pcap-filter(7) describes")
        program = [Instruction(i.code, i.jt, i.jf, i.k) for i in raw.instructions[: raw.length]]
        pcap.pcap_freecode(ctypes.byref(raw))
    finally:
        pcap.pcap_close(handle)
    return program


def check_filter(expression: str) -> None:
    """Raise SourceError, with what libpcap says of Ethernet, where no link type that netspot knows has such packets."""
    from netspot.miner.links import ETHERNET, LINKS

    words: list[SourceError] = []
    for link_type in (ETHERNET, *LINKS):
        try:
            compile_filter(expression, link_type, 65535)
            return
        except SourceError as error:
            words.append(error)
    raise words[0]


def library() -> Any:
    """libpcap; SourceError where it is not installed."""
    for name in ("libpcap.so.0.8", "libpcap.so.1"):
        try:
            return _typed(ctypes.CDLL(name))
        except OSError:
            continue
    raise SourceError(
        "miner.filter needs libpcap, which is not installed: apt install libpcap0.8, or remove the filter"
    )


def _typed(pcap: Any) -> Any:
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    program = ctypes.POINTER(_RawProgram)
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "pcap_open_dead": (pointer, (number, number)),
        "pcap_create": (pointer, (text, text)),
        "pcap_set_snaplen": (number, (pointer, number)),
        "pcap_set_buffer_size": (number, (pointer, number)),
        "pcap_activate": (number, (pointer,)),
        "pcap_datalink": (number, (pointer,)),
        "pcap_compile": (number, (pointer, program, text, number, ctypes.c_uint32)),
        "pcap_freecode": (None, (program,)),
        "pcap_geterr": (text, (pointer,)),
        "pcap_close": (None, (pointer,)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(pcap, name)
        function.restype, function.argtypes = result, arguments
    return pcap


def datalink(device: str, snapshot_len: int) -> int:
    """The link type that libpcap gives the device's frames. SourceError where it cannot be opened."""
    pcap = library()
    handle = _activated(pcap, device, snapshot_len)
    if handle is None:
        raise SourceError(f"{device}: libpcap cannot capture there")
    number = int(pcap.pcap_datalink(handle))
    pcap.pcap_close(handle)
    return number


def _live_handle(pcap: Any, device: str | None, link_type: int, snapshot_len: int) -> int | None:
    """A capture handle on the device, or None where it cannot be had or has another link type."""
    handle = None if device is None else _activated(pcap, device, snapshot_len)
    if handle is not None and pcap.pcap_datalink(handle) != link_type:
        pcap.pcap_close(handle)
        return None
    return handle


def _activated(pcap: Any, device: str, snapshot_len: int) -> int | None:
    errors = ctypes.create_string_buffer(256)
    handle: int | None = pcap.pcap_create(device.encode(), errors)
    if handle is None:
        return None
    pcap.pcap_set_snaplen(handle, snapshot_len)
    pcap.pcap_set_buffer_size(handle, 1 << 16)  # it captures nothing, so the default of 2 MiB would be wasted
    if pcap.pcap_activate(handle) >= 0:
        return handle
    pcap.pcap_close(handle)
    return None
