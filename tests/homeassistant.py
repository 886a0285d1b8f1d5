"""A real Home Assistant without a screen: only its API and its MQTT integration.

Set NETSPOT_HOMEASSISTANT to a Python that has homeassistant (2025.4.4 is the last for 3.13.0), paho-mqtt, aiohttp_cors
and ifaddr; docs/home-assistant.md shows how.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from tests.broker import free_port, wait_for

PYTHON = os.environ.get("NETSPOT_HOMEASSISTANT")
needs_homeassistant = pytest.mark.skipif(not PYTHON, reason="NETSPOT_HOMEASSISTANT names no Python with homeassistant")

MAIN = """
import sys
from homeassistant import bootstrap
for group in ("DEFAULT_INTEGRATIONS", "DEFAULT_INTEGRATIONS_RECOVERY_MODE",
              "CRITICAL_INTEGRATIONS", "FRONTEND_INTEGRATIONS"):
    getattr(bootstrap, group, set()).clear()  # a page and the rest need packages and the internet
from homeassistant.__main__ import main
sys.argv = ["hass", "--config", sys.argv[1], "--skip-pip", *sys.argv[2:]]
sys.exit(main())
"""
TOKEN = (
    "import jwt, sys, time; now = int(time.time());"
    "print(jwt.encode({'iss': sys.argv[1], 'iat': now, 'exp': now + 86400}, sys.argv[2], 'HS256'))"
)


class HomeAssistant:
    """Its configuration lives in ``folder``; ``more`` is added to configuration.yaml."""

    def __init__(self, folder: Path, mqtt_port: int, more: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        (folder / ".storage").mkdir(parents=True)
        self._configure(mqtt_port, more)

    def _configure(self, mqtt_port: int, more: str) -> None:
        (self.folder / "configuration.yaml").write_text(
            "homeassistant: {name: test, latitude: 0, longitude: 0, elevation: 0, time_zone: UTC, country: FR}\n"
            f"http: {{server_host: 127.0.0.1, server_port: {self.port}}}\napi:\n"
            f"logger: {{default: info, logs: {{homeassistant.components.mqtt: debug}}}}\n{more}"
        )
        entry = {
            "entry_id": secrets.token_hex(16), "version": 1, "minor_version": 1, "domain": "mqtt", "title": "broker",
            "data": {"broker": "127.0.0.1", "port": mqtt_port, "discovery": True, "discovery_prefix": "homeassistant"},
            "options": {}, "pref_disable_new_entities": False, "pref_disable_polling": False, "source": "user",
            "unique_id": None, "disabled_by": None,
        }  # fmt: skip
        user, token, key = (secrets.token_hex(32) for _ in range(3))
        person = {
            "id": user, "group_ids": ["system-admin"], "is_owner": True, "is_active": True, "name": "test",
            "system_generated": False, "local_only": False,
        }  # fmt: skip
        refresh = {
            "id": token, "user_id": user, "client_id": None, "client_name": "test", "client_icon": None,
            "token_type": "long_lived_access_token", "created_at": datetime.now(UTC).isoformat(),
            "access_token_expiration": 1e8, "token": secrets.token_hex(32), "jwt_key": key, "last_used_at": None,
            "last_used_ip": None, "expire_at": None, "credential_id": None, "version": None,
        }  # fmt: skip
        groups = [{"id": f"system-{kind}", "name": kind} for kind in ("admin", "users", "read-only")]
        self._store("core.config_entries", {"entries": [entry]}, 1)
        self._store("auth", {"users": [person], "groups": groups, "credentials": [], "refresh_tokens": [refresh]}, 1)
        self._store("onboarding", {"done": ["user", "core_config", "analytics", "integration"]}, 4)
        assert PYTHON
        command = [PYTHON, "-c", TOKEN, token, key]
        self._bearer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def _store(self, name: str, data: object, version: int) -> None:
        whole = {"version": version, "minor_version": 1, "key": name, "data": data}
        (self.folder / ".storage" / name).write_text(json.dumps(whole))

    def start(self) -> HomeAssistant:
        assert PYTHON
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen([PYTHON, "-c", MAIN, str(self.folder)], stdout=output, stderr=output)
        wait_for(self.running, 90, "Home Assistant runs")
        return self

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self.process = None

    def running(self) -> bool:
        assert self.process and self.process.poll() is None, self.log()
        try:
            return self.call("/api/config")["state"] == "RUNNING"
        except (URLError, OSError):
            time.sleep(0.2)
            return False

    def call(self, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self._bearer}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def states(self) -> dict[str, dict[str, Any]]:
        """Entity id -> state and attributes."""
        return {one["entity_id"]: one for one in self.call("/api/states")}

    def state(self, entity: str) -> str | None:
        found = self.states().get(entity)
        return found["state"] if found else None

    def log(self) -> str:
        path = self.folder / "home-assistant.log"
        return path.read_text() if path.exists() else (self.folder / "output").read_text()

    def complaints(self) -> list[str]:
        """Lines at WARNING or above that speak of us, or of MQTT at all."""
        lines = [line for line in self.log().splitlines() if " WARNING " in line or " ERROR " in line]
        return [line for line in lines if "netspot" in line or "components.mqtt" in line]
