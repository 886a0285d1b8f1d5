"""paho clients of either generation (1.6 and 2.x) made from the configuration."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from netspot.errors import ConfigError

if TYPE_CHECKING:
    from netspot.config import MqttConfig

GENERATION: Any = getattr(paho, "CallbackAPIVersion", None)
PAHO_2 = GENERATION is not None
PROPERTIES: Any = Properties
INBOUND_BYTES = 65_536  # the largest message that an MQTT 5 broker may send here
QUEUED = 100  # messages that paho itself may hold; the queues that count are ours


def check(config: MqttConfig) -> None:
    """Raises ConfigError for settings that can never work."""
    if config.transport == "unix" and not PAHO_2:
        raise ConfigError("exporter.mqtt.transport = unix: needs paho-mqtt 2; use tcp, or Debian 13")
    if config.transport not in ("tcp", "websockets", "unix"):
        raise ConfigError(f"exporter.mqtt.transport = {config.transport}: tcp, websockets or unix")
    if any(char in config.base for char in "+#\0") or not config.base:
        raise ConfigError(f"exporter.mqtt.base = {config.base}: a topic without + and #")


def topic_level(name: str) -> str:
    """``name`` of a statistic as one level of a topic: FANOUT_PORTS@60s becomes FANOUT_PORTS_60s."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def port(config: MqttConfig) -> int:
    return config.port or (8883 if config.tls else 1883)


def tls_context(config: MqttConfig) -> ssl.SSLContext:
    """Raises ConfigError for certificates that cannot be read."""

    class Context(ssl.SSLContext):
        """Asks for, and verifies, perhaps another name than that of the host in the configuration (SNI)."""

        def wrap_socket(self, sock: Any, *args: Any, **more: Any) -> ssl.SSLSocket:
            if config.server_name:
                more["server_hostname"] = config.server_name
            return super().wrap_socket(sock, *args, **more)

    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if config.ca:
            context.load_verify_locations(config.ca)
        else:
            context.load_default_certs()
        if config.cert:
            context.load_cert_chain(config.cert, config.key, password=lambda: "")  # never ask on the terminal
    except OSError as error:  # ssl.SSLError too
        shown = f"{config.ca or ''} {config.cert or ''} {config.key or ''}".strip()
        raise ConfigError(f"exporter.mqtt.ca, cert, key = {shown}: {error.strerror or error}; give PEM files") from None
    if config.tls_insecure:
        context.check_hostname = False  # the authority is still checked
    return context


def new_client(config: MqttConfig, client_id: str, version5: bool, tls: ssl.SSLContext | None) -> Any:
    """A paho client of either generation, without callbacks."""
    more: dict[str, Any] = {"client_id": client_id, "transport": config.transport}
    more |= {"protocol": paho.MQTTv5} if version5 else {"protocol": paho.MQTTv311, "clean_session": True}
    client = paho.Client(GENERATION.VERSION2, **more) if PAHO_2 else paho.Client(**more)
    client.max_queued_messages_set(QUEUED)
    if config.username is not None:
        client.username_pw_set(config.username, config.password)
    if tls is not None:
        client.tls_set_context(tls)
        if config.tls_insecure:
            client.tls_insecure_set(True)
    if config.transport == "websockets":
        client.ws_set_options(path=config.ws_path)
    return client


def connect(client: Any, config: MqttConfig, version5: bool) -> None:
    """Look up the name, connect, shake hands: blocks for some seconds. Raises OSError."""
    more: dict[str, Any] = {}
    if version5:
        more["properties"] = properties = PROPERTIES(PacketTypes.CONNECT)
        properties.MaximumPacketSize = INBOUND_BYTES
        more["clean_start"] = True
    client.connect(config.host, port(config), max(1, round(config.keepalive_s)), **more)


def correlated(data: bytes) -> dict[str, Any]:
    """The argument of ``publish`` that carries the correlation data of a request, in MQTT 5."""
    properties = PROPERTIES(PacketTypes.PUBLISH)
    properties.CorrelationData = data
    return {"properties": properties}
