"""Debian's own judges of a package: piuparts and autopkgtest."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packages.nspawn import Booted
from tests.packages.rootfs import CHECKOUT, Tree, higher_version, rootfs

pytestmark = pytest.mark.everything
Build = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What piuparts unpacks: with systemd, which leaves files of its own."""
    tar = tmp_path_factory.mktemp("piuparts") / "base.tar.gz"
    subprocess.run(["tar", "-C", rootfs("base", "bookworm", "amd64"), "-I", "gzip -1", "-cf", tar, "."], check=True)
    return tar


def piuparts(base: Path, *arguments: str | Path) -> None:
    done = subprocess.run(
        ["piuparts", "-t", base.parent, "-b", base, "-d", "bookworm", "--no-eatmydata", "--warn-on-others", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]


def test_piuparts_install_and_purge(build: Build, base: Path) -> None:
    piuparts(base, build("amd64", "bookworm"))


def test_piuparts_upgrade(build: Build, base: Path, tmp_path: Path) -> None:
    """From the version in a repository to a higher one."""
    deb = build("amd64", "bookworm")
    repository = tmp_path / "old"
    repository.mkdir()
    (repository / deb.name).write_bytes(deb.read_bytes())
    packages = subprocess.run(["apt-ftparchive", "packages", "."], cwd=repository, check=True, stdout=subprocess.PIPE)
    (repository / "Packages").write_bytes(packages.stdout)
    extra = f"--extra-repo=deb [trusted=yes] file:{repository} ./"
    piuparts(base, f"--bindmount={repository}", extra, "--no-install-purge-test", higher_version(deb, tmp_path))


def test_autopkgtest(build: Build, machine: Callable[[str, str], Tree], tmp_path: Path) -> None:
    """debian/tests under a real systemd, with a real broker."""
    tree = machine("bookworm", "amd64").over(tmp_path / "upper")
    needs = "autopkgtest dpkg-dev iproute2 mosquitto mosquitto-clients"
    tree.run(f"apt-get install --yes --no-install-recommends {needs}", cache=True)
    source = tmp_path / "source"
    shutil.copytree(CHECKOUT / "debian", source / "debian")
    shutil.copytree(CHECKOUT / "tests" / "packages", source / "tests" / "packages")
    deb = build("amd64", "bookworm")
    with Booted(tree, {"/srv/source": source, f"/srv/{deb.name}": deb}) as box:
        said = box.run(
            f"cp /srv/{deb.name} /root; cd /root;"
            f"autopkgtest --ignore-restrictions=isolation-container -B ./{deb.name} /srv/source -- null",
            check=False,
        )
    assert "service              PASS" in said and "commands             PASS" in said, said[-6000:]
