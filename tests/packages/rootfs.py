"""Root file systems of Debian, of any architecture, with an overlay that takes what is written."""

from __future__ import annotations

import os
import subprocess
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
        done = subprocess.run(
            [CHECKOUT / "cross" / "enter", "-u", self.upper, *options, self.lower, "sh", "-euc", script],
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
        self.run(
            "install -D -m 644 /srv/netspot/netspot-archive-keyring.gpg /usr/share/keyrings/netspot-archive-keyring.gpg\n"
            "apt-get update"
        )
