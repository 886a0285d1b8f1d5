"""Requests from the page, the REST API and MQTT to the main loop: the only way in from another thread."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from netspot.record import Record

PENDING = 64  # commands waiting for the main loop; one more is refused, so that a flood of requests costs no memory

NAMES = ("start", "stop", "relearn", "mute", "unmute", "config", "stats", "devices", "health")


class CommandError(Exception):
    """The command could not be carried out; the text tells a person why and what is accepted."""


class Command(Record):
    """``name`` with ``args``; the main loop fulfils ``reply`` with the data, or with a CommandError."""

    name: str
    args: Mapping[str, Any]
    reply: Future[Any]


class CommandQueue:
    """Any thread may ``put``; only the main loop calls ``serve``."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Command] = queue.Queue(PENDING)

    def put(self, name: str, args: Mapping[str, Any] | None = None) -> Future[Any]:
        """Queue a command; the answer arrives in the returned future, from the main loop's thread.

        Raises CommandError for an unknown name, or where too many commands wait.
        """
        if name not in NAMES:
            raise CommandError(f"unknown command {name!r}; known: {', '.join(NAMES)}")
        command = Command(name, args or {}, Future())
        try:
            self._queue.put_nowait(command)
        except queue.Full:
            raise CommandError(f"{PENDING} commands wait already; try again in a moment") from None
        return command.reply

    def serve(self, handlers: Mapping[str, Callable[[Mapping[str, Any]], Any]]) -> None:
        """Carry out what waits; a handler's error becomes the reply's."""
        while True:
            try:
                command = self._queue.get_nowait()
            except queue.Empty:
                return
            if not command.reply.set_running_or_notify_cancel():
                continue  # whoever asked has gone
            try:
                command.reply.set_result(handlers[command.name](command.args))
            except CommandError as error:
                command.reply.set_exception(error)
            except Exception as error:  # a bug in one handler must not end the capture
                command.reply.set_exception(CommandError(f"{command.name} failed: {error!r}"))
