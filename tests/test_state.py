"""What was learned survives restarts, crashes, other machines and other programs' files."""

import base64
import errno
import hashlib
import json
import logging
import os
import random
import signal
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from netspot import state
from netspot.errors import ConfigError
from netspot.spot import Spot

SEED = 5
KILLS = 200


def learnt(seed: int = SEED, **options: object) -> Spot:
    spot = Spot(n_init=200, **options)
    for x in np.random.default_rng(seed).standard_normal(2000).tolist():
        spot.update(x)
    return spot


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_is_loaded_is_what_was_saved(tmp_path, caplog):
    spots = {"R_SYN": learnt(range=(0, 1)), "PKTS@60": learnt(2, down=True, depth=5), "NEW": Spot()}
    state.save(tmp_path / "a" / "b", {name: spot.state() for name, spot in spots.items()}, {"seq": 41})
    states, meta = state.load(tmp_path / "a" / "b")
    assert meta == {"seq": 41} and states.keys() == spots.keys()
    for name, spot in spots.items():
        again = Spot.restore(states[name])
        assert again.parameters == spot.parameters
        for x in np.random.default_rng(3).standard_normal(2000).tolist():
            assert again.update(x) == spot.update(x)
    assert not warnings(caplog)


def test_a_full_disk_keeps_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    state.save(tmp_path, {}, {"seq": 41})

    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("netspot.state.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        state.save(tmp_path, {}, {"seq": 42})
    assert [path.name for path in tmp_path.iterdir()] == [state.FILE]
    assert state.load(tmp_path) == ({}, {"seq": 41})


def test_no_file_is_no_trouble(tmp_path, caplog):
    assert state.load(tmp_path) == state.load(tmp_path / "missing") == ({}, {})
    assert not warnings(caplog)


def test_arrays_are_little_endian_whatever_the_machine(tmp_path):
    numbers = [1.0, -2.5e-300, 5e-324]
    value = {"x": np.array(numbers).astype(">f8")}
    state.save(tmp_path, {"A": value}, {})
    body = json.loads((tmp_path / state.FILE).read_bytes().partition(b"\n")[2])
    assert body["detectors"]["A"]["x"] == {"f8": base64.b64encode(struct.pack("<3d", *numbers)).decode()}
    assert state.load(tmp_path)[0]["A"]["x"].tolist() == numbers


def test_the_file_stays_small(tmp_path):
    spot = learnt(max_excess=1000, level=0.4).state()
    assert len(spot["up"]["excesses"]) == 1000
    state.save(tmp_path, {str(i): spot for i in range(75)}, {})
    assert (tmp_path / state.FILE).stat().st_size < 2 << 20


def signed(body: bytes, **head: object) -> bytes:
    known = {"format": state.FORMAT, "version": state.VERSION, "bytes": len(body)}
    return json.dumps({**known, "sha256": hashlib.sha256(body).hexdigest(), **head}).encode() + b"\n" + body


WHOLE = signed(b'{"meta":{},"detectors":{"A":{"n":1}}}')
BAD = {
    "empty": b"",
    "zeros": bytes(4096),
    "noise": random.Random(SEED).randbytes(4096),
    "text": b"hello\nworld\n",
    "another JSON": b"[1, 2]\n{}",
    "another format": signed(b"{}", format="other"),
    "the future": signed(b'{"meta":{},"detectors":{}}', version=state.VERSION + 1),
    "the past": signed(b'{"meta":{},"detectors":{}}', version=None),
    "cut short": WHOLE[:-1],
    "too long": WHOLE + b"x",
    "a bit flipped": WHOLE[:-3] + bytes([WHOLE[-3] ^ 1]) + WHOLE[-2:],
    "checksum flipped": signed(b'{"meta":{},"detectors":{}}', sha256="0" * 64),
    "not JSON inside": signed(b"nope"),
    "a list inside": signed(b"[]"),
    "a part missing": signed(b'{"meta":{}}'),
    "bad base64": signed(b'{"meta":{},"detectors":{"A":{"x":{"f8":"!"}}}}'),
    "bad length": signed(b'{"meta":{},"detectors":{"A":{"x":{"f8":"AAAA"}}}}'),
    "deep": signed(b'{"meta":' + b"[" * 100_000 + b"]" * 100_000 + b',"detectors":{}}'),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_set_aside_with_one_warning(content, tmp_path, caplog):
    (tmp_path / state.FILE).write_bytes(content)
    assert state.load(tmp_path) == ({}, {})
    assert len(warnings(caplog)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"{state.FILE}.bad"]
    assert (tmp_path / f"{state.FILE}.bad").read_bytes() == content
    state.save(tmp_path, {}, {"seq": 1})
    assert state.load(tmp_path) == ({}, {"seq": 1}) and len(warnings(caplog)) == 1


def test_every_flipped_byte_is_noticed(tmp_path, caplog):
    """Flips in the header may spell another known header by no chance; flips in the body change the checksum."""
    for i in range(len(WHOLE)):
        (tmp_path / state.FILE).write_bytes(WHOLE[:i] + bytes([WHOLE[i] ^ 0x10]) + WHOLE[i + 1 :])
        loaded = state.load(tmp_path)
        assert loaded in (({}, {}), ({"A": {"n": 1}}, {}))
        if i > WHOLE.index(b"\n"):
            assert loaded == ({}, {})


def test_a_folder_in_its_place_is_left_alone(tmp_path, caplog):
    (tmp_path / state.FILE).mkdir()
    assert state.load(tmp_path) == ({}, {}) and len(warnings(caplog)) == 1
    with pytest.raises(OSError):
        state.save(tmp_path, {}, {})


@pytest.mark.parametrize("wrong", [{}, {"version": 99}, {"n": None}, "text", None, 3])
def test_one_foreign_detector_is_a_value_error_of_its_own(wrong):
    with pytest.raises(ValueError):
        Spot.restore(wrong)


def write_for_ever(folder: Path, generation: int, told: int) -> None:
    while True:
        generation += 1
        state.save(folder, {"A": {"x": np.full(20_000, float(generation))}}, {"generation": generation})
        os.write(told, f"{generation}\n".encode())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_moment_the_file_is_the_old_or_the_new_one(tmp_path, caplog):
    draw, seen, killed_within = random.Random(SEED), 0, 0
    for _ in range(KILLS):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                write_for_ever(tmp_path, seen, writing)
            finally:
                os._exit(1)
        os.close(writing)
        time.sleep(draw.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        with os.fdopen(reading) as lines:
            last = max(map(int, lines), default=seen)
        states, meta = state.load(tmp_path)
        if last or meta:
            # What was told as saved is there; what was being written then may be there too, whole.
            assert meta["generation"] in (last, last + 1)
            assert np.array_equal(states["A"]["x"], np.full(20_000, float(meta["generation"])))
            seen = meta["generation"]
        killed_within += (tmp_path / f".{state.FILE}.new").exists()
    assert seen > 0 and killed_within > 0 and not warnings(caplog)


def test_a_folder_has_one_netspot_at_a_time(tmp_path):
    first = state.hold(tmp_path / "state")
    with pytest.raises(ConfigError, match=rf"state\.dir = .*/state: another netspot, process {os.getpid()}, has "):
        state.hold(tmp_path / "state")
    first.close()
    state.hold(tmp_path / "state").close()


def test_a_file_system_without_locks_or_without_room_is_used_all_the_same(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    state.hold(tmp_path).close()
    assert warnings(caplog) == [f"{tmp_path}: nobody can be kept out of it: No locks available"]


def test_the_kernel_frees_the_folder_of_a_netspot_that_was_killed(tmp_path):
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = state.hold(tmp_path)
        os.write(tell, b"x" if held else b"")
        signal.pause()
    os.read(ready, 1)
    with pytest.raises(ConfigError, match=str(pid)):
        state.hold(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    state.hold(tmp_path).close()
    assert (tmp_path / state.LOCK).read_text() == f"{os.getpid()}\n"
