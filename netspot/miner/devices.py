"""Network interfaces: which there are, which one ``auto`` is, which networks are home; and opening one."""

from __future__ import annotations

import ctypes
import difflib
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netspot.config import MinerConfig
from netspot.errors import SourceError
from netspot.miner.decode import PRIVATE, HomeNets, IPNetwork
from netspot.miner.source import Source

ANY = "any"  # all interfaces at once

ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772  # linux/if_arp.h
_LINK_TYPES = {ARPHRD_ETHER: 1, ARPHRD_LOOPBACK: 1, 801: 105, 803: 127}  # ARPHRD_ -> LINKTYPE_; all else is cooked
COOKED_V2 = 276
_KINDS = {
    512: "ppp",
    768: "tunnel",
    769: "tunnel",
    772: "loopback",
    776: "tunnel",
    778: "tunnel",
    801: "wifi",
    803: "wifi",
}
_IFF_UP, _IFF_RUNNING = 0x1, 0x40  # linux/if.h
_RTF_UP, _RTF_REJECT = 0x1, 0x200  # linux/route.h
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")


class Device:
    """An interface of this machine."""

    def __init__(self, name: str, arphrd: int = ARPHRD_ETHER, up: bool = False) -> None:
        self.name = name
        self.index = 0
        self.arphrd = arphrd  # hardware type, an ARPHRD_ number
        self.up = self.carrier = up  # the carrier: the cable or the radio is connected
        self.mac = ""
        self.addresses: list[str] = []  # with the length of the prefix: 192.0.2.7/24
        self.default_route = False

    @property
    def state(self) -> str:
        """``up``, ``no carrier`` or ``down``."""
        return ("up" if self.carrier else "no carrier") if self.up else "down"

    @property
    def link_type(self) -> int:
        """The LINKTYPE_ number of its frames here."""
        return _LINK_TYPES.get(self.arphrd, COOKED_V2)

    @property
    def kind(self) -> str:
        """``ethernet``, ``wifi``, ``bridge``, ``vlan``, ``ppp``, ``tunnel``, ``loopback``, ... as the kernel tells."""
        if self.arphrd in _KINDS:
            return _KINDS[self.arphrd]
        folder = Path("/sys/class/net") / self.name
        if (folder / "wireless").exists() or (folder / "phy80211").exists():
            return "wifi"
        try:
            lines = (folder / "uevent").read_text().splitlines()
        except OSError:
            lines = []
        kinds = [line.removeprefix("DEVTYPE=") for line in lines if line.startswith("DEVTYPE=")]
        return kinds[0] if kinds else "ethernet" if self.arphrd == ARPHRD_ETHER else "tunnel"


def open_live(config: MinerConfig) -> Source:
    """The source of packets that ``miner.device`` and ``miner.backend`` name. Raises SourceError."""
    from netspot.miner.live import LiveSource

    if config.backend == "libpcap":
        from netspot.miner.libpcap import Pcap

        return LiveSource(config, Pcap)
    if not sys.platform.startswith("linux"):
        raise SourceError("miner.backend: the ring is there on Linux only; set libpcap and install python-libpcap")
    from netspot.miner.ring import Ring

    return LiveSource(config, Ring)


def no_permission(name: str) -> str:
    """What to do where the kernel refuses a packet socket."""
    python = Path(sys.executable).resolve()
    return (
        f"{name}: no permission to capture, CAP_NET_RAW is missing: run as root (sudo), or grant it once with "
        f"'sudo setcap cap_net_raw+ep {python}', or in a systemd unit with AmbientCapabilities=CAP_NET_RAW"
    )


def resolve(name: str, current: str = "") -> Device:
    """The interface of that name, ``auto`` and ``any`` included (which has index 0). Raises SourceError.

    ``current``: which ``auto`` keeps as long as it is up and has a default route.
    """
    if name == ANY:
        return Device(ANY, arphrd=0, up=True)
    found = {device.name: device for device in devices()}
    if name == "auto":
        return _automatic(list(found.values()), current)
    if name in found:
        return found[name]
    near = difflib.get_close_matches(name, found, 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise SourceError(f"miner.device {name!r}: no such interface; there are {', '.join([*found, ANY])}{hint}")


def _automatic(found: list[Device], current: str) -> Device:
    """The interface of the default route, else the first that is up, the loopback interface last."""
    routes = default_routes()
    candidates = [device for device in found if device.up]
    if not candidates:
        raise SourceError(
            f"miner.device auto: no interface is up; there are {', '.join(d.name for d in found) or 'none'}"
        )

    def rank(device: Device) -> tuple[int | bool, ...]:
        route = routes.index(device.name) if device.name in routes else len(routes)
        loopback = device.arphrd == ARPHRD_LOOPBACK  # good only until there is another, as early at boot
        keep = device.name == current and (device.default_route or not routes) and not loopback
        return not keep, route, loopback, not device.carrier, device.index

    return min(candidates, key=rank)


def devices() -> list[Device]:
    """All interfaces of this network namespace, by index. Raises SourceError where the kernel does not tell them."""
    found: dict[str, Device] = {}
    for name, flags, address, netmask in _interface_addresses():
        device = found.setdefault(name, Device(name))
        device.up, device.carrier = bool(flags & _IFF_UP), bool(flags & _IFF_RUNNING)
        family = struct.unpack_from("=H", address)[0] if address else 0
        if family == socket.AF_PACKET:
            device.index, device.arphrd, _, length = struct.unpack_from("=iHBB", address, 4)
            device.mac = address[12 : 12 + length].hex(":") if length == 6 else ""
        elif family in (socket.AF_INET, socket.AF_INET6):
            device.addresses.append(_with_prefix(family, address, netmask))
    for route in set(default_routes()) & set(found):
        found[route].default_route = True
    return sorted(found.values(), key=lambda device: device.index)


def default_routes() -> list[str]:
    """The interfaces that have a default route: IPv4's before IPv6's, lowest metric first."""
    routes = []
    for line in _proc_net("route")[1:]:
        name, destination, _, flags, _, _, metric, mask = line.split()[:8]
        if destination == mask == "00000000" and int(flags, 16) & _RTF_UP:
            routes.append((4, int(metric), name))
    for line in _proc_net("ipv6_route"):
        words = line.split()
        if set(words[0]) == {"0"} and words[1] == "00" and int(words[8], 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP:
            routes.append((6, int(words[5], 16), words[9]))
    return [name for _, _, name in sorted(routes)]


def home_nets(config: MinerConfig, name: str) -> HomeNets:
    """The configured networks, or those that the interface (all of them for ``any``) is in, or the private ranges."""
    if config.home_nets is not None:
        return HomeNets(tuple(ipaddress.ip_network(net, strict=False) for net in config.home_nets))
    nets: set[IPNetwork] = set()
    for device in devices():
        if device.name == name or (name == ANY and device.arphrd != ARPHRD_LOOPBACK):
            nets |= {ipaddress.ip_interface(address).network for address in device.addresses}
    known = sorted((net for net in nets if not net.is_link_local), key=str)
    return HomeNets((*known, _LINK_LOCAL)) if known else PRIVATE


def _proc_net(name: str) -> list[str]:
    """Lines of a file of the kernel's; below self, because a sandboxed service is shown no other part of /proc."""
    try:
        return Path(f"/proc/self/net/{name}").read_text().splitlines()
    except OSError:
        return []


# ---- getifaddrs(3) -------------------------------------------------------------------------------------------------


class _Ifaddrs(ctypes.Structure):
    pass


_Ifaddrs._fields_ = (
    ("next", ctypes.POINTER(_Ifaddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("netmask", ctypes.c_void_p),
    ("destination", ctypes.c_void_p),
    ("data", ctypes.c_void_p),
)


def _interface_addresses() -> Iterator[tuple[str, int, bytes, bytes]]:
    """(interface, IFF_ flags, struct sockaddr of the address, of the netmask) of each address."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Ifaddrs)()
    if libc.getifaddrs(ctypes.byref(first)):
        raise SourceError(
            f"the kernel does not tell the interfaces (getifaddrs: errno {ctypes.get_errno()}); "
            f"a sandbox must allow the address family AF_NETLINK"
        )
    try:
        entry = first
        while entry:
            item = entry.contents
            name = item.name.decode(errors="surrogateescape").partition(":")[0]  # eth0:1 is an address label
            yield name, item.flags, _sockaddr(item.address), _sockaddr(item.netmask)
            entry = item.next
    finally:
        libc.freeifaddrs(first)


def _sockaddr(address: int | None) -> bytes:
    if not address:
        return b""
    family = struct.unpack("=H", ctypes.string_at(address, 2))[0]
    sizes = {socket.AF_INET: 16, socket.AF_INET6: 28, socket.AF_PACKET: 20}
    return ctypes.string_at(address, sizes.get(family, 2))


def _with_prefix(family: int, address: bytes, netmask: bytes) -> str:
    at, size = (4, 4) if family == socket.AF_INET else (8, 16)
    length = int.from_bytes(netmask[at : at + size], "big").bit_count()
    return f"{socket.inet_ntop(family, address[at : at + size])}/{length}"
