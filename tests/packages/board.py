"""A virtual board: qemu emulates the whole machine, and a test types at its serial console."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType

from tests.packages.rootfs import Shell, Tree

PACK = Path(__file__).with_name("board.sh")
QUIET = "-display none -monitor none"
VIRT = f"-accel tcg,thread=multi -smp 2 -m 2048 -nic none -serial stdio {QUIET}"
MACHINES = {  # name -> architecture, console, qemu's arguments
    "virt-arm64": ("arm64", "ttyAMA0", f"qemu-system-aarch64 -M virt -cpu cortex-a72 {VIRT}"),
    "virt-armhf": ("armhf", "ttyAMA0", f"qemu-system-arm -M virt,highmem=off -cpu cortex-a15 {VIRT}"),
    "raspi3b": ("arm64", "ttyS1,115200", f"qemu-system-aarch64 -M raspi3b -serial null -serial stdio -dtb dtb {QUIET}"),
    "raspi2b": ("armhf", "ttyAMA0,115200", f"qemu-system-arm -M raspi2b -serial stdio -serial null -dtb dtb {QUIET}"),
}
BOOT_S = 400  # emulated, on a machine that does other things too
DONE = re.compile(r"\[\[(\d+)\]\]")


class Board(Shell):
    """A context: inside it the board has booted and root is logged in at its console."""

    def __init__(self, machine: str, tree: Tree, out: Path) -> None:
        arch, console, command = MACHINES[machine]
        subprocess.run([PACK, f"{tree.upper}:{tree.lower}", arch, out], check=True)
        self._log = (out / f"{machine}.log").open("w")
        self._text, self._seen = "", 0
        self._started_s = time.monotonic()
        self._qemu = subprocess.Popen(
            [*command.split(), "-no-reboot", "-kernel", "vmlinuz", "-initrd", "initrd", "-append",
             f"console={console} rdinit=/sbin/init quiet systemd.show_status=no"],
            cwd=out, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Board:
        self._wait(re.compile(r"root@\w+:~# ?$"), BOOT_S)
        self.prompt_s = time.monotonic() - self._started_s
        self._type("stty -echo; PS1= PS2=; dmesg -n 1")
        self.run("true")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(self._text[-6000:])
        try:
            self._type("poweroff -f")
            self._qemu.wait(30)
        except (subprocess.TimeoutExpired, OSError):
            self._qemu.kill()
            self._qemu.wait()
        self._log.close()

    def run(self, script: str, timeout_s: float = 120, *, check: bool = True) -> str:
        """What the shell prints for one line of script."""
        self._seen = len(self._text)
        self._type(f'{{ {script}\n}}; echo "[""[$?]]"')
        found = self._wait(DONE, timeout_s)
        output = self._text[self._seen : found.start()].replace("\r", "")
        assert not check or found[1] == "0", f"{script}\nexit status {found[1]}\n{output[-4000:]}"
        return output.strip()

    def _type(self, line: str) -> None:
        assert self._qemu.stdin is not None
        for start in range(0, len(line) + 1, 12):  # the emulated UART has a FIFO of 16 bytes
            self._qemu.stdin.write((line + "\n")[start : start + 12].encode())
            self._qemu.stdin.flush()
            time.sleep(0.02)

    def _listen(self) -> None:
        assert self._qemu.stdout is not None
        while chunk := self._qemu.stdout.read1(4096):  # type: ignore[attr-defined]
            text = chunk.decode(errors="replace")
            self._text += text
            self._log.write(text)
            self._log.flush()

    def _wait(self, pattern: re.Pattern[str], timeout_s: float) -> re.Match[str]:
        until_s = time.monotonic() + timeout_s
        while (found := pattern.search(self._text, self._seen)) is None:
            assert self._qemu.poll() is None, f"qemu ended: {self._text[-2000:]}"
            assert time.monotonic() < until_s, f"{pattern.pattern} did not come in {timeout_s} s: {self._text[-3000:]}"
            time.sleep(0.05)
        return found
