"""Commands that arrive as MQTT requests, and their responses."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from netspot.commands import CommandError, CommandQueue
from netspot.events import encode
from netspot.exporters.late import LateAnswers
from netspot.exporters.talk import Incoming

if TYPE_CHECKING:
    from netspot.config import MqttConfig

log = logging.getLogger(__name__)

REQUEST_BYTES = 16_384
TRANSACTION = 128  # longest that is echoed [character]
TOPIC = 256  # longest response topic [character]


class Requests:
    """``receive`` runs on the network thread, the reply on the thread that carries the command out."""

    def __init__(
        self,
        config: MqttConfig,
        base: str,
        commands: CommandQueue,
        publish: Callable[[str, str, bytes | None], None],
        late: LateAnswers,
    ) -> None:
        self.late = late
        self._base = base
        self._forbidden = (f"{base}/", f"{config.homeassistant.prefix}/", "$")
        self._commands = commands
        self._publish = publish

    def receive(self, message: Incoming) -> None:
        if message.retain:
            log.warning("MQTT: the retained request on %s is ignored; clear that topic", message.topic)
            return
        if not message.payload:  # somebody clears a retained request, which arrives here as if it were none
            return
        name = message.topic.rpartition("/")[2]
        transaction: Any = None
        try:
            args = parse(message.payload)
            transaction = args.pop("transaction", None)
            if transaction is not None and not (
                isinstance(transaction, str | int) and len(str(transaction)) <= TRANSACTION
            ):
                transaction = None
                raise CommandError(f"transaction: a text of up to {TRANSACTION} characters, or a number")
            name, args = self._translate(name, args)
            future = self._commands.put(name, args)
        except CommandError as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda done: self._respond(message, transaction, done))

    def _translate(self, name: str, args: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """A switch of Home Assistant knows one topic only: ``mute`` for 0 seconds takes the muting back."""
        if name == "mute" and args.get("seconds") == 0:
            return "unmute", {key: value for key, value in args.items() if key != "seconds"}
        return name, args

    def _respond(self, message: Incoming, transaction: Any, done: Future[Any]) -> None:
        error = done.exception()
        body: dict[str, Any] = {"status": "error" if error else "ok", "data": {} if error else done.result()}
        if error:
            body["error"] = str(error)
        if transaction is not None:
            body["transaction"] = transaction
        self._publish(self._reply_topic(message), encode(body), message.correlation)

    def _reply_topic(self, message: Incoming) -> str:
        """Where the requester wants it (MQTT 5), unless that would speak in this node's name; else the usual place."""
        wanted, usual = message.reply_to, message.topic.replace("/request/", "/response/")
        if not wanted or len(wanted) > TOPIC or any(char in wanted for char in "+#\0"):
            return usual
        if wanted.startswith(self._forbidden) and not wanted.startswith(f"{self._base}/response/"):
            return usual
        return wanted


def parse(payload: bytes) -> dict[str, Any]:
    """The arguments in a request: a JSON object. Raises CommandError."""
    if len(payload) > REQUEST_BYTES:
        raise CommandError(f"a request of {len(payload)} bytes; {REQUEST_BYTES} at most")
    try:
        args = json.loads(payload)
    except (ValueError, RecursionError):
        raise CommandError('a request is a JSON object, as {"stat": "all", "transaction": "1"}') from None
    if not isinstance(args, dict):
        raise CommandError(f"a request is a JSON object, not a {type(args).__name__}")
    return args
