"""The command ``netspot`` as its user meets it: output, files, exit statuses."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from netspot import cli
from netspot.config import load
from netspot.events import Window
from netspot.observe import Progress
from netspot.packets import ACK, SYN
from netspot.service import Service, open_source
from tests import frames as f

T0 = 1_700_000_000 * 10**9
ENTRIES = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["scripts"].values()
SCRIPTS = [f"from {entry.replace(':', ' import ')} as command; command()" for entry in ENTRIES]


def netspot(*args: str, stdin: bytes | None = None, timeout_s: float = 60) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "netspot", *args]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s)


def traffic(seconds: int = 5, a_second: int = 4) -> tuple[list[bytes], list[int]]:
    """A SYN and some ACKs each second, and their times."""
    packets = [f.eth(f.ip4(f.tcp(SYN if i % a_second == 0 else ACK))) for i in range(seconds * a_second)]
    return packets, [T0 + i * 10**9 // a_second for i in range(len(packets))]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "home.pcap"
    path.write_bytes(f.pcap(*traffic()))
    return path


def lines(output: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def test_run_prints_one_json_line_a_statistic_and_window_in_a_pipe(capture: Path) -> None:
    done = netspot("run", "-f", str(capture), "-s", "R_SYN", "-v")
    assert done.returncode == 0, done.stderr
    stats = [line for line in lines(done.stdout) if line["kind"] == "stat"]
    assert [line["value"] for line in stats] == [0.25] * 5
    assert {line["series"] for line in stats} == {"home.pcap"}
    assert b"20 packets" in done.stderr


def test_what_was_learned_with_other_windows_is_left(capture: Path, tmp_path: Path) -> None:
    def learned(period: str) -> object:
        args = ("-s", "R_SYN", "--spot.q", "1e-3", "--state.dir", str(tmp_path / "state"))
        return lines(netspot("run", "-f", str(capture), "-v", "-p", period, *args).stdout)[0]["learned"]

    assert [learned("1s"), learned("1s"), learned("500ms")] == [1, 6, 1]


def test_the_summary_says_what_a_hole_left_out(tmp_path: Path) -> None:
    path = tmp_path / "two.pcap"
    packets, _ = traffic(1)
    path.write_bytes(f.pcap(packets[:2], [T0, T0 + 1000 * 10**9]))
    assert b"in 2 windows, 999 silent ones left out, 2023" in netspot("run", "-f", str(path)).stderr


def test_a_person_reads_one_packet_in_one_window_and_in_which_zone(tmp_path: Path) -> None:
    path = tmp_path / "one.pcap"
    path.write_bytes(f.pcap(*(column[:1] for column in traffic())))
    done = netspot("run", "-f", str(path))
    assert b"1 packet, 0.1 kB in 1 window, 2023-11-14T22:13:20.000Z to 2023-11-14T22:13:21.000Z" in done.stderr


def test_the_period_cuts_the_windows(capture: Path) -> None:
    done = netspot("run", "-f", str(capture), "-s", "R_SYN", "-v", "-p", "500ms")
    assert [line["value"] for line in lines(done.stdout) if line["kind"] == "stat"] == [0.5, 0.0] * 5


def test_gzip_and_standard_input_give_the_same(capture: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "home.pcap.gz"
    zipped.write_bytes(gzip.compress(capture.read_bytes()))
    plain, from_gzip, from_stdin = (
        [{**line, "series": ""} for line in lines(done.stdout) if line["kind"] == "stat" and line["stat"] != "PERF"]
        for done in (
            netspot("run", "-f", str(capture), "-v"),
            netspot("run", "-f", str(zipped), "-v"),
            netspot("run", "-f", "-", "-v", stdin=capture.read_bytes()),
        )
    )
    assert plain and plain == from_gzip == from_stdin


def test_counters_are_written_a_row_a_window(capture: Path, tmp_path: Path) -> None:
    counts = tmp_path / "counts.csv"
    assert netspot("run", "-f", str(capture), "--counters", str(counts)).returncode == 0
    rows = list(csv.DictReader(counts.open()))
    assert [(row["start_ns"], row["SYN"], row["IP"]) for row in rows] == [
        (str(T0 + i * 10**9), "1", "4") for i in range(5)
    ]


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"", 2, b"empty"),
        (b"GIF89a, no capture at all", 2, b"no capture"),
        (f.pcap(*traffic())[:-7], 3, b"byte"),
        (f.pcap(*traffic())[:24] + struct.pack("<4I", 1_700_000_000, 0, 0x7FFFFFFF, 0x7FFFFFFF), 3, b"2147483647"),
        (f.pcap([b"\0" * 60], link_type=9999 & 0xFFFF), 2, b"9999"),
    ],
    ids=["empty", "no capture", "cut", "2 GB record", "unknown link"],
)
def test_bad_captures_end_in_one_line(tmp_path: Path, content: bytes, status: int, says: bytes) -> None:
    path = tmp_path / "bad.pcap"
    path.write_bytes(content)
    done = netspot("run", "-f", str(path), "-v", "-s", "R_SYN")
    assert done.returncode == status, done.stderr
    complaint = [line for line in done.stderr.splitlines() if line.startswith(b"netspot: ")]
    assert len(complaint) == 1
    assert b"bad.pcap" in complaint[0] and says in complaint[0]
    assert b"Traceback" not in done.stderr


def test_a_cut_capture_is_counted_and_exported_before_the_complaint(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(f.pcap(*traffic())[:-7])
    done = netspot("run", "-f", str(path), "-v", "-s", "TRAFFIC")
    assert done.returncode == 3
    assert [line["value"] for line in lines(done.stdout) if line["kind"] == "stat"] == [4, 4, 4, 4, 3]


def test_time_that_jumps_by_years_is_no_error(tmp_path: Path) -> None:
    packets, _ = traffic(1)
    path = tmp_path / "jump.pcap"
    path.write_bytes(f.pcap(packets, [T0, T0 + 10**18, 0, T0]))
    done = netspot("run", "-f", str(path), "-v", "-s", "TRAFFIC", timeout_s=20)
    assert done.returncode == 0
    assert len([line for line in lines(done.stdout) if line["kind"] == "stat"]) == 4


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "-d", "nosuch0"], b"nosuch0"),
        (["run", "-f", "/nowhere/x.pcap"], b"/nowhere/x.pcap"),
        (["run", "-s", "R_SYM", "-f", "x"], b"R_SYN"),
        (["run", "-p", "fast", "-f", "x"], b"fast"),
        (["run", "-f", "CAPTURE", "--counters", "/nowhere/x.csv"], b"--counters /nowhere/x.csv: No such file"),
        (["demo", "--keep", "/nowhere/x.pcap"], b"--keep /nowhere/x.pcap: No such file"),
        (["run", "-f", "x", "--counters.X", "tcp &"], b"netspot: --counters.X: 'tcp &', column 5"),
        (["run", "-d", "eth0", "-f", "x"], b"-d: for an interface, and -f x reads a file"),
        (["run", "--miner.filter", "tcp", "-f", "x"], b"--miner.filter: for an interface"),
        (["run", "--miner.ring_mub", "4"], b"ring_mib"),
        (["run", "--spot.q"], b"--spot.q"),
        (["check", "/nowhere/netspot.yaml"], b"/nowhere/netspot.yaml"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_what_is_accepted(args: list[str], says: bytes, capture: Path) -> None:
    done = netspot(*(str(capture) if arg == "CAPTURE" else arg for arg in args))
    assert done.returncode == 2
    assert says in done.stderr and b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("args", [["run", "-x"], ["run", "eth0"], ["serve", "--device", "eth0"], ["check", "-v"]])
def test_an_unknown_argument_is_told_with_the_usage_of_its_command(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(args)
    says = capsys.readouterr().err
    assert says.startswith(f"usage: netspot {args[0]} ")
    assert says.endswith(f"\nnetspot {args[0]}: error: unrecognized arguments: {' '.join(args[1:])}\n")


def test_a_broker_that_is_away_is_told_once() -> None:
    done = netspot("ha-remove", "--exporter.mqtt.host", "127.0.0.1", "--exporter.mqtt.port", "1")
    assert done.returncode == 3 and done.stderr.count(b"nothing listens") == 1


def test_the_defaults_pass_their_own_check(tmp_path: Path) -> None:
    path = tmp_path / "netspot.yaml"
    path.write_bytes(netspot("defaults").stdout)
    done = netspot("check", str(path))
    assert (done.returncode, done.stderr) == (0, b"")


def test_check_tells_every_mistake_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "netspot.yaml"
    path.write_text("miner:\n  devise: eth0\nspot:\n  q: 2\nanalyzer:\n  stats: [R_SYM]\n")
    done = netspot("check", str(path))
    assert done.returncode == 2
    for line, word in ((2, b"device"), (4, b"spot.q"), (6, b"R_SYN")):
        assert any(b"%s:%d" % (str(path).encode(), line) in said and word in said for said in done.stderr.splitlines())


def test_check_tells_mistakes_in_expressions_rules_and_filters_with_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "netspot.yaml"
    path.write_text(
        'miner: {filter: "tcp prt 22"}\n'
        "counters:\n"
        "  MQTT: tcp and dprt == 1883\n"
        "  BAD: tcp & udp\n"
        "  GOOD: udp\n"
        "stats:\n"
        "  R_MQTT:\n"
        "    value: MQTT / TCPP\n"
        "  R_LOG: {value: GOOD, transform: log1p, range: [-5, 1]}\n"
        "mute:\n"
        "  - {stat: R_SYN, until: 2026-02-30}\n"
        "  - {statt: R_SYN}\n"
        "  - {source: 1.2.3.4.5}\n"
        "spot: {q: 2}\n"
    )
    done = netspot("check", str(path))
    assert done.returncode == 2
    told = done.stderr.decode().removeprefix("netspot: ").splitlines()
    assert [line.removeprefix(f"{path}:").split(": ")[0] for line in told] == "1 3 4 8 9 11 12 13 14".split()
    for line, *words in zip(
        told,
        "miner.filter counters.MQTT counters.BAD stats.R_MQTT.value stats.R_LOG.range mute mute mute spot.q".split(),
        ("tcp prt 22", "dprt", "tcp & udp", "TCPP", "[-5, 1]", "2026-02-30", "statt", "1.2.3.4.5", "2"),
        ("pcap-filter(7)", "dport", "known are", "TCP?", "-1", "day", "stat?", "prefix", "]0, 1["),
        strict=True,
    ):
        assert all(word in line for word in words)


def test_check_tells_every_mistake_inside_one_statistic(tmp_path: Path) -> None:
    path = tmp_path / "netspot.yaml"
    path.write_text(
        "stats:\n"
        "  A:\n    value: SYNN / TCPP\n    range: [-5, 3]\n    transform: log1p\n"
        "  B:\n    value: ARPP\n    range: [5, 3]\n    unitt: x\n    transform: log\n"
        "  C:\n    unitt: x\n"
    )
    done = netspot("check", str(path))
    told = done.stderr.decode().removeprefix("netspot: ").splitlines()
    assert [line.removeprefix(f"{path}:").split(": ")[0] for line in told] == "3 3 4 7 8 9 10 11 12".split()
    words = ("SYN?", "TCP?", "log1p takes", "ARP?", "greater", "unit?", "log1p?", "value is missing", "unit?")
    assert all(word in line for word, line in zip(words, told, strict=True)), told


def test_a_filter_that_only_another_link_has_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "netspot.yaml"
    path.write_text('miner: {filter: "wlan type mgt"}\n')
    assert netspot("check", str(path)).returncode == 0


def test_lists_are_complete_and_machine_readable() -> None:
    listed = json.loads(netspot("ls", "--json").stdout)
    assert {"R_SYN", "TRAFFIC", "PERF"} <= {stat["name"] for stat in listed["stats"]}
    assert all(stat["help"] and stat["unit"] for stat in listed["stats"])
    counters = {counter["name"] for counter in listed["counters"]}
    assert all(set(stat["needs"]) <= counters for stat in listed["stats"])
    assert {"lo"} <= {device["name"] for device in json.loads(netspot("devices", "--json").stdout)}


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv, to drop a capability"
)
def test_no_permission_names_the_capability_and_the_command() -> None:
    without = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]
    command = [*without, sys.executable, "-m", "netspot", "run", "-d", "lo"]
    done = subprocess.run(command, capture_output=True, timeout=30)
    assert done.returncode == 2
    assert b"CAP_NET_RAW" in done.stderr and b"setcap" in done.stderr and b"Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error(capture: Path) -> None:
    command = f"{sys.executable} -m netspot run -f {capture} -v | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, timeout=30)
    assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (141, b"", 1)


@pytest.mark.parametrize("args", [("run", "-v", "-f", "CAPTURE"), ("ls",)])
def test_output_that_cannot_be_written_is_an_error(args: tuple[str, ...], capture: Path) -> None:
    command = [sys.executable, "-m", "netspot", *(str(capture) if arg == "CAPTURE" else arg for arg in args)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=30)
    assert (done.returncode, done.stderr) == (1, b"netspot: output: No space left on device\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to capture")
def test_watching_an_interface_ends_when_the_reader_leaves() -> None:
    command = f"{sys.executable} -m netspot run -d lo -p 50ms -s TRAFFIC -v | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, timeout=30)
    assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (141, b"", 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to capture")
@pytest.mark.parametrize(
    ("begin", "numbers"),
    [([], [signal.SIGTERM]), ([], [signal.SIGHUP]), (["nohup"], [signal.SIGHUP, signal.SIGTERM])],
    ids=["ended", "terminal lost", "terminal lost, under nohup"],
)
def test_a_run_that_is_ended_leaves_its_files_whole(
    begin: list[str], numbers: list[signal.Signals], tmp_path: Path
) -> None:
    counts, report = tmp_path / "counts.csv", tmp_path / "report.html"
    command = [*begin, sys.executable, "-m", "netspot", "run", "-d", "lo", "-p", "50ms", "-s", "TRAFFIC", "-v"]
    files = ["--counters", str(counts), "--report", str(report)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}

    def heard() -> None:  # else whoever runs the tests under nohup has all of them ignore it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    with subprocess.Popen([*command, *files], **pipes, preexec_fn=heard) as process:
        assert process.stdout
        for number in numbers:
            for _ in range(3):
                assert process.stdout.readline()
            process.send_signal(number)
        process.stdout.read()
    assert process.returncode == 0
    assert len(counts.read_text().splitlines()) > 3 and report.read_text().rstrip().endswith("</html>")


def test_the_figures_of_a_capture_are_whole_at_its_end(capture: Path) -> None:
    service = Service(load(None), open_source(str(capture)))
    service.run()
    assert service.health.figures["captured"] == 20


@pytest.mark.parametrize("start", [*SCRIPTS, "import runpy; runpy.run_module('netspot', run_name='__main__')"])
@pytest.mark.parametrize("ignored", [False, True])
def test_an_interrupt_while_modules_are_loaded_needs_no_words(start: str, ignored: bool) -> None:
    code = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'netspot.errors':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "sys.argv = ['command', '--version']\n"
    )
    if ignored:  # as a shell has it for what runs in the background
        code = code.replace("\n", "\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n", 1)
    done = subprocess.run([sys.executable, "-c", code + start], capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (0 if ignored else -signal.SIGINT, b"")


def test_an_interrupt_before_a_run_has_begun_is_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "run", interrupted)
    assert cli.main(["run"]) == 130


def test_an_interrupted_run_tells_each_window_once(capture: Path) -> None:
    starts: list[int] = []

    class Interrupts:
        def step(self, window: Window, *_: object) -> None:
            starts.append(window.start_ns)
            service.stop()

    service = Service(load(None), open_source(str(capture)), observers=lambda _: [Interrupts()])
    service.run()
    assert starts == [T0]


@pytest.mark.parametrize(
    ("done", "total", "begins"),
    [
        (25, 100, "██████░░░░░░░░░░░░░░░░░░  25%  12 packets"),
        (100, 100, "2023-11-14 22:13:21Z  12 packets"),  # a small file, read at once
        (100, None, "2023-11-14 22:13:21Z  12 packets"),  # standard input
    ],
)
def test_the_progress_line_says_how_far_it_is(done: int, total: int | None, begins: str) -> None:
    source = SimpleNamespace(progress=lambda: (done, total))
    service = SimpleNamespace(source=source, analyzer=SimpleNamespace(progress=(10, 10)))
    near, far = os.openpty()
    with open(far, "w") as terminal, Progress(terminal, service) as progress:  # noqa: PTH123
        progress.step(Window(T0, T0 + 10**9, {"PKTS": 12}, 0, 1.0), [], [], {})
    assert os.read(near, 1000).decode().lstrip("\r\x1b[K").startswith(begins)


@pytest.mark.parametrize("more", [[], ["-v"]])
def test_lines_and_the_progress_line_do_not_mix_on_a_terminal(more: list[str], capture: Path) -> None:
    near, far = os.openpty()
    command = [sys.executable, "-m", "netspot", "run", "-s", "R_SYN", "-f", str(capture), *more]
    with subprocess.Popen(command, stdout=far, stderr=far) as run:
        os.close(far)
        assert run.wait(30) == 0
    shown = os.read(near, 1 << 16).decode()
    assert ("learning 1 of" in shown) == (not more)
    assert shown.count("R_SYN") == (5 if more else 0)
