"""What the page, the REST API and MQTT may ask of the running service; carried out on the main loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from netspot.commands import CommandError
from netspot.config import changed, to_dict
from netspot.errors import NetspotError
from netspot.events import message
from netspot.listing import interfaces

if TYPE_CHECKING:
    from netspot.service import Service

Args = Mapping[str, Any]

LONGEST_MUTE_S = 366 * 86_400


class Control:
    """Each handler takes the arguments of its command and returns its answer, or raises CommandError."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.handlers: Mapping[str, Callable[[Args], Any]] = {
            "start": self.start,
            "stop": self.stop,
            "relearn": self.relearn,
            "mute": self.mute,
            "unmute": lambda args: self.mute({**args, "seconds": 0}),
            "config": self.config,
            "stats": lambda args: self.stats(),
            "devices": lambda args: interfaces(),
            "health": lambda args: service.health.figures,
        }

    def start(self, args: Args) -> Args:
        try:
            self._service.resume()
        except NetspotError as error:
            raise CommandError(str(error)) from None
        return {"running": True}

    def stop(self, args: Args) -> Args:
        self._service.pause()
        return {"running": False}

    def relearn(self, args: Args) -> Args:
        """``stat``: a name, or all."""
        names = self._named(args)
        self._service.relearn(names, "somebody asked for it")
        return {"relearning": names}

    def mute(self, args: Args) -> Args:
        """``stat``: a name, or all; for ``seconds``, 0 to end it."""
        seconds = args.get("seconds", 3600)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_MUTE_S:
            raise CommandError(f"seconds = {seconds!r}: a number from 0 (unmute) to {LONGEST_MUTE_S} is accepted")
        names = self._named(args)
        until_ns = time.time_ns() + int(seconds * 1e9)
        self._service.analyzer.mute(names, until_ns)
        return {"muted": names if seconds else [], "until_ns": until_ns}

    def config(self, args: Args) -> Args:
        """The settings that apply, after those in ``set``, which are kept for the next start with ``save``."""
        if "set" in args:
            before = self._service.config
            try:
                self._service.apply(changed(before, args["set"]))
            except NetspotError as error:
                raise CommandError(str(error)) from None
            try:
                if args.get("save"):
                    self._service.keep(args["set"])
            except NetspotError as error:  # whole or not at all
                self._service.apply(before)
                raise CommandError(str(error)) from None
        return to_dict(self._service.config)

    def stats(self) -> Args:
        """Each statistic with its newest value and thresholds, where there is one."""
        answer = {}
        for name, watch in self._service.analyzer.watches.items():
            about = {"unit": watch.stat.unit, "help": watch.stat.help, "span": watch.span}
            sample = self._service.samples.get(name)
            answer[name] = (
                about if sample is None else about | message(sample, self._service.node, self._service.source.series)
            )
        return answer

    def _named(self, args: Args) -> list[str]:
        """The watches that ``args["stat"]`` names."""
        name, watches = args.get("stat", "all"), self._service.analyzer.watches
        if name == "all":
            return list(watches)
        if not isinstance(name, str) or name not in watches:
            raise CommandError(f"stat = {name!r}: not watched here; {', '.join(watches)} or all")
        return [name]
