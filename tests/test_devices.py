"""Interfaces, in network namespaces of the tests' own."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
import sys
import time

import pytest

from netspot.config import MinerConfig
from netspot.errors import SourceError
from netspot.miner.decode import PRIVATE
from netspot.miner.devices import devices, home_nets, open_live, resolve
from tests.netns import needs, veth

pytestmark = needs()


@pytest.fixture
def near():
    with veth() as (near, _), near.entered():
        yield near


def test_what_is_told_of_an_interface(near):
    near.ip("address", "add", "fd00:9::1/64", "dev", "veth0")
    near.ip("route", "add", "default", "via", "10.9.0.2")
    lo, veth0 = devices()
    assert (lo.name, lo.state, lo.kind, lo.addresses, lo.default_route) == ("lo", "down", "loopback", [], False)
    assert (veth0.name, veth0.state, veth0.kind, veth0.link_type) == ("veth0", "up", "ethernet", 1)
    assert veth0.addresses == ["10.9.0.1/24", "fd00:9::1/64"]
    assert (veth0.mac, veth0.default_route) == ("02:00:00:00:00:01", True)


def test_state_without_a_carrier():
    with veth() as (near, far), near.entered():
        far.ip("link", "set", "veth0", "down")
        assert any(devices()[1].state == "no carrier" for _ in range(40) if not time.sleep(0.05))  # told a little later
        near.ip("link", "set", "veth0", "down")
        assert devices()[1].state == "down"


def test_auto(near):
    near.ip("link", "set", "lo", "up")
    near.ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
    near.ip("link", "set", "veth1", "up")
    near.ip("link", "set", "veth2", "up")
    near.ip("address", "add", "10.8.0.1/24", "dev", "veth1")
    assert resolve("auto").name == "veth0"  # the first that is up
    assert resolve("auto", "veth1").name == "veth1"  # kept as long as no other is better
    near.ip("route", "add", "default", "via", "10.8.0.2", "metric", "200")
    assert resolve("auto", "veth0").name == "veth1"
    near.ip("route", "add", "default", "via", "10.9.0.2", "metric", "100")
    assert resolve("auto").name == "veth0"
    assert resolve("auto", "veth1").name == "veth1"
    near.ip("link", "set", "veth1", "down")
    assert resolve("auto", "veth1").name == "veth0"


def test_auto_with_a_default_route_of_ipv6_only(near):
    near.ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
    near.ip("link", "set", "veth2", "up")
    near.ip("link", "set", "veth1", "up")
    near.ip("address", "add", "fd00:8::1/64", "dev", "veth1", "nodad")
    near.ip("-6", "route", "add", "unreachable", "default", "metric", "1")
    assert resolve("auto").name == "veth0"
    near.ip("-6", "route", "add", "default", "via", "fd00:8::2", "dev", "veth1")
    assert resolve("auto").name == "veth1"


def test_auto_where_little_is_up(near):
    near.ip("link", "del", "veth0")
    with pytest.raises(SourceError, match="no interface is up; there are lo"):
        resolve("auto")
    near.ip("link", "set", "lo", "up")
    assert resolve("auto").name == "lo"


@pytest.mark.parametrize(("name", "hint"), [("vet0", "; did you mean veth0?"), ("wlan0", "$")])
def test_missing_device(near, name, hint):
    with pytest.raises(SourceError, match=f"'{name}': no such interface; there are lo, veth0, any.*{hint}"):
        open_live(MinerConfig(device=name))


def test_home_networks(near):
    nets = {str(net) for net in home_nets(MinerConfig(), "veth0").nets}
    assert nets == {"10.9.0.0/24", "fe80::/10"}
    near.ip("address", "add", "2001:db8:9::1/64", "dev", "veth0")
    nets = {str(net) for net in home_nets(MinerConfig(), "any").nets}
    assert nets == {"10.9.0.0/24", "2001:db8:9::/64", "fe80::/10"}
    assert home_nets(MinerConfig(home_nets=("192.0.2.1/24",)), "veth0").nets == (ipaddress.ip_network("192.0.2.0/24"),)
    near.ip("address", "flush", "dev", "veth0")
    assert home_nets(MinerConfig(), "veth0") == PRIVATE


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
@pytest.mark.parametrize("device", ["lo", "any"])
def test_without_permission_the_error_says_what_grants_it(device):
    code = (
        "from netspot.config import MinerConfig; from netspot.miner.devices import open_live\n"
        f"try: open_live(MinerConfig(device={device!r}))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", code]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.startswith(f"SourceError {device}: no permission to capture, CAP_NET_RAW is missing")
    assert "sudo setcap cap_net_raw+ep /" in text and "AmbientCapabilities=CAP_NET_RAW" in text


def test_auto_is_content_with_loopback_only_until_there_is_another(near):
    near.ip("link", "set", "lo", "up")
    near.ip("link", "set", "veth0", "down")
    assert resolve("auto").name == "lo"
    near.ip("link", "set", "veth0", "up")
    assert resolve("auto", "lo").name == "veth0"
