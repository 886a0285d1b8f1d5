"""The store of alarms that wait for the broker: bounded, in order, on disk while the disk works."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from netspot.exporters import spool as spool_module
from netspot.exporters.spool import Spool


def payloads(spool: Spool, limit: int = 100_000) -> list[str]:
    return [event.payload for event in spool.pending(0, limit)]


def fill(spool: Spool, first: int, last: int, size: int = 0) -> None:
    for number in range(first, last):
        spool.append("t", f"{number}".ljust(size))


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last)]


@pytest.mark.parametrize("on_disk", [True, False])
def test_first_in_first_out(tmp_path, on_disk):
    spool = Spool(tmp_path / "s.db" if on_disk else None, 1000)
    fill(spool, 0, 10)
    first = spool.pending(0, 3)
    assert [e.payload for e in first] == numbers(0, 3) and first[0].topic == "t"
    assert [e.payload for e in spool.pending(first[-1].id, 100)] == numbers(3, 10)
    spool.delete(e.id for e in first)
    assert payloads(spool) == numbers(3, 10) and len(spool) == 7
    spool.close()


def test_survives_a_restart_and_numbers_go_on(tmp_path):
    spool = Spool(tmp_path / "s.db", 1000)
    fill(spool, 0, 10)
    last = spool.pending(0, 10)[-1].id
    spool.close()
    spool = Spool(tmp_path / "s.db", 1000)
    fill(spool, 10, 12)
    assert payloads(spool) == numbers(0, 12) and spool.pending(last, 1)[0].payload == "10"
    spool.close()


@pytest.mark.parametrize("on_disk", [True, False])
def test_drops_and_counts_the_oldest(tmp_path, on_disk):
    spool = Spool(tmp_path / "s.db" if on_disk else None, 100)
    fill(spool, 0, 150)
    assert payloads(spool) == numbers(50, 150) and spool.dropped == 50
    spool.close()


def test_memory_is_bounded_without_a_folder(monkeypatch):
    monkeypatch.setattr(spool_module, "MEMORY", 50)
    spool = Spool(None, 1000)
    fill(spool, 0, 80)
    assert payloads(spool) == numbers(30, 80) and spool.dropped == 30


@pytest.mark.parametrize("on_disk", [True, False])
def test_behaves_like_a_list(tmp_path, on_disk):
    """Random appends and deletions, with restarts, against a plain list."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    path = tmp_path / "s.db" if on_disk else None
    spool, model, count = Spool(path, 60), [], 0
    for _ in range(400):
        match rng.randrange(4 if on_disk else 3):
            case 0 | 1:
                fill(spool, count, count + 1)
                model = [*model, str(count)][-60:]
                count += 1
            case 2:
                gone = rng.sample(spool.pending(0, 60), min(len(model), rng.randrange(4)))
                spool.delete([*(e.id for e in gone), 0, 10**9])
                model = [m for m in model if m not in {e.payload for e in gone}]
            case 3:
                spool.close()
                spool = Spool(path, 60)
        assert payloads(spool) == model, f"seed {seed}"
        assert len(spool) == len(model)


def test_kill_9_loses_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from netspot.exporters.spool import Spool\n"
        "s = Spool(Path(sys.argv[1]), 10**6)\n"
        "for n in range(10**6):\n s.append('t', str(n)); print(n, flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s.db")], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    for line in child.stdout:
        if int(line) >= 500:
            break
    child.send_signal(signal.SIGKILL)
    told = int((line + child.stdout.read()).split("\n")[-2] or line)
    child.wait()
    spool = Spool(tmp_path / "s.db", 10**6)
    found = payloads(spool)
    assert found == numbers(0, len(found)) and len(found) > told
    spool.close()


def test_no_alarm_no_write(tmp_path):
    spool = Spool(tmp_path / "s.db", 100)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    time.sleep(0.02)
    for _ in range(100):
        assert spool.pending(0, 10) == []
    spool.delete([])
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before
    spool.close()


def test_checkpoint_puts_everything_on_the_medium(tmp_path):
    spool = Spool(tmp_path / "s.db", 100)
    fill(spool, 0, 10)
    spool.checkpoint()
    (tmp_path / "s.db").rename(tmp_path / "copy.db")  # without the log: as after a power cut that lost it
    with sqlite3.connect(tmp_path / "copy.db") as db:
        assert db.execute("SELECT count(*) FROM event").fetchone() == (10,)


def test_a_broken_file_is_set_aside(tmp_path, caplog):
    (tmp_path / "s.db").write_bytes(b"this is no database" * 1000)
    spool = Spool(tmp_path / "s.db", 100)
    fill(spool, 0, 3)
    assert payloads(spool) == numbers(0, 3) and (tmp_path / "s.db.broken").exists()
    assert len(caplog.records) == 1
    spool.close()


def test_a_folder_that_is_missing_is_waited_for(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(spool_module, "RETRY_S", 0.0)
    spool = Spool(tmp_path / "no" / "s.db", 100)
    fill(spool, 0, 3)
    assert payloads(spool) == numbers(0, 3)
    (tmp_path / "no").mkdir()
    fill(spool, 3, 5)
    spool.close()
    again = Spool(tmp_path / "no" / "s.db", 100)
    assert payloads(again) == numbers(0, 5)
    again.close()
    assert len(caplog.records) == 1


@contextmanager
def small_disk(folder: Path):
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", folder]).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_falls_back_to_memory_with_one_warning(tmp_path, caplog, monkeypatch):
    with small_disk(tmp_path):
        spool = Spool(tmp_path / "s.db", 10_000)
        (tmp_path / "ballast").write_bytes(b"x" * 300_000)
        fill(spool, 0, 1000, 500)
        assert [p.strip() for p in payloads(spool)] == numbers(0, 1000) and spool.dropped == 0
        assert len(caplog.records) == 1 and "wait in memory" in caplog.text
        gone = spool.pending(0, 200)
        spool.delete(e.id for e in gone)  # the disk may take no change: they are gone all the same
        assert [p.strip() for p in payloads(spool)] == numbers(200, 1000) and len(spool) == 800
        (tmp_path / "ballast").unlink()
        monkeypatch.setattr(spool_module, "RETRY_S", 0.0)
        spool._retry_at_s = 0.0
        spool.delete(e.id for e in spool.pending(0, 700))
        fill(spool, 1000, 1001, 500)
        spool.close()
        again = Spool(tmp_path / "s.db", 10_000)
        assert [p.strip() for p in payloads(again)] == numbers(900, 1001)
        again.close()
        assert len(caplog.records) == 1


def test_a_read_only_disk_falls_back_to_memory(tmp_path, caplog):
    with small_disk(tmp_path):
        spool = Spool(tmp_path / "s.db", 100)
        fill(spool, 0, 5)
        spool.close()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        spool = Spool(tmp_path / "s.db", 100)
        fill(spool, 5, 10)
        assert payloads(spool)[-5:] == numbers(5, 10)
        assert len(caplog.records) == 1
        spool.close()


class BadDisk:
    """A connection to a disk that gives nothing back: what such a disk does can't be had without one."""

    in_transaction = False

    def execute(self, *args):
        raise sqlite3.DatabaseError("database disk image is malformed")

    executemany = execute

    def close(self):
        pass


def test_a_smaller_bound_on_an_unreadable_disk_ends_and_keeps_the_new(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(spool_module, "MEMORY", 50)
    spool = Spool(tmp_path / "s.db", 1000)
    fill(spool, 0, 300)
    spool.close()
    spool = Spool(tmp_path / "s.db", 100)
    good, spool._db = spool._db, BadDisk()
    fill(spool, 300, 310)
    assert payloads(spool) == numbers(300, 310) and spool.dropped == 0
    fill(spool, 310, 360)
    assert payloads(spool) == numbers(310, 360) and spool.dropped == 10
    spool._db, spool._retry_at_s = good, 0.0
    fill(spool, 360, 361)
    assert payloads(spool) == [*numbers(251, 300), *numbers(310, 361)]
    assert len(caplog.records) == 1
    spool.close()


def test_a_full_spool_whose_disk_takes_no_change_drops_the_oldest(tmp_path):
    with small_disk(tmp_path):
        spool = Spool(tmp_path / "s.db", 40)
        fill(spool, 0, 40)
        subprocess.run(
            ["dd", "if=/dev/zero", f"of={tmp_path}/ballast", "bs=4k"], stderr=subprocess.DEVNULL
        )  # to the end
        fill(spool, 40, 60, 4000)
        assert spool._rows == 40 and len(spool._memory) == 20
        assert [p.strip() for p in payloads(spool)] == numbers(20, 60) and spool.dropped == 20
        (tmp_path / "ballast").unlink()
        spool.close()


def test_a_smaller_bound_is_reached_at_once(tmp_path):
    spool = Spool(tmp_path / "s.db", 10_000)
    spool._memory.extend(spool_module.Spooled(number, "t", "x" * 800) for number in range(1, 10_000))
    spool._next = 10_000
    spool.append("t", "y")
    spool.close()
    spool = Spool(tmp_path / "s.db", 100)
    began_s = time.process_time()
    spool.append("t", "z")
    assert time.process_time() - began_s < 1.0
    assert len(spool) == len(spool.pending(0, 1000)) == 100 and spool.dropped == 9901
    spool.close()


def test_a_broken_file_on_a_read_only_disk_is_left_and_memory_serves(tmp_path, caplog):
    with small_disk(tmp_path):
        (tmp_path / "s.db").write_bytes(b"this is no database" * 1000)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        spool = Spool(tmp_path / "s.db", 100)
        fill(spool, 0, 5)
        assert payloads(spool) == numbers(0, 5) and len(caplog.records) == 1
        spool.close()


def test_the_log_is_worked_off_by_the_checkpoint_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "LOG_BYTES", 1 << 20)
    spool = Spool(tmp_path / "s.db", 10_000)
    before = (tmp_path / "s.db").stat().st_size
    for number in range(2000):
        spool.append("t", "x" * 1500)
        spool.delete([number + 1])
    assert (tmp_path / "s.db").stat().st_size == before  # so nothing was forced out meanwhile
    assert spool.log_is_long
    spool.checkpoint()
    fill(spool, 0, 1)
    assert not spool.log_is_long
    spool.close()
