"""What was learned, on disk: one file, always whole, that another machine can read too.

The file is a line of JSON (format, version, length and SHA-256 of what follows) and a JSON body, in which an array of
float64 is ``{"f8": base64 of little-endian bytes}``. A file that is damaged, foreign or of a later version is set aside
beside its place, with one warning, and everything is learned anew: never a crash, never silently wrong.

A folder has one netspot at a time: two would undo each other's work. Who has it holds a lock on the file ``lock``,
which the kernel takes back when that program ends, however it ends.
"""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from netspot.errors import ConfigError

log = logging.getLogger("netspot.state")

FILE = "detectors.state"
LOCK = "lock"  # holds the number of the process that has the folder, or had it last
FORMAT, VERSION = "netspot-state", 1
MAX_BYTES = 64 << 20  # a hundred detectors take about 2 MiB; what is far larger is not ours


def hold(folder: Path) -> ExitStack:
    """Make ``folder`` if need be, and keep every other netspot out of it until what is returned is closed.

    Raises
    ------
    ConfigError
        If another netspot has it.
    OSError
        If it cannot be made or written.
    """
    folder.mkdir(0o750, parents=True, exist_ok=True)
    with ExitStack() as stack:
        file = stack.enter_context(os.fdopen(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o640), "r+b", buffering=0))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = file.read(20).decode(errors="replace").strip() or "unknown"
            raise ConfigError(
                f"state.dir = {folder}: another netspot, process {pid}, has this folder; stop that one, or give this "
                "one a folder of its own"
            ) from None
        except OSError as error:
            log.warning("%s: nobody can be kept out of it: %s", folder, error.strerror)  # a network's file system
        with suppress(OSError):  # a disk that is full takes the lock all the same
            file.truncate()
            file.write(b"%d\n" % os.getpid())
        return stack.pop_all()


def save(folder: Path, detectors: Mapping[str, Mapping[str, Any]], meta: Mapping[str, Any]) -> None:
    """Write what was learned; after a crash or a power cut the file is the old one or the new one, whole.

    Parameters
    ----------
    folder : Path
        Where the file is kept; made if need be.
    detectors : mapping
        State of each detector, by name: JSON-able values and float64 arrays.
    meta : mapping
        What else is to be remembered, JSON-able.

    Raises
    ------
    OSError
        If the file cannot be written; the old one then stays.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     save(Path(name), {"R_SYN": {"n": 3, "excesses": np.array([0.5])}}, {"seq": 41})
    ...     load(Path(name))
    ({'R_SYN': {'n': 3, 'excesses': array([0.5])}}, {'seq': 41})
    """
    body = json.dumps({"meta": meta, "detectors": detectors}, default=_encoded, separators=(",", ":")).encode()
    head = {"format": FORMAT, "version": VERSION, "bytes": len(body), "sha256": _digest(body)}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.new"
    try:
        with temporary.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / FILE)
    except OSError:
        with suppress(OSError):  # a half of it would fill a disk that is full already, and alarms wait for room
            temporary.unlink()
        raise
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # the new name too must outlive a power cut
    finally:
        os.close(directory)


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """States by detector, and meta, as they were saved; both empty where there is no file that can be used.

    A file that is damaged, foreign or of another version is renamed to ``detectors.state.bad``, with one warning.

    Examples
    --------
    >>> load(Path("/nowhere"))
    ({}, {})
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        return _parsed(content)
    except FileNotFoundError:
        return {}, {}
    except OSError as error:
        log.warning("%s: cannot be read (%s); everything is learned anew", path, error.strerror)
        return {}, {}
    except (ValueError, RecursionError) as error:
        log.warning("%s: %s; set aside as %s, everything is learned anew", path, error, _set_aside(path))
        return {}, {}


def _parsed(content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    first, _, body = content.partition(b"\n")
    try:
        head = json.loads(first)
        known = head["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError("not a file of learned states")
    if head.get("version") != VERSION:
        raise ValueError(f"its version is {head.get('version')!r}, and only {VERSION} is known here")
    if head.get("bytes") != len(body) or head.get("sha256") != _digest(body):
        raise ValueError("damaged, its checksum is another")
    tree = json.loads(body, object_hook=_decoded)
    if not isinstance(tree, dict) or not all(isinstance(tree.get(key), dict) for key in ("detectors", "meta")):
        raise ValueError("damaged, a part is missing")
    return tree["detectors"], tree["meta"]


def _digest(body: bytes) -> str:
    from hashlib import sha256  # brings OpenSSL, 3 MiB, which a run that keeps nothing does not need

    return sha256(body).hexdigest()


def _set_aside(path: Path) -> str:
    aside = path.with_name(f"{path.name}.bad")
    try:
        path.replace(aside)
    except OSError as error:
        return f"nothing ({error.strerror})"
    return aside.name


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"f8": base64.b64encode(value.astype("<f8").tobytes()).decode()}
    raise TypeError(f"{type(value).__name__} has no place in a state")


def _decoded(mapping: dict[str, Any]) -> Any:
    if set(mapping) == {"f8"} and isinstance(mapping["f8"], str):
        return np.frombuffer(base64.b64decode(mapping["f8"], validate=True), "<f8").astype(np.float64)
    return mapping
