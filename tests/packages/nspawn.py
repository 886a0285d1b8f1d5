"""A real systemd with the package installed, in a container of its own: about two seconds to boot."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.packages.rootfs import Shell, Tree

BOOT = """
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/netspot-test-$$ && echo $$ > /sys/fs/cgroup/netspot-test-$$/cgroup.procs
root=$(mktemp -d) && mkdir -p "$2" "$2.work"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$2.work" "$root"
shift 2
exec systemd-nspawn --register=no --keep-unit --quiet --directory "$root" --private-network --console=pipe "$@" --boot
"""


class Booted(Shell):
    """A context: inside it systemd runs; there is no network but what the test makes."""

    def __init__(self, tree: Tree, binds: Mapping[str, Path] | None = None) -> None:
        shown = {**tree.binds, "/var/cache/apt/archives": tree.archives(), **(binds or {})}
        options = [f"--bind={source}:{target}" for target, source in shown.items()]
        self._console = (tree.upper.parent / "console").open("wb")
        self._nspawn = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "bash", "-euc", BOOT, "bash",
             tree.lower, tree.upper, *options],
            stdin=subprocess.DEVNULL, stdout=self._console, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def __enter__(self) -> Booted:
        for _ in range(300):
            assert self._nspawn.poll() is None, Path(self._console.name).read_text(errors="replace")
            if "running" in self.run("systemctl is-system-running; true", check=False):
                return self
            time.sleep(0.2)
        raise AssertionError(self.run("systemctl --failed; systemctl list-jobs", check=False))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run("systemctl poweroff", check=False)
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._console.close()

    def run(self, script: str, *, check: bool = True) -> str:
        """What the shell script prints, run inside as root."""
        leader = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        if not leader:
            return ""
        done = subprocess.run(
            ["nsenter", "-t", leader[0], "-m", "-u", "-i", "-n", "-p", "-C", "--",
             "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "sh", "-euc", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{script}\nexit status {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout
