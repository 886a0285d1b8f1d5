"""The program takes no more memory and modules than it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("ssl", "_hashlib", "bottle", "waitress", "paho.mqtt.client", "sqlite3", "yaml", "asyncio", "dataclasses")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_what_numpy_need_not_load_is_loaded_on_demand() -> None:
    code = "from netspot.lean import prepare; prepare(); import numpy as np; "
    code += "before = np.linalg._umath_linalg.__dict__.get('inv') if hasattr(np.linalg, '_umath_linalg') else None; "
    code += (
        "print(before, np.random.default_rng(1).integers(1), np.ma.masked_array([1]).sum(), np.linalg.inv([[2.0]])[0])"
    )
    assert python(code) == "None 0 1 [0.5]"


LEAN = "from netspot.lean import prepare; prepare(); import sys, ssl, hashlib; "


def test_openssl_is_loaded_by_the_first_who_encrypts_and_by_nobody_else() -> None:
    code = LEAN + (
        "import paho.mqtt.client, netspot.exporters.client, netspot.exporters.reasons, netspot.web.server\n"
        "try:\n    raise BlockingIOError\nexcept (ssl.SSLWantReadError, BlockingIOError):\n    pass\n"
        "assert netspot.exporters.reasons.of_error(ConnectionRefusedError(111, 'refused'), 'there')\n"
        "print('_ssl' in sys.modules, '_hashlib' in sys.modules, hashlib.sha256(b'netspot').hexdigest()[:8])\n"
        "print(ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED, issubclass(ssl.SSLError, OSError))\n"
        "try:\n    raise ssl.SSLWantReadError\nexcept paho.mqtt.client.ssl.SSLWantReadError:\n    print('caught')\n"
        "print(hasattr(ssl, 'no such thing'), hasattr(ssl, 'SSLNoSuchError'))"
    )
    assert python(code).split("\n") == ["False False f04b510a", "True True", "caught", "False False"]


@pytest.mark.parametrize("name", HEAVY)
def test_a_run_imports_only_what_it_uses(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("lean") / "none.pcap"
    path.write_bytes(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000"))
    code = (
        f"import sys; from netspot.cli import main; main(['run', '-f', {str(path)!r}]); print({name!r} in sys.modules)"
    )
    if name == "_hashlib" and python("import numpy, sys; print('_hashlib' in sys.modules)") == "True":
        pytest.skip("this numpy brings it")
    assert python(code) == "False"
