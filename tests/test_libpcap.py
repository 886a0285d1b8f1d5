"""The python-libpcap backend, with real packets; skipped where that package is missing."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from netspot.config import MinerConfig
from netspot.errors import SourceError
from netspot.miner.devices import open_live
from netspot.packets import COLUMNS
from tests import frames as f
from tests.netns import needs, veth
from tests.test_ring import FRAMES, back, capture_of, collect, column, counted, overload, replay


def test_without_the_package_the_error_says_how_to_get_it():
    code = (
        "import sys; sys.modules['pylibpcap'] = None\n"
        "from netspot.config import MinerConfig; from netspot.miner.devices import open_live\n"
        "try: open_live(MinerConfig(device='lo', backend='libpcap'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert text.startswith("SourceError miner.backend libpcap: python-libpcap is missing")
    assert "pip install python-libpcap==0.5.4" in text and "miner.backend: ring" in text


@pytest.fixture(scope="module")
def pair():
    pytest.importorskip("pylibpcap", reason="python-libpcap is not installed")
    with veth(mtu=9000) as pair:
        yield pair


@pytest.fixture
def listening(pair):
    opened = []
    with pair[0].entered():

        def listen(**settings):
            opened.append(open_live(MinerConfig(**{"device": "veth0", "backend": "libpcap", **settings})))
            return opened[-1]

        yield listen
        for source in opened:
            source.close()


@needs("tcpreplay")
@pytest.mark.parametrize("snapshot_len", [192, 1514])
def test_replayed_capture_gives_the_columns_of_the_file(pair, listening, tmp_path, snapshot_len):
    source = listening(snapshot_len=snapshot_len)
    replay(pair[1], capture_of(FRAMES * 20, tmp_path), "--pps=5000")
    batches = collect(source, len(FRAMES) * 20)
    expected = f.batch(FRAMES * 20, home=source._home)
    for name in set(COLUMNS) - {"ts_ns"}:
        assert column(batches, name).tolist() == getattr(expected, name).tolist(), name
    assert abs(int(column(batches, "ts_ns")[-1]) - time.time_ns()) < 5 * 10**9


@needs("tcpreplay")
def test_any(pair, listening, tmp_path):
    source = listening(device="any", filter="udp")
    replay(pair[1], capture_of(FRAMES * 20, tmp_path), "--pps=5000")
    got = np.concatenate([batch.is_udp for batch in collect(source, 21, 1)])
    assert got.all() and len(got) == 20  # behind tags, labels and extension headers a filter does not look


def test_silence_takes_the_timeout_and_little_cpu(listening):
    source = listening()
    begin, cpu = time.monotonic(), time.process_time()
    batch = source.read(0.5)
    assert len(batch) == 0 and 0.45 < time.monotonic() - begin < 1
    assert time.process_time() - cpu < 0.02


@needs("trafgen")
def test_overload_is_counted_exactly(pair, listening):
    counted, dropped = overload(listening(), pair[1], 100_000)
    assert counted + dropped == 100_000
    assert dropped > 0


@needs("trafgen")
def test_interface_goes_down_away_and_back(pair, caplog):
    with veth() as (near, far), near.entered():
        source = open_live(MinerConfig(device="veth0", backend="libpcap"))
        assert counted(source, far) == 5
        near.ip("link", "set", "veth0", "down")
        source.read(0.1)
        near.ip("link", "set", "veth0", "up")
        assert back(source, far)
        source.close()


def test_bad_filter_has_the_words_of_libpcap(listening):
    with pytest.raises(SourceError, match=r"miner.filter 'tcp prot 3': .*syntax error"):
        listening(filter="tcp prot 3")
