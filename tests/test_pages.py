"""Man pages and completions, made from the parsers of the arguments."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["man8/netspot.8", "man1/netspotctl.1", "man5/netspot.yaml.5"]


@pytest.fixture(scope="module")
def share(tmp_path_factory):
    if importlib.util.find_spec("netspot.ctl") is None:
        pytest.skip("netspotctl is not there")
    prefix = tmp_path_factory.mktemp("prefix")
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1764000000"}
    subprocess.run([sys.executable, ROOT / "tools/generate.py", "install", prefix], check=True, env=env, timeout=60)
    return prefix / "share"


def need(program):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize("page", PAGES)
def test_a_man_page_is_read_without_warning(share, page):
    need("man")
    done = subprocess.run(["man", "--warnings", "-l", share / "man" / page], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert "2025-11-24" in done.stdout
    if shutil.which("mandoc"):
        lint = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "warning", share / "man" / page], capture_output=True, text=True
        )
        assert lint.stdout == ""


def test_every_command_stands_in_its_page(share):
    from netspot import cli, ctl

    for parser, page in ((cli.parser(), PAGES[0]), (ctl.parser(), PAGES[1])):
        text = (share / "man" / page).read_text()
        names = [name for action in parser._actions for name in (action.choices or ())]
        assert names
        for name in names:
            assert f".SS {name}".replace("-", "\\-") in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["netspot", "ru"], {"run"}),
        (["netspot", "run", "--miner.dev"], {"--miner.device"}),
        (["netspot", "run", "--miner.direction", ""], {"both", "in", "out"}),
        (["netspot", "run", "-d", "an"], {"any"}),
        (["netspotctl", "stat"], {"status", "stats"}),
    ],
)
def test_bash_completes(share, words, expected):
    need("bash")
    script = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _$1; echo "${COMPREPLY[@]}"'
    file = share / "bash-completion/completions" / words[0]
    done = subprocess.run(["bash", "-c", script, "bash", file, *words], capture_output=True, text=True, timeout=60)
    assert (set(done.stdout.split()), done.stderr) == (expected, "")


@pytest.mark.parametrize(
    ("shell", "file"),
    [("zsh", "zsh/vendor-completions/_{}"), ("fish", "fish/vendor_completions.d/{}.fish")],
)
@pytest.mark.parametrize("name", ["netspot", "netspotctl"])
def test_other_shells_accept_theirs(share, shell, file, name):
    need(shell)
    done = subprocess.run([shell, "-n", share / file.format(name)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
