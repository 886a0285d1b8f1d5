"""Search, led by coverage, for bytes that break the readers of captures (needs the package atheris).

python -m tests.fuzz_captures [-max_total_time=600] [FOLDER of seeds and findings]
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["netspot.miner"]):
    from tests.test_fuzz_captures import captures, read_whole

FILE = Path(tempfile.mkdtemp()) / "capture"


def one(data: bytes) -> None:
    """The first byte says what the others are: a file, or the seed of one."""
    read_whole(FILE, captures(random.Random(data[1:])) if data[:1] == b"\xff" else data)


atheris.Setup(sys.argv, one)
atheris.Fuzz()
