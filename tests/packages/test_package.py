"""What is in the package, and whether anybody gets the same one."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packages.rootfs import CHECKOUT

Build = Callable[[str, str], Path]
SHIPPED = [
    pytest.param(arch, suite, marks=[] if arch == "amd64" else [pytest.mark.everything])
    for arch, suite in (("amd64", "bookworm"), ("arm64", "bookworm"), ("armhf", "bookworm"), ("armhf", "trixie"))
]
NEEDED = {
    "python3",
    "python3-bottle",
    "python3-numpy",
    "python3-paho-mqtt",
    "python3-sdnotify",
    "python3-waitress",
    "python3-yaml",
}
ALLOWED = {"libc6", "python3:any", "systemd"}


def printed(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.parametrize(("arch", "suite"), SHIPPED)
def test_lintian_has_nothing_to_say(build: Build, arch: str, suite: str) -> None:
    changes = build(arch, suite).with_suffix(".changes")
    done = subprocess.run(
        ["lintian", "--allow-root", "--tag-display-limit", "0", "--fail-on", "error,warning", changes],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("arch", "suite"), SHIPPED)
def test_built_twice_it_has_the_same_bytes(build: Build, arch: str, suite: str) -> None:
    deb = build(arch, suite)
    before = hashlib.sha256(deb.read_bytes()).hexdigest()
    subprocess.run(
        ["sh", "-c", 'umask 077; exec cross/deb "$@"', "sh", arch, suite],
        cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL,
        env={**os.environ, "DEB_BUILD_PLACE": "/srv/elsewhere", "TZ": "Asia/Tokyo", "LANG": "C"},
    )  # fmt: skip
    assert hashlib.sha256(deb.read_bytes()).hexdigest() == before


@pytest.mark.parametrize(("arch", "suite"), SHIPPED)
def test_it_depends_on_what_debian_has_and_only_recommends_libpcap(build: Build, arch: str, suite: str) -> None:
    deb = build(arch, suite)
    depends = {word.split()[0] for word in printed("dpkg-deb", "-f", deb, "Depends").split(", ")}
    assert depends >= NEEDED
    assert depends - NEEDED <= ALLOWED
    assert "libpcap0.8" in printed("dpkg-deb", "-f", deb, "Recommends")


def test_conffiles_and_files(build: Build) -> None:
    deb = build("amd64", "bookworm")
    assert printed("dpkg-deb", "-I", deb, "conffiles").split() == [
        "/etc/netspot/conf.d/README",
        "/etc/netspot/netspot.yaml",
    ]
    files = printed("dpkg-deb", "-c", deb)
    for wanted in (
        "/usr/bin/netspot", "/usr/bin/netspotctl", "/systemd/system/netspot.service", "/pylibpcap/base.abi3.so",
        "/man8/netspot.8.gz", "/man1/netspotctl.1.gz", "/man5/netspot.yaml.5.gz",
        "/bash-completion/completions/netspot\n", "/bash-completion/completions/netspotctl\n",
        "/zsh/vendor-completions/_netspot\n", "/fish/vendor_completions.d/netspot.fish\n",
        "/doc/netspot/README.Debian", "/doc/netspot/copyright", "/web/static/page.html",
    ):  # fmt: skip
        assert wanted in files, f"{wanted.strip()} is missing in\n{files}"


def test_the_unit_is_well_and_tight() -> None:
    unit = CHECKOUT / "systemd" / "netspot.service"
    text = printed("systemd-analyze", "security", "--offline=true", "--threshold=18", unit)
    assert "Overall exposure level" in text
