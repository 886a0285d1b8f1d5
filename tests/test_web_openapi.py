"""The API against its own OpenAPI file, by schemathesis: no 5xx, nothing that the file does not say.

NETSPOT_LONG=1 makes it 2,000 cases instead of a few hundred; schemathesis may lie in an environment of its own, named
by NETSPOT_SCHEMATHESIS.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.web.feed import Served

LONG = os.environ.get("NETSPOT_LONG") == "1"
BESIDE = str(Path(sys.executable).parent / "schemathesis")
COMMAND = shutil.which(os.environ.get("NETSPOT_SCHEMATHESIS", "schemathesis")) or shutil.which(BESIDE)
# A configuration that has the right form may still be refused for what it means, and wrong tokens end in 429.
LEFT_OUT = "positive_data_acceptance,ignored_auth"


@pytest.mark.skipif(COMMAND is None, reason="not installed: schemathesis")
def test_the_api_is_what_its_file_says(tmp_path):
    with Served(past=300, attacks=["R_SYN", "TRAFFIC"]) as served:
        url = f"http://127.0.0.1:{served.server.port}"
        checks = ["--checks", "all", "--exclude-checks", LEFT_OUT]
        amount = ["-n", "130"] if LONG else ["-n", "12", "--phases", "examples,coverage,fuzzing"]
        token = ["-H", f"Authorization: Bearer {served.token}"]
        command = [str(COMMAND), "run", f"{url}/api/openapi.json", "--url", url, "--seed", "1", "--no-color"]
        done = subprocess.run(
            [*command, *token, *checks, *amount], capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path
        )
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        cases = int(re.search(r"(\d+) generated", done.stdout)[1])
        assert cases >= (2000 if LONG else 300)
