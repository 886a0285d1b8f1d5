"""The demo shows what it promises: every attack is seen, in half a minute, and the same on every machine."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from netspot.demo import ATTACKS, MINUTES, SPEED, demo, write_capture
from netspot.errors import ConfigError


def test_it_fits_into_half_a_minute() -> None:
    assert MINUTES * 60 / SPEED < 30


def test_the_same_seed_makes_the_same_network(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert write_capture(tmp_path / name, seed) > 200_000
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_beside_a_service_it_ends_before_it_has_begun(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="already in use"):
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        demo(1, False, str(tmp_path / "kept.pcap"), [("web.listen", listen)])
    assert not any(tmp_path.iterdir())


def test_every_attack_is_seen() -> None:
    call = "import sys; from netspot.demo import demo; sys.exit(demo(1, False, None, [('web.listen', 'off')], 4000.0))"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for attack in ATTACKS:
        assert any(line.strip().startswith(attack.name) and "seen after" in line for line in done.stderr.splitlines())
    assert '"kind":"alarm"' in done.stdout
