"""Samples, thresholds, alarms and health over MQTT; the topics and their rules are in docs/mqtt.md."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netspot.events import Alarm, Event, Health, Incident, Sample, encode
from netspot.exporters.base import Context, Message
from netspot.exporters.client import topic_level
from netspot.exporters.delivery import IN_FLIGHT, Delivery
from netspot.exporters.late import Answer, LateAnswers
from netspot.exporters.link import Link
from netspot.exporters.nodestate import NodeState
from netspot.exporters.spool import Spool
from netspot.exporters.talk import Incoming, Presence

if TYPE_CHECKING:
    from netspot.config import MqttConfig
    from netspot.exporters.homeassistant import Discovery
    from netspot.exporters.requests import Requests

FOUND = 1000  # retained messages of an earlier run that are looked at
MOVED = 0.001  # a threshold that moved by less is not told again
TIDY_S = 1.0  # after a connection, when what an earlier run has retained must have come


class MqttExporter:
    """The main loop writes events; ``link`` sends them on its own thread."""

    kinds: frozenset[type[Event]] = frozenset({Sample, Alarm, Incident, Health})

    def __init__(self, config: MqttConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self.base = f"{config.base}/{context.node}"
        self._client_id = config.client_id or f"netspot-{context.node}"
        self._node = NodeState(context.active, context.title)
        self._node_news = False  # to be told when all of the window is known
        self._window_ns = 0  # its end [ns since epoch]
        self._thresholds: dict[str, str] = {}  # newest message by statistic
        self._stats: dict[str, Message] = {}  # newest sample by statistic
        self._stat_due_s: dict[str, float] = {}  # monotonic
        self._limits: dict[str, tuple[float, float | None, float | None]] = {}  # due [s], up, down as told
        self._unsent = 0  # samples that the link could not queue
        self._health_due_s = 0.0
        self._phase: Any = None
        self._newest_health: Message | None = None
        self._found: deque[Incoming] = deque(maxlen=FOUND)  # retained by an earlier run
        self._announce_at_s = math.inf
        self._tidy_at_s = math.inf
        self._requests = self._make_requests()
        self._discovery = self._make_discovery()
        self._link = Link(
            config, self._client_id, Presence(f"{self.base}/status"), self._subscriptions(), self._receive
        )  # fmt: skip
        self._delivery = Delivery(Spool(None, IN_FLIGHT), self._link)  # until ``start``: another may have the file

    def start(self) -> None:
        config, folder = self._config, self._context.state_dir
        path = Path(folder) / "mqtt-spool.db" if folder and config.host and config.spool else None
        self._delivery = Delivery(Spool(path, config.spool or IN_FLIGHT), self._link)
        if config.host:
            self._link.start()

    # -- events ------------------------------------------------------------------------------------------------------

    def write(self, event: Event, message: Message) -> None:
        match event:
            case Sample():
                self._sample(event, message)
                return  # many come at once: the next poll sends them
            case Alarm():
                self._delivery.keep(f"{self.base}/alarm/{topic_level(event.stat)}", message)
                self._node.alarm(event, message)
                self._node_news = True
            case Incident():
                self._delivery.keep(f"{self.base}/incident", message)
                self._node.incident(event)
                self._node_news = True
            case Health():
                self._health(event, message)
        self._send()

    def _sample(self, event: Sample, message: Message) -> None:
        if event.time_ns != self._window_ns:
            self._window_ns = event.time_ns
            self._tell_news()
        now_s, every_s = time.monotonic(), self._config.stat_every_s
        self._stats[event.stat] = message
        self._node_news |= self._node.muted(event.stat, event.muted or event.state == "muted")
        if now_s >= self._stat_due_s.get(event.stat, 0.0) and self._link.session:
            self._stat_due_s[event.stat] = now_s + every_s * 0.95  # windows do not close to the millisecond
            self._unsent += not self._link.send(
                f"{self.base}/stat/{topic_level(event.stat)}", message.json, hurry=False
            )
        self._threshold(event, message, now_s)

    def _threshold(self, event: Sample, message: Message, now_s: float) -> None:
        due_s, up, down = self._limits.get(event.stat, (0.0, math.nan, math.nan))
        if now_s < due_s or not (_moved(up, event.up) or _moved(down, event.down)):
            return
        self._limits[event.stat] = (now_s + self._config.stat_every_s * 0.95, event.up, event.down)
        fields = {key: message[key] for key in message if key not in ("value", "state")}
        text = encode(fields | {"kind": "threshold"})
        self._thresholds[event.stat] = text
        self._link.send(f"{self.base}/threshold/{topic_level(event.stat)}", text, 0, True, hurry=False)

    def _health(self, event: Health, message: Message) -> None:
        now_s, phase = time.monotonic(), event.figures.get("phase")
        if now_s < self._health_due_s and phase == self._phase:
            return
        self._health_due_s, self._phase = now_s + self._config.health_every_s * 0.95, phase
        self._newest_health = message
        self._tell_health()

    def _tell_health(self) -> None:
        if self._newest_health:  # with the figures of the connection as they are now
            text = encode({**self._newest_health, "spool": len(self._delivery), "mqtt": self.health()})
            self._link.send(f"{self.base}/health", text, 0, True)

    def _tell_news(self) -> None:
        if self._node_news and self._link.session:  # else each new connection tells it
            self._tell_node()

    def _tell_node(self) -> None:
        self._node_news = not self._link.send(f"{self.base}/alarm", self._node.json(), 1, True)

    def poll(self) -> None:
        self._tell_news()  # after a window: with its title, and once
        self._send()

    def _send(self) -> None:
        """Send what waits; after every alarm, and on every turn of the main loop."""
        self._link.nudge()
        now_s = time.monotonic()
        if self._delivery.poll():
            self._tidy_at_s = now_s + TIDY_S
            self._tell_states()
        if now_s >= self._announce_at_s:
            self._announce()
        if now_s >= self._tidy_at_s:
            self._tidy()

    # -- after every connection, and after Home Assistant's birth ------------------------------------------------------

    def _announce(self) -> None:
        """Discovery, then ``online``, then the newest states."""
        self._announce_at_s = math.inf
        if self._discovery:
            for topic, payload in self._discovery.messages():
                self._link.send(topic, payload, 1, True)
            self._link.send(f"{self.base}/status", "online", 1, True)
        self._tell_states()

    def _tell_states(self) -> None:
        self._tell_node()
        self._tell_health()
        for stat, text in self._thresholds.items():
            self._link.send(f"{self.base}/threshold/{topic_level(stat)}", text, 0, True, hurry=False)
        for stat, message in self._stats.items():
            self._link.send(f"{self.base}/stat/{topic_level(stat)}", message.json, hurry=False)

    def _tidy(self) -> None:
        """Clear what an earlier run has retained for statistics that are gone, then declare what is there."""
        self._tidy_at_s = math.inf
        self._link.unsubscribe([t for t in self._subscriptions() if "/threshold/" in t or t.endswith("/config")])
        found, self._found = self._found, deque(maxlen=FOUND)
        known = {f"{self.base}/threshold/{topic_level(info.name)}" for info in self._context.stats}
        for message in found:
            if message.topic.startswith(f"{self.base}/threshold/") and message.topic not in known and message.payload:
                self._link.send(message.topic, "", 1, True)
        for topic, payload in self._discovery.leftovers(found) if self._discovery else ():
            self._link.send(topic, payload, 1, True)
        self._announce()

    def _make_discovery(self) -> Discovery | None:
        if self._config.homeassistant.discovery == "off":
            return None
        from netspot.exporters.homeassistant import Discovery

        return Discovery(self._config, self._context)

    def _make_requests(self) -> Requests | None:
        if not self._config.commands or self._context.commands is None:
            return None
        from netspot.exporters.requests import Requests

        late = LateAnswers(self._config, f"{self._client_id}-answer")
        return Requests(self._config, self.base, self._context.commands, self._reply, late)

    def _subscriptions(self) -> tuple[str, ...]:
        topics = [f"{self.base}/threshold/+"]
        if self._requests:
            topics.append(f"{self.base}/request/+")
        if self._discovery:
            topics += self._discovery.subscriptions()
        return tuple(topics)

    def _receive(self, message: Incoming) -> None:
        """On the network thread: sets flags and queues only."""
        if message.topic.startswith(f"{self.base}/request/"):
            if self._requests:
                self._requests.receive(message)
        elif message.topic == self._config.homeassistant.birth_topic:
            if message.payload == b"online" and not message.retain:
                self._announce_at_s = time.monotonic() + random.uniform(0, 5)  # a fleet does not answer at once
        elif message.retain:
            self._found.append(message)

    def _reply(self, topic: str, payload: str, correlation: bytes | None) -> None:
        if self._link.closing and self._requests:  # by the very request that is answered: it changed the exporters
            self._requests.late.send(Answer(topic, payload, correlation), self._link.version5)
        else:
            self._link.send(topic, payload, 1, False, None, correlation)

    # -- the owner ---------------------------------------------------------------------------------------------------

    def health(self) -> Mapping[str, Any]:
        link = self._link
        link.revive()
        silent_s = time.monotonic() - link.beat_s
        reason = link.reason
        if link.session and silent_s > 60:
            reason = f"the network thread has not moved for {silent_s:.0f} s"
        return {
            "connected": bool(link.session), "reason": reason, "published": link.published,
            "connects": link.connects, "dropped": self._unsent + self._delivery.dropped, "spool": len(self._delivery),
        }  # fmt: skip

    def close(self) -> None:
        self._tell_news()
        until_s = time.monotonic() + 0.7
        while len(self._delivery) and self._link.alive and time.monotonic() < until_s:
            self.poll()
            time.sleep(0.005)
        self._link.close()
        self._delivery.close()


def _moved(told: float | None, new: float | None) -> bool:
    if told is None or new is None:
        return told is not new
    return not abs(new - told) <= MOVED * abs(told)
