"""Root file systems of Debian, of any architecture, with an overlay that takes what is written."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(
    os.environ.get("NETSPOT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "netspot"
)


def rootfs(kind: str, suite: str, arch: str) -> Path:
    """The folder that cross/rootfs makes or finds: nobody writes there."""
    made = subprocess.run(
        [CHECKOUT / "cross" / "rootfs", kind, suite, arch], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(made.stdout.strip())


class Tree:
    """Read-only folders, the uppermost first, and ``upper`` over them, which keeps what commands write."""

    def __init__(self, lower: str | Path, upper: Path) -> None:
        self.lower, self.upper = str(lower), upper
        self.binds: dict[str, Path] = {}  # target inside -> file or folder of ours

    def over(self, upper: Path) -> Tree:
        """A copy that costs nothing: what is written to one is not seen in the other."""
        return Tree(f"{self.upper}:{self.lower}", upper)

    def run(self, script: str, cache: bool = False, check: bool = True, binds: Mapping[str, Path] | None = None) -> str:
        """What the shell script prints. ``cache``: packages that apt fetches are kept for the next run."""
        shown = {**self.binds, **(binds or {})}
        if cache:
            shown["/var/cache/apt/archives"] = self.archives()
        options = [word for target, source in shown.items() for word in ("-b", f"{source}:{target}")]
        alone = ["flock", f"{self.archives()}.lock"] if cache else []
        done = subprocess.run(
            [*alone, CHECKOUT / "cross" / "enter", "-u", self.upper, *options, self.lower, "sh", "-euc", script],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{script}\nexit status {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout

    def archives(self) -> Path:
        """The packages that apt has fetched, kept from run to run."""
        folder = CACHE / "apt" / Path(self.lower.rpartition(":")[2]).name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write(self, path: str, text: str) -> None:
        file = self.upper / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def use_repository(self, repository: Path, suite: str) -> None:
        """As docs/install.md tells the user."""
        self.binds["/srv/netspot"] = repository
        self.write(
            "/etc/apt/sources.list.d/netspot.sources",
            f"Types: deb\nURIs: file:/srv/netspot\nSuites: {suite}\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/netspot-archive-keyring.gpg\n",
        )
        key = "netspot-archive-keyring.gpg"
        self.run(f"install -D -m 644 /srv/netspot/{key} /usr/share/keyrings/{key}; apt-get update")


class Shell:
    """A machine that runs commands."""

    def run(self, script: str, *, check: bool = True) -> str:
        """What the shell script prints, run as root."""
        raise NotImplementedError

    def shown(self, name: str) -> str:
        """A property of the service, as ``systemctl show`` prints it."""
        return self.run(f"systemctl show -P {name} netspot").strip()

    def wait_for(self, script: str, wanted: str, timeout_s: float = 60, every_s: float = 0.3) -> str:
        """Run ``script`` until it prints ``wanted``."""
        until_s = time.monotonic() + timeout_s
        while wanted not in (text := self.run(script, check=False)):
            assert time.monotonic() < until_s, f"{script}: {wanted!r} did not come in {timeout_s} s but {text[-2000:]}"
            time.sleep(every_s)
        return text

    def ready_s(self) -> float:
        """From the start of the service's program to READY=1 [s]."""
        begin, end = (int(self.shown(f"{name}TimestampMonotonic")) for name in ("ExecMainStart", "ActiveEnter"))
        return (end - begin) / 1e6


def higher_version(deb: Path, folder: Path) -> Path:
    """The same package, of a higher version."""
    name, version, arch = deb.stem.split("_")
    higher = folder / f"{name}_{version}+1_{arch}.deb"
    script = 'dpkg-deb -R "$1" "$2.d"; sed -i "s/^Version: .*/&+1/" "$2.d/DEBIAN/control"; dpkg-deb -b "$2.d" "$2"'
    subprocess.run(["sh", "-euc", script, "sh", deb, higher], check=True, stdout=subprocess.DEVNULL)
    return higher
