"""Installed from the repository on every machine that Debian has: the same program everywhere."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packages.conftest import MACHINES
from tests.packages.rootfs import Tree
from tests.packages.traffic import ACK, SYN, tcp

Machine = Callable[[str, str], Tree]
OTHERS = [pytest.param(suite, arch, id=f"{suite}-{arch}", marks=pytest.mark.everything) for suite, arch in MACHINES[1:]]
FIRST = pytest.param(*MACHINES[0], id="-".join(MACHINES[0]))
RUN = (
    "(netspot run -f {} -v --spot.n_init 200 --spot.q 1e-3 --state.dir {} 2>/tmp/said || (cat /tmp/said; exit 2))"
    ' | grep -v \'"kind":"health"\''  # its memory and its time differ in each run
)


def capture(path: Path, seconds: int, seed: int) -> Path:
    """Some home traffic, in the last 20 s with a flood over it."""
    numbers = random.Random(seed)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for second in range(seconds):
            flood = 200 if second >= seconds - 20 else 0
            flags = [SYN if numbers.random() < 0.06 else ACK for _ in range(numbers.randint(20, 60))] + [SYN] * flood
            for number, flag in enumerate(flags):
                frame = tcp(number, flag)
                micro = number * 1_000_000 // len(flags)
                file.write(struct.pack("<IIII", 1_750_000_000 + second, micro, len(frame), 60) + frame)
    return path


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captures")
    capture(folder / "first.pcap", 400, seed=1)
    capture(folder / "second.pcap", 120, seed=2)
    return folder


@pytest.fixture(scope="session")
def outputs(machine: Machine, captures: Path) -> Callable[[str, str], tuple[str, str]]:
    """What netspot prints of the first capture, and then of the second with what it has learned."""
    printed: dict[tuple[str, str], tuple[str, str]] = {}

    def once(suite: str, arch: str) -> tuple[str, str]:
        if (suite, arch) not in printed:
            tree = machine(suite, arch)
            runs = [
                f"{RUN.format(f'/captures/{name}.pcap', '/var/lib/state')} 2>/dev/null" for name in ("first", "second")
            ]
            texts = [tree.run(f"mkdir -p /var/lib/state; {run}", binds={"/captures": captures}) for run in runs]
            printed[suite, arch] = (texts[0], texts[1])
        return printed[suite, arch]

    return once


@pytest.mark.parametrize(("suite", "arch"), [FIRST, *OTHERS])
def test_apt_installs_it_and_it_runs(machine: Machine, suite: str, arch: str) -> None:
    tree = machine(suite, arch)
    assert tree.run("netspot --version").strip() == "netspot 3.0.0"
    assert tree.run("dpkg --audit") == ""
    assert "netspot.service" in tree.run("ls /etc/systemd/system/multi-user.target.wants")


@pytest.mark.parametrize(("suite", "arch"), [FIRST, *OTHERS])
def test_the_extension_loads_and_only_when_asked_for(machine: Machine, captures: Path, suite: str, arch: str) -> None:
    tree = machine(suite, arch)
    assert "sniff" in tree.run("python3 -c 'import pylibpcap.base as base; print(dir(base))'").lower()
    loaded = tree.run(
        "python3 -c 'import sys, netspot.cli as cli; cli.main([\"run\", \"-f\", \"/captures/second.pcap\"]);"
        " print([name for name in sys.modules if name.startswith(\"pylibpcap\")])'",
        binds={"/captures": captures},
    )  # fmt: skip
    assert loaded.splitlines()[-1] == "[]"


def test_the_capture_holds_something_to_see(outputs: Callable[[str, str], tuple[str, str]]) -> None:
    first, second = outputs(*MACHINES[0])
    assert '"kind":"alarm"' in first and '"state":"learning"' in first
    assert '"kind":"alarm"' in second and '"learned":1,"needed":200' not in second


@pytest.mark.parametrize(("suite", "arch"), OTHERS)
def test_every_machine_prints_the_same(outputs: Callable[[str, str], tuple[str, str]], suite: str, arch: str) -> None:
    here, there = outputs(*MACHINES[0]), outputs(suite, arch)
    differing = [pair for pair in zip(here[0].splitlines(), there[0].splitlines(), strict=False) if pair[0] != pair[1]]
    assert here[0] == there[0], differing[:3]
    assert here[1] == there[1]


@pytest.mark.parametrize(("suite", "arch"), OTHERS)
def test_what_one_machine_learned_another_goes_on_with(
    machine: Machine, outputs: Callable[[str, str], tuple[str, str]], captures: Path, suite: str, arch: str
) -> None:
    """The state after the first capture, carried from the first machine to this one and from this one to the first."""
    learn, go_on = (RUN.format(f"/captures/{name}.pcap", "/tmp/state") for name in ("first", "second"))
    for giver, taker in ((MACHINES[0], (suite, arch)), ((suite, arch), MACHINES[0])):
        source, target = machine(*giver), machine(*taker)
        source.run(
            f"mkdir /tmp/state; {learn} >/dev/null; rm -rf /var/lib/gift; cp -a /tmp/state /var/lib/gift",
            binds={"/captures": captures},
        )
        said = target.run(
            f"cp -a /gift /tmp/state; {go_on}",
            binds={"/captures": captures, "/gift": source.upper / "var/lib/gift"},
        )
        assert said == outputs(*MACHINES[0])[1]
