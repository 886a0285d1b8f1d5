"""Samples and alarms as points in InfluxDB: line protocol over HTTP, versions 1, 2 and 3."""

from __future__ import annotations

import base64
import gzip
import http.client
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from netspot.errors import ConfigError
from netspot.events import Alarm, Event, Health, Incident, Sample
from netspot.exporters.base import Context, Message
from netspot.exporters.sender import Refused, Sender

if TYPE_CHECKING:
    from netspot.config import InfluxConfig

WAITING = 20_000  # points kept for a database that is away, about 4 MiB; then the oldest is dropped
TIMEOUT_S = 10.0
HEALTH = ("captured", "dropped", "rss_bytes", "uptime_s", "packets_per_s", "cpu_share", "spool")


class InfluxExporter:
    """Points wait in a bounded queue; a thread sends them in batches, at most ``every_s`` apart."""

    kinds: frozenset[type[Event]] = frozenset({Sample, Alarm, Incident, Health})

    def __init__(self, config: InfluxConfig, context: Context) -> None:
        self._database = Database(config) if config.url else None
        deliver = self._database.deliver if self._database else (lambda batch: None)
        self._sender = Sender("InfluxDB", deliver, WAITING, max(config.batch, 1), config.every_s)

    def start(self) -> None:
        self._sender.start()

    def write(self, event: Event, message: Message) -> None:
        point = line(event, message)
        if point:
            self._sender.put(point.encode())

    def health(self) -> Mapping[str, Any]:
        sender = self._sender
        return {
            "dropped": sender.dropped, "delivered": sender.delivered, "waiting": len(sender), "reason": sender.reason,
        }  # fmt: skip

    def close(self) -> None:
        self._sender.close()


class Database:
    """``deliver`` runs on the sender's thread."""

    def __init__(self, config: InfluxConfig) -> None:
        url = urlsplit(config.url or "")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError(f"exporter.influxdb.url = {config.url}: http://host:8086 or https://host:8086")
        self._where = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
        self._url = url
        self._headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"}
        if config.token:  # version 2, and the same endpoint of version 3
            query = {"org": config.org or "", "bucket": config.database, "precision": "ns"}
            self._target = f"{url.path.rstrip('/')}/api/v2/write?{urlencode(query)}"
            self._headers["Authorization"] = f"Token {config.token}"
        else:
            self._target = f"{url.path.rstrip('/')}/write?{urlencode({'db': config.database, 'precision': 'ns'})}"
            if config.username is not None:
                pair = base64.b64encode(f"{config.username}:{config.password or ''}".encode()).decode()
                self._headers["Authorization"] = f"Basic {pair}"

    def deliver(self, batch: Sequence[bytes]) -> None:
        """Raises OSError when the database cannot take points now, Refused when it never will take these."""
        body = gzip.compress(b"\n".join(batch), 5)
        connection = self._connect()
        try:
            connection.request("POST", self._target, body, self._headers)
            answer = connection.getresponse()
            text = answer.read(2000).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise OSError(f"{self._where}: {_words(error)}; tried again by itself") from None
        finally:
            connection.close()
        if answer.status // 100 == 2:
            return
        said = f"{self._where} answers {answer.status} {answer.reason}: {text.strip()[:200]}"
        if answer.status in (400, 413, 422) and "database not found" not in text:
            raise Refused(f"{said}; those points are dropped")
        raise OSError(said)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)


def line(event: Event, message: Mapping[str, Any]) -> str | None:
    """The point of one event in line protocol; None where it holds no number."""
    tags = {"node": message["node"], "series": message["series"]}
    match event:
        case Sample():
            fields = {key: message[key] for key in ("value", "up", "down")}
            return _point("netspot", tags | {"stat": event.stat}, fields, {"state": event.state}, event.time_ns)
        case Alarm():
            fields = {key: message[key] for key in ("value", "threshold", "probability")}
            texts = {"event_type": event.event_type, "level": event.level, "id": event.id}
            return _point("netspot_alarm", tags | {"stat": event.stat}, fields, texts, event.time_ns)
        case Incident():
            texts = {"event_type": event.event_type, "title": event.title, "id": event.id}
            return _point("netspot_incident", tags, {"seq": event.seq}, texts, event.time_ns)
        case Health():
            fields = {key: event.figures.get(key) for key in HEALTH}
            texts = {"phase": str(event.figures.get("phase", ""))}
            return _point("netspot_health", tags, fields, texts, event.time_ns)
        case _:
            return None


def _point(
    name: str, tags: Mapping[str, str], fields: Mapping[str, Any], texts: Mapping[str, str], ns: int
) -> str | None:
    numbers = [f"{key}={float(value)!r}" for key, value in fields.items() if value is not None]
    if not numbers:
        return None
    quoted = [f'{key}="{_quoted(text)}"' for key, text in texts.items()]
    labels = "".join(f",{key}={_escaped(value)}" for key, value in tags.items() if value)
    return f"{name}{labels} {','.join(numbers + quoted)} {ns}"


def _escaped(tag: str) -> str:
    for char in "\\,= ":
        tag = tag.replace(char, f"\\{char}")
    return tag.replace("\n", "_")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def _words(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the name is unknown"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
