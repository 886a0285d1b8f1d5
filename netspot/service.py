"""Where everything meets: builds the objects, runs the main loop, answers signals, systemd and commands.

``Service.run`` is the program: a source reads a packet batch; the counters add it up; every period they become a
window; the statistics turn the window into numbers; each number steps its detector; samples and alarms are events that
the exporters send away.
"""

from __future__ import annotations

import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netspot
from netspot import state
from netspot.analyzer import Analyzer, Names
from netspot.commands import CommandQueue
from netspot.config import Config, WebConfig, load, node_name, save, split_address, warnings
from netspot.control import Control
from netspot.errors import ConfigError, NetspotError
from netspot.events import Alarm, Event, Incident, Sample
from netspot.exporters.base import Context, StatInfo
from netspot.exporters.fanout import Exporters
from netspot.health import HealthCheck
from netspot.miner.captures import Captures
from netspot.miner.source import Source
from netspot.miner.windows import Closed, Windows
from netspot.notify import Systemd
from netspot.packets import PacketBatch, nothing
from netspot.pipeline import Watching, same_watching, watching
from netspot.record import replace

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
        """``reread``: what SIGHUP asks for the configuration, None in the foreground, which has no other purpose than
        what it prints; ``keep``: saves changes of it for the next start.

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
        self._states: Mapping[str, Any] = {}  # what detectors had learned when they were last replaced
        self._seq = 0
        self._saver: threading.Thread | None = None
        self._saved_at_s = time.monotonic()
        self._held = ExitStack()  # the folder of what is kept, against a second netspot
        self._read_state()
        self.captures: Captures | None = None
        self._pending: list[Event] = []  # to be told with the next window
        self._watching = watching(config, Names(config.evidence.addresses), self._states, self._seq, count_all)
        self._capture()
        self.source = open_source(config)
        self.windows = self._fresh_windows()
        self._series, self.exporters = self.source.series, self._exporters()
        self.health = HealthCheck(self)
        self.samples: dict[str, Sample] = {}  # the newest of each statistic
        self._observers = observers
        self.observers = list(observers(self))
        self._handlers = Control(self).handlers

    def run(self) -> None:
        """Until the capture ends, or somebody stops it.

        Raises NetspotError for a source that cannot go on, OSError for a standard output that cannot be written.
        """
        with self._alive():
            gc.freeze()  # what is there now stays: no collection need look through it again
            gc.enable()
            try:
                while not self.stopping and (batch := self.source.read(self._patience_s())) is not None:
                    for closed in self.windows.push(batch, blind=not getattr(self.source, "up", True)):
                        self._close(closed)
                        if self.stopping:  # a batch of a slow network may hold hours
                            break
                    del batch  # makes room for the next one
                    self._housekeep()
            except OSError:  # nobody can be told any more, not even the last window
                self.stopping = True
                raise
            finally:  # a capture that was cut has a last window too; one that was interrupted is not told half
                if not self.source.live and not self.stopping:
                    self.health.last = True
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
            self._tell()

    def resume(self) -> None:
        """Raises SourceError."""
        if isinstance(self.source, Paused):
            self.source = self._open_source(self.config)
            self._tell()

    def _tell(self) -> None:
        """Show what was asked for before it is answered: the next window may be an hour away."""
        from netspot.snapshot import Board  # loaded where there is a page

        self.exporters.write(self.health.now(time.time_ns()))
        for observer in self.observers:
            if isinstance(observer, Board):
                observer.tell(self.health.figures)

    def relearn(self, names: Iterable[str], reason: str) -> None:
        self._pending += self.analyzer.relearn(names, time.time_ns(), reason)

    def keep(self, changes: Mapping[str, Any]) -> None:
        """Have ``changes`` of the configuration apply at the next start too. Raises ConfigError."""
        if self._keep is None:
            raise ConfigError("there is no configuration file to save to; start with -c FILE")
        self._keep(changes)

    # The parts that a configuration decides ---------------------------------------------------------------------

    @property
    def analyzer(self) -> Analyzer:
        return self._watching.analyzer

    @property
    def node(self) -> str:
        return node_name(self.config)

    def _fresh_windows(self) -> Windows:
        start_ns = time.time_ns() if self.source.live else None
        return Windows(self._watching.bank, self.config.analyzer.period_ns, start_ns)

    def _capture(self) -> None:
        """Capture files of incidents, where there is a folder for them."""
        if self.captures is not None:
            self.captures.close()
        evidence, folder = self.config.evidence, self.config.state.dir
        rename = None if evidence.addresses == "whole" else self._watching.names.address
        kept = evidence.pcap and folder is not None
        self.captures = Captures(Path(folder, "incidents"), evidence.mib, rename) if kept and folder else None

    def _exporters(self) -> Exporters:
        """Those that the configuration asks for, not started. Raises ConfigError."""
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
            self._reread is None,
            page_address(self.config.web),
            self.analyzer.active,
            self.analyzer.incidents.title,
        )
        return Exporters(self.config.exporter, context)

    def apply(self, config: Config) -> None:
        """Go on with ``config``; what it does not change goes on undisturbed.

        Raises NetspotError for one that cannot be used: then everything is as it was, and nothing is forgotten.
        """
        held = self._held if config.state.dir == self.config.state.dir else _hold(config.state.dir)
        try:
            self._apply(config)
        except Exception:
            if held is not self._held:
                held.close()
            raise
        if held is not self._held:
            self._held.close()
            self._held = held
        gc.unfreeze()  # see ``run``: what was replaced is given back
        gc.collect()
        gc.freeze()

    def _apply(self, config: Config) -> None:
        before, source, old = self.config, self.source, self._watching
        moved = _scene(config) != _scene(before)
        new = old if same_watching(config, before) and not moved else self._rebuilt(config, moved)
        if config.miner != before.miner and not isinstance(source, Paused):
            source = self._open_source(config)  # the new one stands before the old one goes
        parts = (before, self.source, old, self.windows)
        self.config, self.source, self._watching = config, source, new
        if new is not old or source is not parts[1]:
            self.windows = self._fresh_windows()
        try:
            self._show(before, new is not old)
        except Exception:
            if source is not parts[1]:
                source.close()
            self.config, self.source, self._watching, self.windows = parts
            self.observers = list(self._observers(self))
            raise
        if new is not old:
            self._pending += new.analyzer.succeed(old.analyzer, time.time_ns())
        if source is not parts[1]:
            parts[1].close()
        if moved:
            self._states = {}

    def _rebuilt(self, config: Config, moved: bool) -> Watching:
        """``moved`` to where something else is normal. Raises ConfigError."""
        names = self._watching.names
        if config.evidence.addresses != self.config.evidence.addresses:
            names = Names(config.evidence.addresses)
        self._states = {**self._states, **self.analyzer.states()}
        return watching(config, names, {} if moved else self._states, self.analyzer.seq, self._count_all)

    def _show(self, before: Config, watched_anew: bool) -> None:
        """Have page, exporters and captures follow a change of the configuration.

        Raises ConfigError: then exporters and captures go on as they were, and the page waits to be asked back.
        """
        config, exporters = self.config, self.exporters
        if watched_anew or (config.exporter, config.miner, config.web) != (before.exporter, before.miner, before.web):
            exporters = self._exporters()
        try:
            self.observers = list(self._observers(self))
        except Exception:
            if exporters is not self.exporters:
                exporters.close()
            raise
        if exporters is not self.exporters:
            self._export(exporters)
        if (config.evidence, config.state) != (before.evidence, before.state):
            self._capture()
        self.samples.clear()

    def _export(self, exporters: Exporters) -> None:
        """Tell ``exporters`` from now on, whatever they can take, and nobody else."""
        self.exporters.close()
        self._series, self.exporters = self.source.series, exporters
        exporters.start()

    def _follow(self) -> None:
        """The source has moved to another interface (device: auto). Nobody is there to mend what then cannot be."""
        self._series = self.source.series
        try:
            self._export(self._exporters())
        except ConfigError as error:
            log.error("the exporters go on as they were: %s", error)
        self.observers = list(self._observers(self))

    # One window -------------------------------------------------------------------------------------------------

    def _close(self, closed: Closed) -> None:
        samples: list[Sample] = []
        events, self._pending = self._pending, []
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
        if self._series != self.source.series:  # device: auto has moved to another interface
            self._follow()
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
        stack.callback(lambda: self._held.close())
        self.exporters.start()
        stack.callback(lambda: self.exporters.close())
        stack.callback(lambda: self.source.close())
        stack.callback(lambda: self.captures.close() if self.captures is not None else None)
        self._save()  # the file says from now on that the program was not stopped
        stack.callback(self._save, wait=True)
        stack.callback(self._end_incidents)
        handlers = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop}
        if self._reread is not None:
            handlers[signal.SIGHUP] = self._ask_reload
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            handlers[signal.SIGHUP] = self.stop  # the terminal is lost
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                stack.callback(signal.signal, number, signal.signal(number, lambda *_, call=handler: call()))
        self._systemd.ready(self.health.status)
        stack.callback(self._systemd.stopping)
        return stack

    def _end_incidents(self) -> None:
        """Nobody shall wait for the end of an alarm that nobody watches any more."""
        if self.source.live:
            for event in (*self._pending, *self.analyzer.close(time.time_ns())):
                self.exporters.write(event)

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
        """Take up what was learned; numbers of alarms never come twice, not even after a crash.

        Raises ConfigError where another netspot has the folder.
        """
        if self.config.state.dir is None:
            return
        folder = Path(self.config.state.dir)
        try:
            self._held = state.hold(folder)
        except OSError as error:  # a medium that went bad: a netspot that forgets is better than none
            log.warning("state.dir %s: %s; nothing will be kept", folder, error.strerror)
        self._states, meta = state.load(folder)
        self._seq = int(meta.get("seq", 0))
        for name, value in _scene(self.config).items():
            if self._states and meta.get(name, value) != value:
                log.warning("what was learned with another %s is left; all is learned anew", name)
                self._states = {}
        if meta and not meta.get("stopped"):
            self._seq += CRASH_GAP

    def _save(self, wait: bool = False) -> None:
        """Keep what the detectors learned; in a thread, because a worn SD card may take seconds."""
        self._saved_at_s = time.monotonic()
        if self.config.state.dir is None:
            return
        if self._saver is not None:
            self._saver.join(None if wait else 0)
            if self._saver.is_alive():
                return
        states, meta = (
            self.analyzer.states(),
            {"seq": self.analyzer.seq, "stopped": wait, **_scene(self.config)},
        )
        self._saver = threading.Thread(target=_save, args=(Path(self.config.state.dir), states, meta), daemon=True)
        self._saver.start()
        if wait:
            self._saver.join(10)


class Paused:
    """The source while capture is stopped by command: time goes on, no packet comes."""

    live = paused = True
    up = False

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


def check(config: Config, file: str) -> str:
    """What ``netspot check`` says of a configuration that can be used. Raises ConfigError for one that cannot."""
    watching(config, Names(config.evidence.addresses))
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


def _scene(config: Config) -> dict[str, Any]:
    """What decides which values are normal: those of other packets, or of longer windows, say nothing of these."""
    miner = config.miner
    nets = None if miner.home_nets is None else list(miner.home_nets)
    return {
        "device": miner.device,
        "filter": miner.filter,
        "direction": miner.direction,
        "home_nets": nets,
        "period_ns": config.analyzer.period_ns,
    }


def _hold(folder: str | None) -> ExitStack:
    """``state.hold`` of a folder that somebody has just asked for. Raises ConfigError where it cannot be had."""
    try:
        return ExitStack() if folder is None else state.hold(Path(folder))
    except OSError as error:
        raise ConfigError(
            f"state.dir = {folder}: {error.strerror}; name a folder that netspot can make and write"
        ) from None


def _save(folder: Path, states: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    try:
        state.save(folder, states, meta)
    except OSError as error:
        log.warning("%s: what was learned could not be saved: %s", folder, error.strerror)
