"""A running netspot as ``netspotctl`` reaches it: the REST API over TCP, TLS or a unix socket, and the token."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from netspot.commands import CommandError
from netspot.errors import ConfigError, NetspotError, Unreachable
from netspot.web.access import read_token, token_paths

if TYPE_CHECKING:
    from netspot.config import MqttConfig

STATE_DIR = "/var/lib/netspot"  # where the package keeps the token
TIMEOUT_S = 10.0
ANSWER_MAX = 16 << 20  # [byte] of an answer that is read


class Refused(NetspotError):
    """The service answered, and would not."""

    exit_status = 1


class Peer(Protocol):
    """A running netspot, however it is reached."""

    def get(self, path: str) -> Any:
        """What the API has at ``path``, without the leading ``/api/``."""

    def command(self, name: str, args: Mapping[str, Any]) -> Any:
        """Carry out a command of ``netspot.commands``; its data."""


class Http:
    """The REST API of one netspot."""

    def __init__(self, url: str, socket_path: str | None, ca: str | None, token: Callable[[], str]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"--url {url}: must be http://HOST:PORT or https://HOST:PORT, with a prefix if it has one"
            )
        self._secure, self._host = parts.scheme == "https", parts.hostname
        self._port, self._base = parts.port, parts.path.rstrip("/")
        self._socket_path, self._ca, self._token = socket_path, ca, token
        self._where = f"unix:{socket_path}" if socket_path else url

    def get(self, path: str) -> Any:
        try:
            return self._ask("GET", path, None, "")
        except Unauthorised:
            return self._ask("GET", path, None, self._token())

    def command(self, name: str, args: Mapping[str, Any]) -> Any:
        path, body = {"start": ("run", {"action": "start"}), "stop": ("run", {"action": "stop"})}.get(
            name, (name, args)
        )
        if name == "config":
            path, body = ("config?save=1" if args.get("save") else "config"), args["set"]
        return self._ask("POST", path, json.dumps(body).encode(), self._token())["data"]

    def _ask(self, method: str, path: str, body: bytes | None, token: str) -> Any:
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = self._connection()
        try:
            connection.request(method, f"{self._base}/api/{path}", body, headers)
            answer = connection.getresponse()
            text = answer.read(ANSWER_MAX)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(f"{self._where}: {reason}; is netspot running, and web.listen set to this?") from None
        finally:
            connection.close()
        return _understood(self._where, answer.status, text)

    def _connection(self) -> http.client.HTTPConnection:
        if self._socket_path is not None:
            return UnixConnection(self._socket_path)
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"--ca {self._ca}: {error.strerror or error}") from None
        return http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=context)


class Unauthorised(Refused):
    """A token is needed."""

    exit_status = 2


def _understood(where: str, status: int, text: bytes) -> Any:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreachable(f"{where}: answered {status}, which is not how netspot answers") from None
    if status == 401:
        raise Unauthorised(str(data.get("error")))
    if status not in (200, 503) or (status == 503 and "phase" not in data):
        raise Refused(str(data.get("error") if isinstance(data, dict) else data))
    return data


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def find_token(file: str | None) -> str:
    """The token, from ``file`` or from where the service on this machine keeps it."""
    paths = [Path(file)] if file else [*token_paths(STATE_DIR), *token_paths(None)]
    denied = None
    for path in paths:
        try:
            return read_token(path)
        except PermissionError:
            denied = path
        except OSError as error:
            if file:
                raise ConfigError(f"--token-file {file}: {error.strerror}") from None
    if denied is not None:
        raise ConfigError(f"{denied}: not yours to read; try with sudo")
    places = ", ".join(str(path) for path in paths)
    raise ConfigError(f"no token in {places}; give --token-file FILE (netspot writes it to 'token' in state.dir)")


class Mqtt:
    """One netspot behind a broker: what its retained messages tell, and the commands that it obeys."""

    def __init__(self, broker: MqttConfig, node: str | None, wanted: str) -> None:
        """``wanted``: what the user calls that which is asked for."""
        self._broker, self._node, self._wanted = broker, node, wanted

    def get(self, path: str) -> Any:
        if path == "status":
            return self._status()
        kind, _, name = path.partition("/")
        if kind not in ("stats", "devices", "config"):
            raise Refused(f"{self._wanted}: not possible over MQTT; use --url or --socket")
        data = self.command(kind, {})
        if kind == "stats" and isinstance(data, dict) and "stats" not in data:
            return self._stat(unquote(name), data) if name else {"stats": [self._stat(name, data) for name in data]}
        return {"devices": data} if isinstance(data, list) else data

    def _stat(self, name: str, stats: Mapping[str, Any]) -> Any:
        if name not in stats:
            raise Refused(f"there is no statistic {name!r}; there are: {', '.join(stats)}")
        return {"stat": name, **stats[name]}

    def _status(self) -> Any:
        from netspot import fleet

        with fleet.Fleet(self._broker) as found:
            name = self._named()
            node = found.nodes.get(name)
        if node is None or node.status != "online":
            raise Unreachable(f"node {name} is {'not known to the broker' if node is None else node.status}")
        active = node.alarm.get("stats") or ["anomaly"] if node.alarm.get("active") else []
        return {**node.health, "node": name, "active": active}

    def command(self, name: str, args: Mapping[str, Any]) -> Any:
        from netspot import fleet

        try:
            return fleet.request(self._broker, self._named(), name, args)
        except CommandError as error:
            raise Refused(str(error)) from None

    def _named(self) -> str:
        from netspot import fleet

        if self._node is None:
            self._node = fleet.only_node(self._broker)
        return self._node


def broker(url: str, base: str, ca: str | None, password_file: str | None) -> MqttConfig:
    """The connection that ``HOST[:PORT]`` or ``mqtt[s]://[USER@]HOST[:PORT]`` means. Raises ConfigError."""
    from netspot.config import MqttConfig

    try:
        parts = urlsplit(url if "://" in url else f"mqtt://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("mqtt", "mqtts"):
        raise ConfigError(f"--mqtt {url}: must be HOST, HOST:PORT or mqtt[s]://[USER@]HOST[:PORT]")
    password = None
    if password_file:
        try:
            password = Path(password_file).read_text("utf-8").rstrip("\n")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"--password-file {password_file}: {error}") from None
    return MqttConfig(
        host=host,
        port=port,
        base=base,
        username=unquote(parts.username) if parts.username else None,
        password=password,
        tls=parts.scheme == "mqtts",
        ca=ca,
    )
