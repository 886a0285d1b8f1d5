"""Events as JSON lines in files that rotate by size and age."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netspot.errors import ConfigError
from netspot.events import Alarm, Event, Incident, Relearn, Sample
from netspot.exporters.base import Context, Message

if TYPE_CHECKING:
    from netspot.config import FileConfig

log = logging.getLogger(__name__)

ILL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
ALARMS: frozenset[type[Event]] = frozenset({Alarm, Incident, Relearn})


class FileExporter:
    """``data`` takes the samples, ``alarm`` the alarms and incidents; ``%s`` in a path is the series."""

    def __init__(self, config: FileConfig, context: Context) -> None:
        rotation = (int(config.rotate_mib * 2**20), config.rotate_every_s, config.keep)
        series = context.series.replace("/", "_")
        self._files: dict[type[Event], RotatingFile] = {}
        opened: dict[str, RotatingFile] = {}  # both may go to one file
        for key, path, kinds in (("data", config.data, frozenset({Sample})), ("alarm", config.alarm, ALARMS)):
            if path:
                path = path.replace("%s", series)
                target = opened.setdefault(path, RotatingFile(f"exporter.file.{key}", Path(path), *rotation))
                self._files |= dict.fromkeys(kinds, target)
        self.kinds = frozenset(self._files)
        try:
            for target in opened.values():
                target.open()
        except ConfigError:
            self.close()
            raise

    def start(self) -> None:
        """All is open."""

    def write(self, event: Event, message: Message) -> None:
        self._files[type(event)].write(message.json.encode() + b"\n")

    def health(self) -> Mapping[str, Any]:
        return {"dropped": 0}

    def close(self) -> None:
        for target in set(self._files.values()):
            target.close()


class RotatingFile:
    """Whole lines appended to ``path``; older ones in ``path.1`` (newest) to ``path.<keep>``."""

    def __init__(self, key: str, path: Path, limit_bytes: int, every_s: float, keep: int) -> None:
        self._key = key
        self._path = path
        self._limit_bytes = limit_bytes or float("inf")
        self._every_s = every_s or float("inf")
        self._keep = max(keep, 0)
        self._fd = -1
        self._size = 0
        self._born_s = 0.0  # [s since epoch]

    def open(self) -> None:
        """Raises ConfigError for a path that cannot be; ``write`` tries again where only the disk is in a bad way."""
        try:
            self._open()
        except OSError as error:
            if error.errno in ILL_DISK:
                log.warning("%s = %s: %s; tried again with each event", self._key, self._path, error.strerror)
                return
            raise ConfigError(
                f"{self._key} = {self._path}: {error.strerror}; give a path that can be written"
            ) from None

    def write(self, line: bytes) -> None:
        """Raises OSError when the disk is full or gone; no torn line stays behind."""
        if self._size and (self._size + len(line) > self._limit_bytes or time.time() - self._born_s >= self._every_s):
            self._rotate()
        if self._fd < 0:
            self._open()
        written = os.write(self._fd, line)
        if written < len(line):
            os.ftruncate(self._fd, self._size)
            raise OSError(f"{self._path}: the disk is full")
        self._size += written

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        status = os.fstat(self._fd)
        self._size = status.st_size
        self._born_s = time.time() if status.st_size == 0 else status.st_mtime

    def _rotate(self) -> None:
        self.close()
        if self._keep == 0:
            self._path.unlink(missing_ok=True)
        for number in range(self._keep, 0, -1):
            older = self._path if number == 1 else self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
