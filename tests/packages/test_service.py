"""The installed service under a real systemd: amd64, in a container without a network but its own veth pair."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packages.conftest import WANTED
from tests.packages.nspawn import Booted
from tests.packages.rootfs import Tree, higher_version, rootfs

TRAFFIC = Path(__file__).with_name("traffic.py")
CONFIGURATION = """\
miner: {device: v0}
analyzer: {period: 100ms, stats: [R_SYN, R_ACK, TRAFFIC]}
spot: {n_init: 100, q: 1e-3, depth: 0}
"""
CAP_NET_RAW = 1 << 13


@pytest.fixture(scope="module")
def box(
    request: pytest.FixtureRequest,
    repository: Callable[[str, str], Path],
    build: Callable[[str, str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Booted]:
    """A fresh system that has seen the repository, and has the packages to install on its disk."""
    folder = tmp_path_factory.mktemp("service")
    tree = Tree(rootfs("base", "bookworm", "amd64"), folder / "upper")
    tree.use_repository(repository("bookworm", "amd64"), "bookworm")
    tree.run("apt-get install --yes --no-install-recommends --download-only netspot libpcap0.8", cache=True)
    higher = higher_version(build("amd64", "bookworm"), folder)
    binds = {"/srv/traffic.py": TRAFFIC, "/srv/higher.deb": higher}
    with Booted(tree, binds) as booted:
        yield booted
        if request.session.testsfailed:
            print(booted.run("journalctl --no-pager -n 80 -o short-monotonic", check=False))


def send(box: Booted, kind: str, packets: int, per_second: int) -> None:
    box.run(f"python3 /srv/traffic.py v1 {kind} {packets} {per_second}")


def since(box: Booted, script: str) -> str:
    """The journal's lines of netspot from before ``script`` to after it."""
    cursor = box.run("journalctl --show-cursor -n 0 | sed -n 's/-- cursor: //p'").strip()
    box.run(script)
    return box.run(f"journalctl -u netspot --no-pager -o cat --after-cursor='{cursor}'")


def test_apt_installs_and_starts_it_without_any_configuration(box: Booted, figures: dict[str, str]) -> None:
    box.run("apt-get install --yes --no-install-recommends netspot libpcap0.8")
    assert [box.shown(name) for name in ("ActiveState", "UnitFileState", "NRestarts")] == ["active", "enabled", "0"]
    figures["nspawn amd64: READY after"] = f"{box.ready_s():.2f} s (at most 5)"
    assert box.ready_s() < 5


def test_it_holds_one_capability_and_nothing_else(box: Booted) -> None:
    pid = box.shown("MainPID")
    fields = dict(line.split(":\t", 1) for line in box.run(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {CAP_NET_RAW}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert box.run(f"stat -c %U /proc/{pid}").strip() == "netspot"
    assert box.run("stat -c '%U %a' /var/lib/netspot").strip() == "netspot 750"


def test_starting_costs_little(box: Booted, figures: dict[str, str]) -> None:
    box.run("systemctl restart netspot")
    cpu_s = int(box.shown("CPUUsageNSec")) / 1e9
    figures["nspawn amd64: CPU of a start"] = f"{cpu_s:.2f} s (at most 3)"
    assert cpu_s < 3


def test_it_counts_packets_and_raises_an_alarm(box: Booted) -> None:
    box.run("ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up")
    box.run(f"cat >/etc/netspot/conf.d/test.yaml <<'X'\n{CONFIGURATION}X")
    box.run("netspot check /etc/netspot/netspot.yaml && systemctl restart netspot")
    send(box, "home", 8_000, 500)
    box.wait_for("systemctl show -p StatusText netspot", "watching on v0")
    text = since(box, "python3 /srv/traffic.py v1 flood 2000 1000; sleep 2")
    assert '"kind":"alarm"' in text and '"stat":"R_SYN"' in text, text
    assert " 0 dropped" in box.shown("StatusText")


def test_the_page_is_served(box: Booted) -> None:
    get = "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:11000{}').read().decode())\""
    assert "<html" in box.run(get.format("/"))
    assert "R_SYN" in box.run(get.format("/api/stats"))


def test_reload_keeps_what_was_learned_and_the_process(box: Booted) -> None:
    pid = box.shown("MainPID")
    box.run("sed -i 's/R_ACK, TRAFFIC/R_ACK, TRAFFIC, R_ICMP/' /etc/netspot/conf.d/test.yaml")
    text = since(box, "systemctl reload netspot; sleep 1")
    assert "3 of 3 detectors go on" in text, text
    assert box.shown("MainPID") == pid


def test_a_change_over_the_api_is_kept(box: Booted) -> None:
    text = box.run("netspotctl config set analyzer.clear_after=11 --save; cat /etc/netspot/conf.d/90-api.yaml")
    assert "analyzer.clear_after" in text, text
    box.run("rm /etc/netspot/conf.d/90-api.yaml; systemctl reload netspot; sleep 1")


def test_a_wrong_configuration_changes_nothing(box: Booted) -> None:
    box.run("echo 'spot: {q: 7}' >/etc/netspot/conf.d/wrong.yaml")
    text = since(box, "systemctl reload netspot; sleep 1; rm /etc/netspot/conf.d/wrong.yaml")
    assert "spot.q" in text and "stays as it was" in text
    assert box.shown("ActiveState") == "active"


def test_the_watchdog_restarts_a_stopped_process(box: Booted, figures: dict[str, str]) -> None:
    drop_in = "/run/systemd/system/netspot.service.d"
    box.run(f"mkdir -p {drop_in}; printf '[Service]\\nWatchdogSec=4\\n' >{drop_in}/test.conf; systemctl daemon-reload")
    box.run("systemctl restart netspot; sleep 6")
    assert box.shown("NRestarts") == "0"  # it does feed it
    begun_s = time.monotonic()
    box.run("systemctl kill -s STOP netspot")
    box.wait_for("systemctl show -p NRestarts,ActiveState netspot | paste -sd,", "NRestarts=1,ActiveState=active")
    figures["nspawn amd64: stopped process replaced after"] = (
        f"{time.monotonic() - begun_s:.1f} s (WatchdogSec=4, RestartSec=5)"
    )
    box.run(f"rm -r {drop_in}; systemctl daemon-reload")


def test_stop_is_quick_and_start_goes_on_with_what_was_learned(box: Booted, figures: dict[str, str]) -> None:
    begun_s = time.monotonic()
    box.run("systemctl stop netspot")
    figures["nspawn amd64: systemctl stop"] = f"{time.monotonic() - begun_s:.2f} s (at most 2)"
    assert time.monotonic() - begun_s < 2
    assert box.shown("Result") == "success"
    assert "detectors go on with what they learned" in since(box, "systemctl start netspot")


def test_upgrade_keeps_configuration_and_detectors(box: Booted) -> None:
    yaml = "sha256sum /etc/netspot/conf.d/test.yaml /etc/netspot/netspot.yaml"
    box.run("echo '# mine' >>/etc/netspot/netspot.yaml")
    before = box.run(yaml)
    text = since(box, "dpkg -i /srv/higher.deb")
    assert box.run(yaml) == before
    assert "detectors go on with what they learned" in text, text
    assert box.shown("ActiveState") == "active"
    assert box.run("dpkg-query -W -f '${Version}' netspot").endswith("+1")


@pytest.mark.skipif(WANTED != "all", reason="ten minutes")
def test_memory_after_ten_minutes_of_traffic(box: Booted, figures: dict[str, str]) -> None:
    measure = f"grep VmRSS /proc/{box.shown('MainPID')}/status | tr -dc 0-9"
    send(box, "home", 30_000, 1_000)
    first_kib = int(box.run(measure))
    send(box, "home", 600_000, 1_000)
    last_kib = int(box.run(measure))
    figures["nspawn amd64: RSS after 30 s and 10 min of 1,000 packets/s"] = (
        f"{first_kib / 1024:.1f}, {last_kib / 1024:.1f} MiB"
    )
    assert last_kib < first_kib + 4096  # the page's history fills its ring


@pytest.mark.skipif(WANTED != "all", reason="minutes")
def test_writes_to_the_disk_are_few(box: Booted, figures: dict[str, str]) -> None:
    """A minute with all statistics but without captures of incidents, and the detectors' file every 15 minutes."""
    box.run(
        "sed -i 's/, stats:.*/}\\nevidence: {pcap: false}/' /etc/netspot/conf.d/test.yaml; systemctl restart netspot"
    )
    pid = box.shown("MainPID")
    send(box, "home", 10_000, 500)
    before = int(box.run(f"sed -n 's/^write_bytes: //p' /proc/{pid}/io"))
    send(box, "home", 30_000, 500)
    quiet = int(box.run(f"sed -n 's/^write_bytes: //p' /proc/{pid}/io")) - before
    box.run("systemctl stop netspot")
    saved = int(box.run("stat -c %s /var/lib/netspot/detectors.state"))
    day_mb = (quiet * 24 * 60 + (saved // 4096 + 2) * 4096 * 96) / 1e6
    told = f"{quiet} byte in a minute, {saved} byte of detectors: {day_mb:.1f} MB a day (below 20)"
    figures["nspawn amd64: written to disk"] = told
    assert day_mb < 20


def test_purge_leaves_nothing(box: Booted) -> None:
    box.run("DEBIAN_FRONTEND=noninteractive apt-get purge --yes netspot")
    elsewhere = ("/proc/*", "/srv/*", "/etc/apt/*", "/usr/share/keyrings/*", "/var/lib/apt/*", "/var/cache/apt/*")
    left = box.run("find / -xdev -name '*netspot*' " + " ".join(f"! -path '{path}'" for path in elsewhere))
    assert left == ""
    assert "netspot" not in box.run("cat /etc/passwd /etc/group")
