"""The package on whole virtual boards: emulated processor, Debian's kernel, systemd; a Raspberry Pi 3B among them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packages.board import MACHINES, Board
from tests.packages.rootfs import Tree

pytestmark = pytest.mark.everything
CONFIGURATION = """\
miner: {device: v0}
analyzer: {period: 1s, stats: [R_SYN]}
spot: {n_init: 50, q: 1e-3, depth: 0}
"""
MOST_MIB = {"arm64": 48, "armhf": 36}


class Installed(Board):
    """With the package installed, traffic.py and trafgen at hand."""

    name: str
    arch: str

    def health(self) -> dict[str, int]:
        text = self.run(
            "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:11000/api/status').read().decode())\""
        )
        found: dict[str, int] = json.loads(text[text.index("{") :])
        return found

    def cpu_s(self) -> float:
        """Of the service, since its start [s of the board's time]."""
        return int(self.shown("CPUUsageNSec")) / 1e9


@pytest.fixture(scope="module", params=["raspi3b", "virt-armhf"])
def board(
    request: pytest.FixtureRequest, machine: Callable[[str, str], Tree], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    arch = MACHINES[request.param][0]
    folder = tmp_path_factory.mktemp(request.param)
    tree = machine("bookworm", arch).over(folder / "upper")
    tree.run("apt-get install --yes --no-install-recommends netsniff-ng systemd-timesyncd", cache=True)
    tree.write("/srv/traffic.py", Path(__file__).with_name("traffic.py").read_text())
    with Installed(request.param, tree, folder) as booted:
        booted.name, booted.arch = request.param, arch
        yield booted


def test_it_boots_with_the_service_active(board: Installed, figures: dict[str, str]) -> None:
    board.wait_for("systemctl show -P ActiveState netspot", "active", 300, every_s=2)
    model = board.run("tr -d '\\0' </proc/device-tree/model 2>/dev/null; echo; uname -m")
    figures[f"{board.name}: is"] = " ".join(model.split())
    figures[f"{board.name}: prompt after"] = f"{board.prompt_s:.0f} s"
    figures[f"{board.name}: READY after the program's start"] = f"{board.ready_s():.1f} s, {board.cpu_s():.1f} s of CPU"
    if board.name == "raspi3b":
        assert "Raspberry Pi 3 Model B" in model


def test_its_memory(board: Installed, figures: dict[str, str]) -> None:
    rss_mib = int(board.run("grep VmRSS /proc/$(systemctl show -P MainPID netspot)/status | tr -dc 0-9")) / 1024
    figures[f"{board.name}: RSS ({board.arch})"] = f"{rss_mib:.1f} MiB (at most {MOST_MIB[board.arch]})"
    assert rss_mib <= MOST_MIB[board.arch]


def test_packets_are_counted(board: Installed, figures: dict[str, str]) -> None:
    board.run("ip link add v0 type veth peer name v1; sysctl -qw net.ipv6.conf.{v0,v1}.disable_ipv6=1")
    board.run("ip link set v0 up; ip link set v1 up")
    for line in CONFIGURATION.splitlines():
        board.run(f"echo '{line}' >>/etc/netspot/conf.d/test.yaml")
    board.run("systemctl restart netspot", 300)
    before, cpu_s = board.health(), board.cpu_s()
    assert board.run("python3 /srv/traffic.py v1 home 20000 250", 400).startswith("sent 20000")
    board.run("sleep 3")
    after, used_s = board.health(), board.cpu_s() - cpu_s
    counted = after["captured"] - before["captured"]
    lost = after["dropped"] - before["dropped"]
    told = f"{counted} counted, {lost} dropped, {used_s / 83 * 100:.0f} % of an emulated core"
    figures[f"{board.name}: of 20,000 packets in 80 s"] = told
    assert (counted, lost) == (20_000, 0)


def test_an_alarm_is_printed(board: Installed) -> None:
    board.wait_for("systemctl show -P StatusText netspot", "watching on v0")
    board.run("python3 /srv/traffic.py v1 flood 5000 500", 300)
    text = board.wait_for('journalctl -u netspot -o cat --no-pager | grep \'"kind":"alarm"\' | cut -c1-200', "R_SYN")
    assert '"event_type":"up"' in text


def test_what_is_too_much_is_counted_as_dropped(board: Installed, figures: dict[str, str]) -> None:
    before, cpu_s = board.health(), board.cpu_s()
    frame = "eth(da=2:0:0:0:0:2, sa=2:0:0:0:0:1), ipv4(saddr=10.1.0.1, daddr=10.2.0.1), tcp(dp=80, syn), fill(0, 6)"
    board.run(f"trafgen -q -P1 --num 300000 --dev v1 '{{ {frame} }}'", 600)
    board.run("sleep 5")
    after = board.health()
    counted, lost = (after[name] - before[name] for name in ("captured", "dropped"))
    used_s = board.cpu_s() - cpu_s
    figures[f"{board.name}: of 300,000 as fast as trafgen sends"] = (
        f"{counted} counted, {lost} dropped; at most {used_s / max(counted, 1) * 1e6:.1f} us of emulated CPU a packet"
    )
    assert counted + lost == 300_000


def test_its_time_is_marked_as_not_set(board: Installed) -> None:
    assert board.health()["clock_synced"] is False


def test_it_stops_well(board: Installed) -> None:
    board.run("systemctl stop netspot")
    assert board.shown("Result") == "success"
    assert re.search(r"detectors", board.run("ls -l /var/lib/netspot"))
