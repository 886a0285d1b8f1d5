"""The program's windows against those of another program that made the traffic, cell by cell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(os.environ.get("NETSPOT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
GENERATOR = SHARED / "tools" / "homenet.py"
MINUTES = 60
HOME = "[192.168.1.0/24, 2001:db8::/48]"
OTHER_NAMES = {"IP4": "IPV4", "IP6": "IPV6"}


@pytest.mark.skipif(not GENERATOR.exists(), reason=f"{GENERATOR} is not there; NETSPOT_SHARED names the folder")
def test_an_hour_of_windows_agrees_cell_by_cell(tmp_path: Path) -> None:
    truth, counted, capture = tmp_path / "truth.csv", tmp_path / "counted.csv", tmp_path / "home.pcap"
    make = [GENERATOR, "--minutes", str(MINUTES), "--seed", "7", "--out", capture, "--counters", truth]
    subprocess.run([sys.executable, *make], check=True, capture_output=True)
    run = ["-m", "netspot", "run", "-f", capture, "--counters", counted, "--miner.home_nets", HOME]
    subprocess.run([sys.executable, *run], check=True, capture_output=True)
    theirs = np.genfromtxt(truth, delimiter=",", names=True)
    ours = np.genfromtxt(counted, delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert len(ours) == len(theirs) == MINUTES * 60
    names = [name for name in theirs.dtype.names if OTHER_NAMES.get(name, name) in ours.dtype.names]
    assert {"PKTS", "IP4", "IP6", "ARP", "SYN", "IP_BYTES", "NB_UNIQ_SRC_ADDR", "NB_UNIQ_DST_PORT"} <= set(names)
    wrong = {name: int((theirs[name] != ours[OTHER_NAMES.get(name, name)]).sum()) for name in names}
    assert wrong == dict.fromkeys(names, 0)
