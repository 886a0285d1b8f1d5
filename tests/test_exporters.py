"""The exporters that need no peer, their fan-out, and what holds for every exporter."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from netspot.config import ConsoleConfig, ExporterConfig, FileConfig
from netspot.errors import ConfigError
from netspot.events import Alarm, Health, Incident, Relearn, Sample
from netspot.exporters import fanout
from netspot.exporters.base import Context, Message
from netspot.exporters.console import ConsoleExporter, human
from netspot.exporters.fanout import Exporters
from netspot.exporters.file import FileExporter, RotatingFile
from netspot.exporters.registry import EXPORTERS
from netspot.record import replace

CONTEXT = Context(node="pi", series="eth0", version="3.0.0", state_dir=None)
T = 1_795_514_401_000_000_000
SAMPLE = Sample("R_SYN", T, 0.0417, "1", 0.093, None, "watching", 1000, 1000)
ALARM = Alarm("R_SYN", T, 0.71, "up", 0.093, 3.1e-7, "pi-6f2c", 41, "high")
INCIDENT = Incident("pi-6f2c", T, "opened", 42, "port scan", ("R_SYN",), T, None, {"stat": "R_SYN"})
RELEARN = Relearn("R_SYN", T, "asked for")
HEALTH = Health(T, {"phase": "watching", "captured": 10, "dropped": 0})
EVENTS = (SAMPLE, ALARM, INCIDENT, RELEARN, HEALTH)


def message(event) -> Message:
    return Message(event, "pi", "eth0")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_exporter_keeps_the_contract(name):
    module, _, class_name = EXPORTERS[name].partition(":")
    made = getattr(import_module(module), class_name)(getattr(ExporterConfig(), name), CONTEXT)
    assert made.kinds <= {Sample, Alarm, Incident, Relearn, Health}
    assert made.health()["dropped"] == 0
    made.close()  # without a start


def test_only_what_is_configured_is_imported():
    code = (
        "import sys; from netspot.config import ExporterConfig; from netspot.exporters.base import Context;"
        "from netspot.exporters.fanout import Exporters;"
        "e = Exporters(ExporterConfig(), Context('pi', 'eth0', '3', None)); assert len(e.health()) == 1, e.health();"
        "print([m for m in ('paho', 'sqlite3', 'http.client', 'gzip', 'ssl', 'socket') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_failing_exporter_never_touches_another(monkeypatch, caplog):
    got = []

    class Good:
        kinds = frozenset({Sample})

        def __init__(self, section, context): ...
        def start(self): ...
        def write(self, event, message):
            got.append(message["stat"])

        def health(self):
            return {"dropped": 2}

        def close(self):
            got.append("closed")

    class Bad(Good):
        def write(self, event, message):
            raise OSError("no space left")

        def health(self):
            raise ValueError("no health")

        def close(self):
            raise RuntimeError("cannot close")

    module = SimpleNamespace(Good=Good, Bad=Bad)
    monkeypatch.setattr(fanout, "import_module", lambda name: module)
    monkeypatch.setattr(fanout, "EXPORTERS", {"file": "m:Bad", "console": "m:Good"})
    both = Exporters(replace(ExporterConfig(), file=FileConfig(data="x")), CONTEXT)
    both.start()
    for event in EVENTS * 3:
        both.write(event)
    both.poll()
    assert got == ["R_SYN"] * 3
    assert both.health() == {"file": {"dropped": 4}, "console": {"dropped": 2}}
    both.close()
    assert got[-1] == "closed"
    assert [r.message for r in caplog.records if "no space left" in r.message] == [
        "exporter file: no space left; what it cannot take is dropped and counted"
    ]


def test_a_message_is_built_and_encoded_once(monkeypatch):
    m = message(SAMPLE)
    assert dict(m)["stat"] == "R_SYN" and len(m) == len(m.fields)
    assert m.json is m.json
    assert json.loads(m.json)["value"] == 0.0417
    assert json.loads(message(replace(SAMPLE, value=math.nan)).json)["value"] is None


def test_console_writes_json_lines_into_a_pipe():
    out = io.StringIO()
    console = ConsoleExporter(ConsoleConfig(data=True), CONTEXT, out)
    console.start()
    for event in EVENTS:
        console.write(event, message(event))
    console.close()
    assert [json.loads(line)["kind"] for line in out.getvalue().splitlines()] == [
        "stat", "alarm", "incident", "relearn", "health",
    ]  # fmt: skip


def test_console_speaks_to_people_on_a_terminal():
    out = Terminal()
    console = ConsoleExporter(ConsoleConfig(), CONTEXT, out)
    assert Sample not in console.kinds
    console.write(ALARM, message(ALARM))
    assert "ALARM" in out.getvalue() and "R_SYN 0.71 above 0.093" in out.getvalue()
    assert "\x1b[2m10:00:01.000Z\x1b[0m" in human(SAMPLE)
    assert "learning 3/1000" in human(replace(SAMPLE, state="learning", learned=3))
    assert "back within" in human(replace(ALARM, event_type="cleared"))
    assert "\x1b]0;" not in human(replace(INCIDENT, title="\x1b]0;evil\x07"))


def test_live_console_does_not_wait_for_a_reader_that_sleeps():
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream:
        console = ConsoleExporter(ConsoleConfig(data=True), replace(CONTEXT, live=True), stream)
        for _ in range(1000):  # 300 kB into a pipe of 64 kB
            console.write(SAMPLE, message(SAMPLE))
        assert console.health()["dropped"] > 500
        lines = os.read(read, 1 << 17).splitlines()
        assert all(json.loads(line) for line in lines)
        os.close(read)
        stream = None


def test_file_puts_each_kind_where_it_belongs(tmp_path):
    exporter = FileExporter(FileConfig(str(tmp_path / "d" / "%s.jsonl"), str(tmp_path / "%s-alarms.jsonl")), CONTEXT)
    exporter.start()
    for event in EVENTS:
        if type(event) in exporter.kinds:
            exporter.write(event, message(event))
    exporter.close()
    data, alarms = (tmp_path / "d" / "eth0.jsonl").read_text(), (tmp_path / "eth0-alarms.jsonl").read_text()
    assert [json.loads(line)["kind"] for line in data.splitlines()] == ["stat"]
    assert [json.loads(line)["kind"] for line in alarms.splitlines()] == ["alarm", "incident", "relearn"]
    assert stat.S_IMODE((tmp_path / "eth0-alarms.jsonl").stat().st_mode) & 0o007 == 0


def test_file_that_cannot_be_written_is_a_mistake_of_the_configuration(tmp_path):
    (tmp_path / "blocked").write_text("")
    with pytest.raises(ConfigError, match=r"exporter\.file\.data = .*give a path"):
        FileExporter(FileConfig(data=str(tmp_path / "blocked" / "x")), CONTEXT)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_file_on_a_disk_in_a_bad_way_is_waited_for(tmp_path, monkeypatch, caplog, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as disk:
        disk.setattr("netspot.exporters.file.os.open", refuse)
        exporter = FileExporter(FileConfig(data=str(tmp_path / "x")), CONTEXT)
        exporter.start()
        with pytest.raises(OSError, match=os.strerror(number)):
            exporter.write(SAMPLE, message(SAMPLE))
    assert [record.message for record in caplog.records] == [
        f"exporter.file.data = {tmp_path}/x: {os.strerror(number)}; tried again with each event"
    ]
    exporter.write(SAMPLE, message(SAMPLE))
    exporter.close()
    assert (tmp_path / "x").read_text().count("\n") == 1


def test_files_rotate_by_size_and_keep_the_newest(tmp_path):
    target = RotatingFile("k", tmp_path / "a", 100, 0, 2)
    target.open()
    for number in range(50):
        target.write(b"%09d\n" % number)
    target.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.1", "a.2"]
    text = b"".join((tmp_path / name).read_bytes() for name in ("a.2", "a.1", "a"))
    assert text == b"".join(b"%09d\n" % n for n in range(50 - len(text) // 10, 50))
    assert all(p.stat().st_size <= 100 for p in tmp_path.iterdir())


def test_files_rotate_by_age(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("netspot.exporters.file.time.time", lambda: now[0])
    target = RotatingFile("k", tmp_path / "a", 0, 60, 1)
    target.open()
    target.write(b"old\n")
    now[0] += 61
    target.write(b"new\n")
    target.close()
    assert (tmp_path / "a.1").read_bytes() == b"old\n" and (tmp_path / "a").read_bytes() == b"new\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_full_disk_leaves_whole_lines_only(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        target = RotatingFile("k", Path(tmp_path) / "a", 0, 0, 1)
        target.open()
        line = b"x" * 999 + b"\n"
        with pytest.raises(OSError):
            for _ in range(100):
                target.write(line)
        assert (tmp_path / "a").read_bytes().count(line) * 1000 == (tmp_path / "a").stat().st_size
        (tmp_path / "a").unlink()
        target.close()
        target.write(line)  # the disk has room again
        target.close()
        assert (tmp_path / "a").read_bytes() == line
    finally:
        subprocess.run(["umount", tmp_path], check=True)
