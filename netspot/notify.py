"""What systemd is told: ready, what goes on, that windows advance, stopping (sd_notify(3))."""

from __future__ import annotations

import os
import time


class Systemd:
    """Does nothing where systemd did not start the program."""

    STATUS_EVERY_S = 10.0

    def __init__(self) -> None:
        self._notifier = None
        if os.environ.get("NOTIFY_SOCKET"):
            import sdnotify

            self._notifier = sdnotify.SystemdNotifier()
            if hasattr(self._notifier, "socket"):
                self._notifier.socket.setblocking(False)  # a systemd that is slow to listen delays no window
        watchdog_s = int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6
        self._ping_every_s = min(watchdog_s / 3 or self.STATUS_EVERY_S, self.STATUS_EVERY_S)
        self._next_s = 0.0

    def ready(self, status: str) -> None:
        self._tell(f"READY=1\nSTATUS={status}\nWATCHDOG=1")

    def reloading(self) -> None:
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def alive(self, status: str) -> None:
        """To be called often, but only while the program does its work; speaks up now and then."""
        now_s = time.monotonic()
        if self._notifier is not None and now_s >= self._next_s:
            self._next_s = now_s + self._ping_every_s
            self._tell(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        self._tell("STOPPING=1\nSTATUS=stopping")

    def _tell(self, text: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(text)
