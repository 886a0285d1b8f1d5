"""One event in, every exporter that wants it out: none of them ever touches another.

Only in the foreground, where a program without its standard output has no more to do, what the console cannot write
ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from netspot.errors import ConfigError
from netspot.events import Event
from netspot.exporters.base import Context, Exporter, Message, Polled
from netspot.exporters.registry import EXPORTERS
from netspot.plugins import guarded, load

if TYPE_CHECKING:
    from netspot.config import ExporterConfig

log = logging.getLogger(__name__)

SWITCHES = ("data", "alarm", "host", "url")  # a section that sets one of these wants its exporter


class _Outlet:
    """One exporter, and what it failed to take."""

    def __init__(self, name: str, exporter: Exporter, vital: bool = False) -> None:
        """``vital``: that it cannot write is an error for whoever told the event."""
        self.name = name
        self.exporter = exporter
        self.vital = vital
        self.failed = 0  # calls that raised
        self.poll = exporter.poll if isinstance(exporter, Polled) else None

    def write(self, event: Event, message: Message) -> None:
        try:
            self.exporter.write(event, message)
        except Exception as error:
            if self.vital and isinstance(error, OSError):
                raise
            self.failure(error)

    def attempt(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except Exception as error:
            self.failure(error)
            return None

    def failure(self, error: Exception) -> None:
        self.failed += 1
        if self.failed == 1:
            log.warning("exporter %s: %s; what it cannot take is dropped and counted", self.name, _words(error))


class Exporters:
    """The configured exporters as one; all methods run on the main loop."""

    def __init__(self, config: ExporterConfig, context: Context) -> None:
        """Raises ConfigError for a setting that can never work."""
        self._context = context
        self._outlets: list[_Outlet] = []
        try:
            for name in (name for name in EXPORTERS if _wanted(name, config)):
                vital = context.foreground and name == "console"
                self._outlets.append(_Outlet(name, _build(name, config, context), vital))
        except ConfigError:
            self.close()
            raise
        self._outlets += _plugged(context)
        self._polled = [outlet for outlet in self._outlets if outlet.poll]
        self._takers: dict[type, list[_Outlet]] = {}

    def start(self) -> None:
        for outlet in self._outlets:
            outlet.attempt(outlet.exporter.start)

    def write(self, event: Event) -> None:
        """Hand ``event`` to every exporter that takes its kind. In the foreground, OSError without standard output."""
        kind = type(event)
        takers = self._takers.get(kind)
        if takers is None:
            takers = self._takers[kind] = [outlet for outlet in self._outlets if kind in outlet.exporter.kinds]
        if takers:
            message = Message(event, self._context.node, self._context.series)
            for outlet in takers:
                outlet.write(event, message)

    def poll(self) -> None:
        """To be called on every turn of the main loop."""
        for outlet in self._polled:
            outlet.attempt(outlet.poll)  # type: ignore[arg-type]

    def health(self) -> dict[str, dict[str, Any]]:
        """Figures by exporter; ``dropped`` counts what it refused and what it dropped by itself."""
        figures = {}
        for outlet in self._outlets:
            own: Mapping[str, Any] = outlet.attempt(outlet.exporter.health) or {}
            figures[outlet.name] = {**own, "dropped": own.get("dropped", 0) + outlet.failed}
        return figures

    def close(self) -> None:
        for outlet in self._outlets:
            outlet.attempt(outlet.exporter.close)
            if outlet.failed > 1:
                log.warning("exporter %s: %d calls failed in all", outlet.name, outlet.failed)


def _plugged(context: Context) -> list[_Outlet]:
    """Exporters of other packages: classes with a ``name``, made of the Context, under ``netspot.exporters``."""
    outlets = []
    for name, make in load("netspot.exporters", type, EXPORTERS).items():
        exporter = guarded(f"exporter {name}", make, None)(context)
        if exporter is not None:
            outlets.append(_Outlet(name, exporter))
    return outlets


def _wanted(name: str, config: ExporterConfig) -> bool:
    section = getattr(config, name, None)
    return any(getattr(section, switch, None) for switch in SWITCHES)


def _build(name: str, config: ExporterConfig, context: Context) -> Exporter:
    module, _, class_name = EXPORTERS[name].partition(":")
    exporter: Exporter = getattr(import_module(module), class_name)(getattr(config, name), context)
    return exporter


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, OSError | ConfigError) else repr(error)
