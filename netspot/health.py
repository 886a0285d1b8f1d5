"""How the program itself does: the figures of the health message, of the page, and of systemd's status line."""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netspot
from netspot.events import Event, Health, Window, counted, iso

if TYPE_CHECKING:
    from netspot.service import Service

MEASURE_EVERY_S = 0.4
TELL_EVERY_NS = 60 * 10**9
RECENT_NS = 60 * 10**9  # losses this long ago still make the phase "degraded"
SET_NS = 10 * 10**9  # a clock that goes as far from its way was set
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class HealthCheck:
    """Stepped with each window; tells every minute, and at once when the phase changes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._captured = self._dropped = 0
        self._lost: deque[tuple[int, int]] = deque(maxlen=600)  # (end_ns, frames) of windows with losses
        self._told_at_ns, self._told_phase = 0, ""
        self._cpu = (time.monotonic(), time.process_time())
        self._synced = False
        self._started_s, self._started_ns = time.monotonic(), service.started_ns
        self.last = False  # the windows that follow are the last ones: their figures stay
        self.figures: Mapping[str, Any] = {}
        self.figures = self._measure(0.0)

    @property
    def status(self) -> str:
        """One line for a person."""
        figures = self.figures
        text = f"{figures['phase']} on {', '.join(figures['interfaces'])}"
        if figures["phase"] == "learning":
            text = f"learning {figures['learned']} of {figures['needed']} windows on {', '.join(figures['interfaces'])}"
        return f"{text}, {counted(figures['captured'], 'packet')}, {figures['dropped']:,} dropped"

    def step(self, window: Window, events: Sequence[Event]) -> list[Event]:
        """``events``, and a Health where one is due."""
        if window.span != 1:
            return list(events)
        packets = int(window.counts["PKTS"])
        self._captured += packets
        self._dropped += window.dropped
        if window.dropped:
            self._lost.append((window.end_ns, window.dropped))
        while self._lost and not window.end_ns - RECENT_NS <= self._lost[0][0] <= window.end_ns:
            self._lost.popleft()  # long ago, or the clock was set back since
        if time.monotonic() - self._cpu[0] < MEASURE_EVERY_S and not self.last:
            return list(events)  # a capture's windows pass quicker than the figures matter
        self.figures = self._measure(packets / window.seconds if window.seconds else 0.0)
        every_ns = min(TELL_EVERY_NS, int(self._service.config.exporter.mqtt.health_every_s * 1e9))
        if self.figures["phase"] == self._told_phase and 0 <= window.end_ns - self._told_at_ns < every_ns:
            return list(events)
        return [*events, self._told(window.end_ns)]

    def now(self, time_ns: int) -> Health:
        """What is so between two windows, when capture has been stopped or started."""
        self.figures = self._measure(0.0)
        return self._told(time_ns)

    def _told(self, time_ns: int) -> Health:
        self._told_at_ns, self._told_phase = time_ns, self.figures["phase"]
        return Health(time_ns, self.figures)

    def _measure(self, packets_per_s: float) -> Mapping[str, Any]:
        service = self._service
        learned, needed = service.analyzer.progress
        exporters = service.exporters.health()
        return {
            "version": netspot.__version__,
            "started": iso(self._began_ns()),
            "uptime_s": int(time.monotonic() - self._started_s),
            "phase": self._phase(learned < needed),
            "learned": learned,
            "needed": needed,
            "captured": self._captured,
            "dropped": self._dropped,
            "packets_per_s": round(packets_per_s, 1),
            "interfaces": [service.source.series],
            "source_up": getattr(service.source, "up", True),
            "alarms": service.analyzer.alarms,
            "rss_bytes": rss_bytes(),
            "cpu_share": self._cpu_share(),
            "disk_free_bytes": self._disk_free(),
            "clock_synced": self._clock_synced(),
            "spool": exporters.get("mqtt", {}).get("spool", 0),
            "mqtt": exporters.get("mqtt", {}),
            "exporters": exporters,
            "captures_dropped": 0 if service.captures is None else service.captures.dropped,
        }

    def _began_ns(self) -> int:
        """When the program started [ns since epoch], told anew where the clock was set since."""
        now_ns = time.time_ns() - int((time.monotonic() - self._started_s) * 1e9)
        if abs(now_ns - self._started_ns) > SET_NS:
            self._started_ns = now_ns
        return self._started_ns

    def _phase(self, learning: bool) -> str:
        if getattr(self._service.source, "paused", False):
            return "stopped"
        if self._lost or not getattr(self._service.source, "up", True):
            return "degraded"
        return "learning" if learning else "watching"

    def _cpu_share(self) -> float:
        """Of one core, since the figures before."""
        wall_s, cpu_s = time.monotonic(), time.process_time()
        share = (cpu_s - self._cpu[1]) / max(wall_s - self._cpu[0], 1e-3)
        self._cpu = (wall_s, cpu_s)
        return round(share, 4)

    def _disk_free(self) -> int | None:
        folder = self._service.config.state.dir
        try:
            disk = None if folder is None else os.statvfs(folder)
            return None if disk is None else disk.f_bavail * disk.f_frsize
        except OSError:
            return None

    def _clock_synced(self) -> bool:
        """A clock that was once set stays good enough; until then it is looked at each time."""
        self._synced = self._synced or clock_synced()
        return self._synced


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE


def clock_synced() -> bool:
    """Whether the kernel holds the clock for synchronised, or systemd-timesyncd says so.

    A Raspberry Pi has no battery-backed clock: until it has asked a time server, its timestamps are of some past day.
    """
    timesyncd = Path("/run/systemd/timesync")
    if (timesyncd / "synchronized").exists():
        return True
    read_only = ctypes.create_string_buffer(512)  # struct timex, modes = 0: nothing is set; larger than on any machine
    status = ctypes.CDLL(None).adjtimex(read_only)
    if status == -1:  # a sandbox forbids to ask: without timesyncd there is nobody to say that the clock is wrong
        return not timesyncd.exists()
    return bool(status != TIME_ERROR)
