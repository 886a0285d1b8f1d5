"""The package as a user meets it. Runs where NETSPOT_PACKAGES asks for it: amd64 (some minutes), or all (an hour)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packages.rootfs import CHECKOUT, Tree, rootfs

WANTED = os.environ.get("NETSPOT_PACKAGES", "")
if not WANTED:
    collect_ignore_glob = ["test_*.py"]

SUITES = {"amd64": ("bookworm", "trixie"), "arm64": ("bookworm", "trixie"), "armhf": ("bookworm",)}
MACHINES = [(suite, arch) for arch, suites in SUITES.items() for suite in suites]
"""Whose root file systems can be made."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="NETSPOT_PACKAGES=all runs it")
    for item in items:
        if item.get_closest_marker("everything") and WANTED != "all":
            item.add_marker(skip)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "everything: too slow for each change; runs with NETSPOT_PACKAGES=all")


MEASURED = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> dict[str, str]:
    """What was measured: printed at the end."""
    return pytestconfig.stash.setdefault(MEASURED, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, value in config.stash.get(MEASURED, {}).items():
        terminalreporter.write_line(f"{name:60} {value}")


@pytest.fixture(scope="session")
def build() -> Callable[[str, str], Path]:
    """``build(arch, suite)``: the package, built once in this run."""
    built: dict[tuple[str, str], Path] = {}

    def built_once(arch: str, suite: str) -> Path:
        key = (arch, suite if arch == "armhf" else "bookworm")
        if key not in built:
            made = subprocess.run(["cross/deb", *key], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
            if key == ("armhf", "trixie") and made.returncode:
                pytest.skip("the mirror's index of trixie on armhf is too old for apt")
            assert made.returncode == 0
            built[key] = CHECKOUT / made.stdout.split()[-1]
        return built[key]

    return built_once


@pytest.fixture(scope="session")
def repository(build: Callable[[str, str], Path]) -> Callable[[str, str], Path]:
    """``repository(suite, arch)``: the apt repository, with the package for that machine in it."""

    def with_package(suite: str, arch: str) -> Path:
        build(arch, suite)
        subprocess.run(["cross/repo"], cwd=CHECKOUT, check=True)
        return CHECKOUT / "dist" / "repo"

    return with_package


@pytest.fixture(scope="session")
def machine(
    repository: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Tree]:
    """``machine(suite, arch)``: a fresh root file system into which apt has installed netspot, made once."""
    made: dict[tuple[str, str], Tree] = {}

    def once(suite: str, arch: str) -> Tree:
        if (suite, arch) not in made:
            tree = Tree(rootfs("base", suite, arch), tmp_path_factory.mktemp(f"{suite}-{arch}") / "upper")
            tree.use_repository(repository(suite, arch), suite)
            tree.run("apt-get install --yes --no-install-recommends netspot libpcap0.8", cache=True)
            made[suite, arch] = tree
        return made[suite, arch]

    return once
