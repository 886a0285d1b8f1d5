"""Where everything meets: builds the objects, runs the main loop, answers signals, systemd and commands.

``Service.run`` is the program: a source reads a packet batch; the counters add it up; every period they become a
window; the statistics turn the window into numbers; each number steps its detector; samples and alarms are events that
the exporters send away.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netspot
from netspot import state
from netspot.analyzer import Analyzer, Names, Watch, rules, watches
from netspot.analyzer import stats as statistics
from netspot.analyzer.stats import PROFILES, STATS, Stat
from netspot.commands import CommandQueue
from netspot.config import Config, WebConfig, check_names, load, node_name, save, split_address, warnings
from netspot.control import Control
from netspot.errors import ConfigError, NetspotError
from netspot.events import Alarm, Event, Incident, Sample
from netspot.exporters.base import Context, StatInfo
from netspot.exporters.fanout import Exporters
from netspot.health import HealthCheck
from netspot.miner import counters as counting
from netspot.miner.captures import Captures
from netspot.miner.counters import COUNTERS, Counter, CounterBank
from netspot.miner.evidence import HeaderSample
from netspot.miner.source import Source
from netspot.miner.windows import Closed, Windows
from netspot.notify import Systemd
from netspot.packets import PacketBatch, nothing

if TYPE_CHECKING:
    from netspot.observe import Observer

log = logging.getLogger("netspot")

PATIENCE_S = 0.1  # the longest wait for packets: a command, or a signal, is answered within it
CRASH_GAP = 100_000  # alarms that may have been told since the last save, when the program did not stop by itself
SETTLE_NS = 2_000_000  # after a window's end, for frames that the kernel is still handing over [ns]


class Service:
    """The pipeline from packets to exporters, for one configuration at a time."""

    def __init__(
        self,
        config: Config,
        open_source: Callable[[Config], Source],
        reread: Callable[[], Config] | None = None,
        keep: Callable[[Mapping[str, Any]], None] | None = None,
        observers: Callable[[Service], Iterable[Observer]] = lambda service: (),
        count_all: bool = False,
    ) -> None:
        """``reread``: what SIGHUP asks for the configuration; ``keep``: saves changes of it for the next start.

        ``observers``: made for each configuration.
        ``count_all``: count all there is to count, not only what the statistics need.
        """
        self.config = config
        self.commands = CommandQueue()
        self.started_ns = time.time_ns()
        self._open_source, self._reread, self._keep = open_source, reread, keep
        self._count_all = count_all
        self.stopping = self._rereading = False
        self._systemd = Systemd()
        self._states: Mapping[str, Any] = {}  # of detectors: what they had learned when the pipeline was last built
        self._meta: dict[str, Any] = {}
        self._saver: threading.Thread | None = None
        self._saved_at_s = time.monotonic()
        self._read_state()
        self.captures: Captures | None = None
        self._watch()
        self._capture()
        self.source = self._opened(config)
        self._export()
        self.health = HealthCheck(self)
        self.samples: dict[str, Sample] = {}  # the newest of each statistic
        self._observers = observers
        self.observers = list(observers(self))
        self._handlers = Control(self).handlers

    def run(self) -> None:
        """Until the capture ends, or somebody stops it. Raises NetspotError for a source that cannot go on."""
        with self._alive():
            try:
                while not self.stopping and (batch := self.source.read(self._patience_s())) is not None:
                    for closed in self.windows.push(batch):
                        self._close(closed)
                    self._housekeep()
            finally:  # a capture that was cut has a last window too
                if not self.source.live:
                    for closed in self.windows.finish():
                        self._close(closed)

    def stop(self) -> None:
        """End ``run`` soon; may be called from a signal handler or another thread."""
        self.stopping = True

    def pause(self) -> None:
        """Capture no more until ``resume``; time goes on."""
        if not isinstance(self.source, Paused):
            self.source.close()
            self.source = Paused(self.source.series)

    def resume(self) -> None:
        """Raises SourceError."""
        if isinstance(self.source, Paused):
            self.source = self._opened(self.config)

    def keep(self, changes: Mapping[str, Any]) -> None:
        """Have ``changes`` of the configuration apply at the next start too. Raises ConfigError."""
        if self._keep is None:
            raise ConfigError("there is no configuration file to save to; start with -c FILE")
        self._keep(changes)

    # The parts that a configuration decides ---------------------------------------------------------------------

    def _watch(self) -> None:
        """Statistics, their detectors, and the counters that they need."""
        stats, counters = known(self.config)
        names = self.config.analyzer.stats or (*PROFILES[self.config.analyzer.profile], *self.config.stats)
        chosen = watches(self.config, stats, names)
        self.names = Names(self.config.evidence.addresses)
        self.analyzer = Analyzer(
            chosen,
            self.node,
            int(self._meta.get("seq", 0)),
            mute=rules(self.config.mute),
            names=self.names,
            capture=self.config.evidence.pcap and self.config.state.dir is not None,
        )
        restored = self.analyzer.restore(self._states)
        if restored:
            log.info("%d of %d detectors go on with what they learned before", len(restored), len(self._states))
        self._bank = bank(chosen, counters, counters if self._count_all else ())

    def _opened(self, config: Config) -> Source:
        source = self._open_source(config)
        self.windows = Windows(self._bank, config.analyzer.period_ns, time.time_ns() if source.live else None)
        return source

    def _capture(self) -> None:
        """Capture files of incidents, where there is a folder for them."""
        if self.captures is not None:
            self.captures.close()
        evidence, folder = self.config.evidence, self.config.state.dir
        rename = None if evidence.addresses == "whole" else self.names.address
        kept = evidence.pcap and folder is not None
        self.captures = Captures(Path(folder, "incidents"), evidence.mib, rename) if kept and folder else None

    def _export(self) -> None:
        period_s = self.config.analyzer.period_ns / 1e9
        watches = self.analyzer.watches.values()
        infos = tuple(StatInfo(w.name, w.stat.unit, w.stat.help, w.span * period_s) for w in watches)
        context = Context(
            self.node,
            self.source.series,
            netspot.__version__,
            self.config.state.dir,
            infos,
            self.commands,
            self.source.live,
            page_address(self.config.web),
        )
        self.exporters = Exporters(self.config.exporter, context)

    @property
    def node(self) -> str:
        return node_name(self.config)

    def apply(self, config: Config) -> None:
        """Go on with ``config``; what it does not change goes on undisturbed.

        Raises NetspotError for one that cannot be used: then everything is as it was.
        """
        known(config)
        before = self.config
        try:
            self._become(config)
        except NetspotError:
            self._become(before)
            raise

    def _become(self, config: Config) -> None:
        """Build anew the parts in which ``config`` differs from what runs."""
        before, self.config = self.config, config
        watched = same_watches(config, before) and config.node == before.node
        if not watched or config.miner != before.miner:
            self._states = self.analyzer.states()
            self._meta = {**self._meta, "seq": self.analyzer.seq}
            if config.miner != before.miner and not isinstance(self.source, Paused):
                self.source.close()
                self.source = self._open_source(config)
            self._watch()
            self.windows = Windows(self._bank, config.analyzer.period_ns, time.time_ns())
        if (config.evidence, config.state) != (before.evidence, before.state):
            self._capture()
        if not watched or config.exporter != before.exporter:
            self.exporters.close()
            self._export()
            self.exporters.start()
        self.samples.clear()
        self.observers = list(self._observers(self))

    # One window -------------------------------------------------------------------------------------------------

    def _close(self, closed: Closed) -> None:
        samples: list[Sample] = []
        events: list[Event] = []
        for window in closed:
            values, happened = self.analyzer.step(window)
            samples += values
            events += happened
        events = self.health.step(closed[0], [self._dated(event) for event in events])
        if self.captures is not None:
            self.captures.step(closed[0], samples, events, self.health.figures)
        for observer in self.observers:
            observer.step(closed[0], samples, events, self.health.figures)
        for event in (*samples, *events):
            self.exporters.write(event)
        self.samples.update((sample.stat, sample) for sample in samples)

    def _dated(self, event: Event) -> Event:
        """A Pi has no battery-backed clock: what happens before it was set says so."""
        if isinstance(event, Alarm | Incident) and self.source.live and not self.health.figures["clock_synced"]:
            return replace(event, clock_synced=False)
        return event

    def _patience_s(self) -> float:
        """How long to wait for packets: until the open window ends, so that it is closed at once."""
        left_ns = self.windows.end_ns + SETTLE_NS - time.time_ns()
        return min(PATIENCE_S, max(0.001, left_ns / 1e9))

    def _housekeep(self) -> None:
        self.commands.serve(self._handlers)
        self.exporters.poll()
        if self._rereading:
            self._rereading = False
            self._reload()
        if time.monotonic() - self._saved_at_s > self.config.state.save_every_s:
            self._save()
        if time.time_ns() < self.windows.end_ns + 10**9:  # windows really advance
            self._systemd.alive(self.health.status)

    # Life and death ---------------------------------------------------------------------------------------------

    def _alive(self) -> ExitStack:
        """Exporters started, signals caught, systemd told; undone in the reverse order whatever happens."""
        stack = ExitStack()
        self.exporters.start()
        stack.callback(lambda: self.exporters.close())
        stack.callback(lambda: self.source.close())
        stack.callback(lambda: self.captures.close() if self.captures is not None else None)
        self._save()  # the file says from now on that the program was not stopped
        stack.callback(self._save, wait=True)
        for number, handler in (
            (signal.SIGTERM, lambda *_: self.stop()),
            (signal.SIGINT, lambda *_: self.stop()),
            (signal.SIGHUP, lambda *_: self._ask_reload()),
        ):
            if threading.current_thread() is threading.main_thread():
                stack.callback(signal.signal, number, signal.signal(number, handler))
        self._systemd.ready(self.health.status)
        stack.callback(self._systemd.stopping)
        return stack

    def _ask_reload(self) -> None:
        self._rereading = True

    def _reload(self) -> None:
        if self._reread is None:
            return
        self._systemd.reloading()
        try:
            self.apply(self._reread())
            log.info("configuration read again")
        except NetspotError as error:
            log.error("the configuration stays as it was: %s", error)
        self._systemd.ready(self.health.status)

    def _read_state(self) -> None:
        """Take up what was learned; numbers of alarms never come twice, not even after a crash."""
        if self.config.state.dir is None:
            return
        folder = Path(self.config.state.dir)
        try:
            folder.mkdir(0o750, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("state.dir %s: %s; nothing will be kept", folder, error.strerror)
        self._states, self._meta = state.load(folder)
        if self._meta and not self._meta.get("stopped"):
            self._meta["seq"] = int(self._meta.get("seq", 0)) + CRASH_GAP

    def _save(self, wait: bool = False) -> None:
        """Keep what the detectors learned; in a thread, because a worn SD card may take seconds."""
        self._saved_at_s = time.monotonic()
        if self.config.state.dir is None:
            return
        if self._saver is not None:
            self._saver.join(None if wait else 0)
            if self._saver.is_alive():
                return
        states, meta = self.analyzer.states(), {"seq": self.analyzer.seq, "stopped": wait}
        self._saver = threading.Thread(target=_save, args=(Path(self.config.state.dir), states, meta), daemon=True)
        self._saver.start()
        if wait:
            self._saver.join(10)


class Paused:
    """The source while capture is stopped by command: time goes on, no packet comes."""

    live = paused = True

    def __init__(self, series: str) -> None:
        self.series = series

    def read(self, timeout_s: float) -> PacketBatch:
        time.sleep(timeout_s)
        return nothing(time.time_ns())

    def close(self) -> None: ...


def open_source(file: str | None) -> Callable[[Config], Source]:
    """What opens the capture ``file``, or where there is none the interface that the configuration names."""

    def opened(config: Config) -> Source:
        if file is not None:
            from netspot.miner.capfile import CaptureFile
            from netspot.miner.devices import home_nets

            return CaptureFile(file, home_nets(config.miner, ""))
        from netspot.miner.devices import open_live

        return open_live(config.miner)

    return opened


def serve(file: str | None, overrides: Sequence[tuple[str, str]]) -> None:
    """The service: capture, page and exporters, until SIGTERM; SIGHUP reads the configuration again."""
    from netspot.page import Page

    page = Page()

    def reread() -> Config:
        return load(file, overrides)

    def keep(changes: Mapping[str, Any]) -> None:
        log.info("saved to %s", save(str(file), changes))

    try:
        Service(reread(), open_source(None), reread, keep if file else None, page).run()
    finally:
        page.close()


def known(config: Config) -> tuple[dict[str, Stat], dict[str, Counter]]:
    """The statistics and counters that ``config`` may name. Raises ConfigError where it names another."""
    counters = counting.known(config.counters)
    stats = statistics.known(config.stats, (*counters, *counting.WINDOW_COUNTERS))
    theirs = {name for name in stats if name not in config.stats or name in STATS}
    check_names(config, theirs, {name for name in counters if name not in config.counters or name in COUNTERS})
    rules(config.mute)
    return stats, counters


def check(config: Config, file: str) -> str:
    """What ``netspot check`` says of a configuration that can be used. Raises ConfigError for one that cannot."""
    known(config)
    return "\n".join([*(f"{file}: warning: {text}" for text in warnings(config)), f"{file}: good"])


def page_address(config: WebConfig) -> str | None:
    """Where a reader of messages finds the page, if it can be reached from elsewhere."""
    if config.listen is None or config.listen.startswith("unix:"):
        return None
    host, port = split_address(config.listen)
    if host in ("127.0.0.1", "::1", "localhost"):
        return None
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"{'https' if config.cert else 'http'}://{name}:{port}{config.base}"


def bank(chosen: Sequence[Watch], counters: Mapping[str, Counter], more: Iterable[str] = ()) -> CounterBank:
    """The counters that the statistics need, over one period and over longer spans, and ``more`` of them."""
    spans: dict[int, set[str]] = {}
    for watch in chosen:
        spans.setdefault(watch.span, set()).update(name for name in watch.stat.needs if name in counters)
    needed = {"PKTS", "BYTES"}.union(more, *spans.values())  # these two for health and summary
    longer = {span: names for span, names in sorted(spans.items()) if span > 1}
    return CounterBank((counter for name, counter in counters.items() if name in needed), longer, HeaderSample())


def same_watches(one: Config, other: Config) -> bool:
    """Whether both ask for the same statistics, detectors and counters."""
    names = ("analyzer", "spot", "spot_stats", "counters", "stats", "mute", "evidence")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _save(folder: Path, states: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    try:
        state.save(folder, states, meta)
    except OSError as error:
        log.warning("%s: what was learned could not be saved: %s", folder, error.strerror)
