"""Why a broker cannot be used, in words that say what to mend."""

from __future__ import annotations

import socket
import ssl
from typing import Any

CODES = {  # CONNACK of MQTT 3.1.1 (below 128) and reason codes of MQTT 5
    1: "the broker does not speak this version of MQTT; set mqtt.protocol",
    2: "the broker refuses this client id; set mqtt.client_id",
    3: "the broker says that it is not available",
    4: "wrong user or password",
    5: "not authorised: wrong user or password, or an account that may not connect",
    130: "the broker says that the protocol was violated",
    132: "the broker does not speak this version of MQTT; set mqtt.protocol",
    133: "the broker refuses this client id; set mqtt.client_id",
    134: "wrong user or password",
    135: "not authorised: wrong user or password, or an account that may not do this",
    136: "the broker says that it is not available",
    137: "the broker is busy",
    138: "the broker has banned this client",
    139: "the broker is shutting down",
    140: "the broker wants another way to authenticate",
    141: "the broker heard nothing for too long",
    142: "another client came with the same client id; give every node a name of its own",
    149: "the message was too large for the broker",
    151: "the broker's quota is used up",
    155: "the broker does not offer this quality of service",
    156: "use another server",
    157: "the server was moved",
    159: "too many connections for the broker",
}

CERTIFICATE = {  # X509_V_ERR_* of OpenSSL
    9: "the broker's certificate is not valid yet: is this machine's clock right?",
    10: "the broker's certificate has expired",
    18: "the broker's certificate is signed by itself: give it as mqtt.ca",
    19: "the broker's certificate is not signed by a known authority: give the authority's as mqtt.ca",
    20: "the broker's certificate is not signed by a known authority: give the authority's as mqtt.ca",
    62: "the broker's certificate is for another name: set mqtt.server_name to the name that it carries",
    64: "the broker's certificate is for another address: set mqtt.server_name to the name that it carries",
}

NO_ECHO = (
    "the broker takes messages but does not pass on {topic}: its access rules must let this account "
    "write and read {base}/#"
)
CLOSED = (
    "the broker closed the connection before it answered: wrong port, TLS on one side only, "
    "a missing client certificate, or a version of MQTT that it does not know"
)

AGAIN = (
    "the connection is lost again and again: does another client call itself {client_id}? Each node needs its own name"
)


def of_code(code: Any) -> str:
    """The words for a CONNACK, DISCONNECT, SUBACK or PUBACK code of any paho version."""
    number = value(code)
    return CODES.get(number, f"the broker says: {code}" if number != code else f"the broker refuses with code {number}")


def value(code: Any) -> int:
    """The number behind what paho passes: an int, or an object with a ``value``."""
    number = getattr(code, "value", code)
    return number if isinstance(number, int) else 0


def of_error(error: BaseException, where: str) -> str:
    """The words for an exception while connecting to ``where``."""
    match error:
        case ssl.SSLCertVerificationError():
            return CERTIFICATE.get(
                error.verify_code, f"the broker's certificate cannot be verified: {error.verify_message}"
            )
        case ssl.SSLEOFError() | ConnectionResetError() | BrokenPipeError():
            return CLOSED
        case ssl.SSLError():
            return _tls(error)
        case socket.gaierror():
            return f"the name in {where} is unknown ({error.strerror})"
        case ConnectionRefusedError():
            return f"nothing listens on {where}: port closed, or the broker is not running"
        case TimeoutError():
            return f"no answer from {where} in time: machine off, or a firewall between"
        case FileNotFoundError():
            return f"no such file: {error.filename or where}"
        case OSError():
            return f"{where}: {error.strerror or error}"
        case _:
            return f"{where}: {error}"


def _tls(error: ssl.SSLError) -> str:
    text = f"{error.reason or error}".lower().replace("_", " ")
    if "certificate required" in text or "handshake failure" in text:
        return "the broker wants a client certificate: give mqtt.cert and mqtt.key"
    if "eof occurred" in text:
        return CLOSED
    if "unknown ca" in text:
        return "the broker does not know the authority that signed the client certificate (mqtt.cert)"
    if "certificate expired" in text:
        return "the client certificate (mqtt.cert) has expired"
    if "wrong version number" in text or "record layer" in text:
        return "the broker does not speak TLS on this port: set another mqtt.port, or mqtt.tls: false"
    return f"TLS failed: {text}"
