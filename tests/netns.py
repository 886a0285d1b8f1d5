"""Two network namespaces joined by a veth pair, for tests with real packets. Needs root.

with veth() as (near, far):
    with near.entered():
        source = open_live(MinerConfig(device="veth0"))
    far.run("tcpreplay", "-i", "veth0", "capture.pcap")
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

_CLONE_NEWNET = 0x40000000
_number = itertools.count()


def missing(*commands: str) -> str:
    """Why no test of this kind can run here; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [command for command in ("ip", *commands) if not shutil.which(command, path=_PATH)]
    if absent:
        return f"not installed: {', '.join(absent)}"
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "network namespaces cannot be made here"


def needs(*commands: str) -> pytest.MarkDecorator:
    """A mark for tests that need namespaces and these commands."""
    reason = missing(*commands)
    return pytest.mark.skipif(bool(reason), reason=reason)


_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@dataclass(frozen=True)
class Namespace:
    name: str

    def run(self, *command: str, timeout_s: float = 60) -> str:
        """Run a command inside, to its end, which must be a good one; its output."""
        process = self.start(*command)
        output = process.communicate(timeout=timeout_s)[0]
        assert process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}: {output}"
        return output

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command inside. Whoever starts it ends it."""
        environment = os.environ | {"PATH": _PATH}
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.Popen(inside, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)

    def ip(self, *arguments: str) -> str:
        return _ip("-n", self.name, *arguments)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside; sockets opened meanwhile stay so."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _setns(inside)
            yield
        finally:
            _setns(before)
            os.close(before)
            os.close(inside)


@contextlib.contextmanager
def veth(mtu: int = 1500) -> Iterator[tuple[Namespace, Namespace]]:
    """Two new namespaces; ``veth0`` of the one, 10.9.0.1/24, is joined to ``veth0`` of the other, 10.9.0.2/24.

    Neither ARP nor IPv6 address configuration is on, so that nothing is sent but what a test sends.
    """
    pair = [Namespace(f"netspot-{os.getpid()}-{next(_number)}") for _ in range(2)]
    try:
        for namespace in pair:
            _ip("netns", "add", namespace.name)
        join(*pair, mtu)
        yield pair[0], pair[1]
    finally:
        for namespace in pair:
            _ip("netns", "del", namespace.name, check=False)


def join(near: Namespace, far: Namespace, mtu: int = 1500) -> None:
    """Make the veth pair; again, after one end was deleted."""
    near.ip(
        "link",
        "add",
        "veth0",
        "mtu",
        str(mtu),
        "type",
        "veth",
        "peer",
        "name",
        "veth0",
        "mtu",
        str(mtu),
        "netns",
        far.name,
    )
    for k, namespace in enumerate((near, far), 1):
        namespace.ip("link", "set", "veth0", "address", f"02:00:00:00:00:0{k}", "arp", "off", "addrgenmode", "none")
        namespace.ip("address", "add", f"10.9.0.{k}/24", "dev", "veth0")
    for namespace in (near, far):
        namespace.ip("link", "set", "veth0", "up")


def _ip(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, check=False, env=os.environ | {"PATH": _PATH}
    )
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
