"""Home Assistant's MQTT discovery: what this node is, and an entity for everything that it says.

By device (one retained message, releases from 2024.12) or by component (one message an entity, any release).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from netspot.config import node_name
from netspot.errors import NetspotError
from netspot.events import encode
from netspot.exporters.base import Context, StatInfo
from netspot.exporters.client import topic_level
from netspot.exporters.link import Link
from netspot.exporters.talk import Incoming

if TYPE_CHECKING:
    from netspot.config import Config, MqttConfig

Component = dict[str, Any]

ICONS = {
    "1": "mdi:percent-outline",
    "byte": "mdi:ruler",
    "packet/s": "mdi:speedometer",
    "byte/s": "mdi:speedometer",
    "s": "mdi:timer-outline",
}
PRECISION = {"1": 4, "byte": 0, "packet/s": 1, "byte/s": 0, "s": 3}  # decimals shown; 2 for other units
UNITS: dict[str, tuple[str | None, str | None]] = {  # of a statistic -> Home Assistant's unit, device class
    "1": (None, None),
    "byte": ("B", "data_size"),
    "byte/s": ("B/s", "data_rate"),
}
EXPIRE_S = 180  # a value that is older is shown as unavailable, at the soonest
MUTE_S = 86_400  # the switch mutes for a day: nobody forgets it for ever


class Discovery:
    """The discovery messages of one node."""

    def __init__(self, config: MqttConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._prefix = config.homeassistant.prefix
        self._node = f"netspot_{context.node}"
        self._base = f"{config.base}/{context.node}"
        self._by_device = config.homeassistant.discovery == "device"

    def subscriptions(self) -> tuple[str, ...]:
        """The birth message, and where earlier discovery messages of this node are retained."""
        return self._config.homeassistant.birth_topic, *discovery_topics(self._prefix, self._context.node)

    def messages(self) -> list[tuple[str, str]]:
        """Topic and payload of each retained message."""
        components = self.components()
        if self._by_device:
            payload = self._shared() | {"cmps": components}
            return [(self._device_topic(), encode(payload))]
        return [
            (self._component_topic(key, part), encode(self._shared() | {k: v for k, v in part.items() if k != "p"}))
            for key, part in components.items()
        ]

    def leftovers(self, found: Iterable[Incoming]) -> list[tuple[str, str]]:
        """What takes away entities that an earlier run declared in ``found``, and this run does not."""
        wanted = dict(self.messages())
        out: list[tuple[str, str]] = []
        for message in found:
            if not message.topic.startswith(f"{self._prefix}/") or not message.payload:
                continue
            if message.topic not in wanted:
                out.append((message.topic, ""))
            elif self._by_device:
                out += self._without_old(message, wanted[message.topic])
        return out

    def _without_old(self, message: Incoming, payload: str) -> list[tuple[str, str]]:
        """An entity goes when its component is announced once with nothing but its platform."""
        new = json.loads(payload)
        old = {key: part.get("p") for key, part in declared(message.payload) if key not in new["cmps"]}
        gone = {key: {"p": platform} for key, platform in old.items() if isinstance(platform, str)}
        if not gone:
            return []
        return [(message.topic, encode(new | {"cmps": new["cmps"] | gone})), (message.topic, payload)]

    def components(self) -> dict[str, Component]:
        parts = {
            "anomaly": self._entity(
                "binary_sensor", "anomaly", "Network anomaly", dev_cla="problem", stat_t=f"{self._base}/alarm",
                val_tpl="{{ 'ON' if value_json.active else 'OFF' }}", json_attr_t=f"{self._base}/alarm",
            ),
            "incident": self._entity(
                "event", "incident", "Anomaly", ic="mdi:shield-alert", stat_t=f"{self._base}/incident",
                evt_typ=["opened", "updated", "closed"],
            ),
        }  # fmt: skip
        parts |= {f"stat_{slug(info.name)}": self._stat(info) for info in self._context.stats}
        parts |= self._diagnostics()
        if self._config.commands:
            parts |= self._controls()
        return parts

    def _stat(self, info: StatInfo) -> Component:
        unit, device_class = UNITS.get(info.unit, (info.unit, None))
        more: Component = {"unit_of_meas": unit} if unit else {}
        if device_class:
            more["dev_cla"] = device_class
        return self._entity(
            "sensor", f"stat_{slug(info.name)}", info.name, stat_t=f"{self._base}/stat/{topic_level(info.name)}",
            stat_cla="measurement", val_tpl="{{ value_json.value }}",
            exp_aft=max(EXPIRE_S, round(3 * max(self._config.stat_every_s, info.every_s))),
            sug_dsp_prc=PRECISION.get(info.unit, 2), ic=ICONS.get(info.unit, "mdi:chart-line"), **more,
        )  # fmt: skip

    def _diagnostics(self) -> dict[str, Component]:
        def sensor(key: str, name: str, field: str, **more: Any) -> Component:
            template = f"{{{{ value_json.{field} }}}}"
            return self._entity(
                "sensor", key, name, stat_t=f"{self._base}/health", val_tpl=template, ent_cat="diagnostic", **more
            )

        total = {"stat_cla": "total_increasing", "unit_of_meas": "packets"}
        return {
            "captured": sensor("captured", "Packets captured", "captured", ic="mdi:lan-connect", **total),
            "dropped": sensor("dropped", "Packets dropped", "dropped", ic="mdi:lan-disconnect", **total),
            "phase": sensor(
                "phase", "Phase", "phase", dev_cla="enum", ops=["learning", "watching", "degraded", "stopped"]
            ),
            "started": sensor("started", "Started", "started", dev_cla="timestamp"),
        }

    def _controls(self) -> dict[str, Component]:
        return {
            "relearn": self._entity(
                "button", "relearn", "Relearn", cmd_t=f"{self._base}/request/relearn", pl_prs='{"stat":"all"}',
                ent_cat="config", ic="mdi:school",
            ),
            "mute": self._entity(
                "switch", "mute", "Mute alarms", cmd_t=f"{self._base}/request/mute", stat_t=f"{self._base}/alarm",
                pl_on=encode({"stat": "all", "seconds": MUTE_S}), pl_off='{"stat":"all","seconds":0}',
                stat_on="ON", stat_off="OFF", val_tpl="{{ 'ON' if value_json.muted else 'OFF' }}",
                ent_cat="config", ic="mdi:bell-off",
            ),
        }  # fmt: skip

    def _entity(self, platform: str, key: str, name: str, **more: Any) -> Component:
        return {"p": platform, "uniq_id": f"{self._node}_{key}", "name": name, "qos": 1} | more

    def _shared(self) -> Component:
        device: Component = {
            "ids": [self._node], "name": f"netspot {self._context.node}", "mf": "netspot",
            "mdl": "Network anomaly detector", "sw": self._context.version,
        }  # fmt: skip
        if self._context.page:
            device["cu"] = self._context.page
        return {
            "dev": device, "o": {"name": "netspot", "sw": self._context.version},
            "avty": [{"t": f"{self._base}/status"}],
        }  # fmt: skip

    def _device_topic(self) -> str:
        return f"{self._prefix}/device/{self._node}/config"

    def _component_topic(self, key: str, part: Mapping[str, Any]) -> str:
        return f"{self._prefix}/{part['p']}/{self._node}/{key}/config"


def discovery_topics(prefix: str, node: str) -> tuple[str, str]:
    """Filters for all discovery messages of ``node``, by device and by component."""
    return f"{prefix}/device/netspot_{node}/config", f"{prefix}/+/netspot_{node}/+/config"


def declared(payload: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The components of a device's discovery message; nothing for what is none."""
    try:
        parts = json.loads(payload).get("cmps", {})
    except (ValueError, AttributeError, RecursionError):
        return
    if isinstance(parts, dict):
        yield from ((key, part) for key, part in parts.items() if isinstance(part, dict))


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def ha_remove(config: Config, wait_s: float = 1.0) -> str:
    """Clear everything that this node has retained on the broker, discovery and states; a line that says what was done.

    ``wait_s`` after the last retained message nothing more is expected. Raises NetspotError where the broker is away.
    """
    mqtt, node = config.exporter.mqtt, node_name(config)
    if mqtt.host is None:
        raise NetspotError(
            "exporter.mqtt.host is not set: there is no broker to clear; set it, or give --exporter.mqtt.host"
        )
    found: dict[str, float] = {}

    def receive(message: Incoming) -> None:
        if message.retain and message.payload:
            found[message.topic] = time.monotonic()

    topics = (*discovery_topics(mqtt.homeassistant.prefix, node), f"{mqtt.base}/{node}/#")
    link = Link(mqtt, f"netspot-remove-{node}", None, topics, receive)
    link.start()
    try:
        link.wait(10.0)
        began_s = time.monotonic()
        while time.monotonic() - max(list(found.values()), default=began_s) < wait_s:
            time.sleep(0.05)
        for topic in list(found):
            link.send(topic, "", 1, True)
    finally:
        link.close()
    return f"{len(found)} retained topics of node {node} cleared on {link.where}"
