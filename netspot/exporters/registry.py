"""The exporters by name; a class is imported only when the configuration uses it."""

from __future__ import annotations

EXPORTERS: dict[str, str] = {  # section of the configuration -> module:class
    "console": "netspot.exporters.console:ConsoleExporter",
    "file": "netspot.exporters.file:FileExporter",
    "mqtt": "netspot.exporters.mqtt:MqttExporter",
    "socket": "netspot.exporters.socket:SocketExporter",
    "influxdb": "netspot.exporters.influxdb:InfluxExporter",
}
