"""The image of cross/container, built by buildah and run by podman with the rights that compose.yaml gives."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.packages.rootfs import CHECKOUT, rootfs

pytestmark = pytest.mark.everything
FOLDER = CHECKOUT / "cross" / "container"
# podman wants to see the unified cgroups, and here no more of them than that
VIEW = (
    "mount --make-rprivate /; umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup; "
    'mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec "$@"'
)


def engine(program: str, *arguments: str | Path, storage: Path) -> str:
    command = [program, "--storage-driver", "vfs", "--root", storage / "root", "--runroot", storage / "run", *arguments]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-euc", VIEW, "bash", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where podman keeps images; holds localhost/netspot."""
    folder = tmp_path_factory.mktemp("storage")
    base = folder / "base.tar"
    subprocess.run(["tar", "-C", rootfs("minimal", "bookworm", "amd64"), "-cf", base, "."], check=True)
    engine("podman", "import", base, "localhost/base", storage=folder)
    base.unlink()
    engine(
        "buildah", "bud", "--isolation", "chroot", "--build-arg", "BASE=localhost/base", "--tag", "localhost/netspot",
        "--file", FOLDER / "Dockerfile", CHECKOUT, storage=folder,
    )  # fmt: skip
    yield folder
    subprocess.run(["rm", "-rf", folder], check=False)


def rights() -> list[str]:
    service = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["netspot"]
    assert service["cap_drop"] == ["ALL"] and service["read_only"] is True and "privileged" not in service
    return ["--read-only", "--cap-drop", "all", *(word for name in service["cap_add"] for word in ("--cap-add", name))]


RUN = ("--network", "host", "--cgroups", "disabled", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


def test_it_captures_without_root_and_with_one_capability(storage: Path) -> None:
    engine("podman", "run", "--detach", "--name", "netspot", *RUN, *rights(), "localhost/netspot",
           "serve", "--miner.device", "lo", "--state.dir", "/var/lib/netspot", "--web.listen", "127.0.0.1:11099",
           storage=storage)  # fmt: skip
    try:
        time.sleep(6)
        status = engine("podman", "exec", "netspot", "cat", "/proc/1/status", storage=storage)
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(fields["CapEff"], 16) == 1 << 13
        assert fields["Uid"].split()[0] == "990"
        told = engine(
            "podman", "exec", "netspot", "netspotctl", "--url", "http://127.0.0.1:11099", "status", storage=storage
        )
        assert "lo" in told
        with pytest.raises(AssertionError, match="Read-only file system"):
            engine("podman", "exec", "netspot", "touch", "/usr/x", storage=storage)
    finally:
        engine("podman", "rm", "--force", "--time", "5", "netspot", storage=storage)


def test_it_knows_its_options(storage: Path) -> None:
    assert "netspot 3.0.0" in engine(
        "podman", "run", "--rm", *RUN, *rights(), "localhost/netspot", "--version", storage=storage
    )
