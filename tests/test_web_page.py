"""The page in a real browser (tests/web/page.mjs); ``npm ci`` in tests/web installs what drives it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "web"


def missing() -> str:
    """Why there can be no browser test here; empty where there can."""
    if not shutil.which("node"):
        return "not installed: node"
    if not (HERE / "node_modules" / "playwright-core").is_dir():
        return "not installed: playwright-core (run 'npm ci' in tests/web)"
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return "not installed: chromium"
    return ""


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_the_page_in_a_browser(tmp_path):
    command = ["node", str(HERE / "page.mjs"), sys.executable, str(HERE / "feed.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 15
