"""A node that only tells alarms: a process of its own, so that it can be killed.

usage: python -m tests.bench.mqtt_node SETTINGS   (JSON: mqtt, state_dir, first, last, per_s)
Prints every number once its alarm is in the exporter's hands; ends when the broker has taken all.
"""

from __future__ import annotations

import json
import os
import sys
import time

from netspot.config import HomeAssistantConfig, MqttConfig
from netspot.events import Alarm
from netspot.exporters.base import Context, Message
from netspot.exporters.mqtt import MqttExporter

OFF = HomeAssistantConfig(discovery="off")


def alarm(number: int) -> Alarm:
    evidence = {"top_src": [["192.168.1.23", 0.94], ["192.168.1.7", 0.03]], "ports": list(range(20))}
    return Alarm("R_SYN", time.time_ns(), 0.71, "up", 0.093, 3.1e-7, "pi-6f2c", number, "high", evidence=evidence)


def main(settings: dict) -> None:
    context = Context("pi", "eth0", "3.0.0", settings["state_dir"], live=True)
    exporter = MqttExporter(MqttConfig(**settings["mqtt"], homeassistant=OFF), context)
    exporter.start()
    began_s = time.monotonic()
    for number in range(settings["first"], settings["last"]):
        while time.monotonic() < began_s + (number - settings["first"]) / settings["per_s"]:
            exporter.poll()
            time.sleep(0.005)
        event = alarm(number)
        exporter.write(event, Message(event, "pi", "eth0"))
        os.write(1, b"%d\n" % number)
    while exporter.health()["spool"]:
        exporter.poll()
        time.sleep(0.005)
    exporter.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
