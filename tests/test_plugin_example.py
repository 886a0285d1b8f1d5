"""The example of an extension, found by its entry points as an installed package is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from netspot.analyzer.stats import known
from netspot.config import load
from netspot.miner import counters
from netspot.miner.capfile import CaptureFile
from netspot.service import Service
from tests.frames import START_NS, eth, ip4, pcap, tcp, udp

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip would write beside the module: its metadata, made of pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.mark.usefixtures("installed")
def test_its_counters_and_statistics_are_known() -> None:
    found = counters.known({})
    assert found["MDNS"].unit == "packet" and "MDNS_SOURCES" in found
    assert {"MDNS", "MDNS_TALKERS"} <= set(known({}, found))


@pytest.mark.usefixtures("installed")
def test_it_watches_and_exports(tmp_path: Path) -> None:
    def mdns(host: int) -> bytes:
        return eth(ip4(udp(sport=5353, dport=5353), src=f"192.168.1.{host}", dst="224.0.0.251"))

    frames, times = [], []
    for second in range(140):
        for i in range(40 if second == 130 else 2):
            frames += [mdns(i + 1), eth(ip4(tcp()))]
            times += [START_NS + second * 10**9 + i * 10**7] * 2
    (tmp_path / "home.pcap").write_bytes(pcap(frames, times, nanoseconds=True))
    options = {
        "analyzer.stats": "[MDNS, MDNS_TALKERS]", "analyzer.false_alarms_per_day": "100",
        "spot.n_init": "100", "spot.level": "0.9", "state.dir": str(tmp_path), "evidence.pcap": "false",
        "exporter.console.alarm": "false",
    }  # fmt: skip
    config = load(None, overrides=list(options.items()))
    service = Service(config, lambda _: CaptureFile(str(tmp_path / "home.pcap")))
    service.run()
    assert service.analyzer.alarms == 2
    assert (tmp_path / "tally").read_text().startswith("1 MDNS")
