"""Alarms on disk until the broker has acknowledged them.

What may be lost: ``kill -9`` loses nothing, since ``append`` returns after the operating system has the event. A power
cut loses what was not yet on the medium: SQLite appends to its write-ahead log without waiting (synchronous=NORMAL),
and ``checkpoint`` forces it out; the owner calls that, on a thread of its own, while events wait for the broker, and
where the log has grown long. So an SD card sees no write while there is no alarm, and hardly a forced one while the
broker takes them. The first append after a checkpoint begins the log anew and waits for its header, one sector.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

MEMORY = 2000  # events kept in memory where the disk takes none [event], about 2 MiB
RETRY_S = 30.0  # between two attempts on a disk that failed
LOG_BYTES = 16 << 20  # a log that is longer wants a checkpoint; it grows on until there is one

SCHEMA = "CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload TEXT NOT NULL) STRICT"


class Spooled(NamedTuple):
    id: int  # increases with time, also across restarts
    topic: str
    payload: str


class Spool:
    """A bounded first-in first-out store; only ``checkpoint`` may be called from another thread.

    ``path`` None, or a disk that fails, keeps the events in memory. Beyond ``bound`` the oldest is dropped and counted;
    what is on a disk that can't even be read stays there, and up to ``MEMORY`` newer ones wait in memory.
    """

    def __init__(self, path: Path | None, bound: int) -> None:
        self.path = path
        self.dropped = 0
        self._bound = bound
        self._db: sqlite3.Connection | None = None
        self._rows = 0  # on disk
        self._newest_row = 0  # id
        self._next = 1
        self._memory: deque[Spooled] = deque()  # newer than all that is on disk
        self._acked: set[int] = set()  # on disk still, since the disk takes no change
        self._warned = False
        self._retry_at_s = 0.0  # monotonic
        if path is not None:
            self._open(path)
            if self._db is None:  # what is on that disk has lower numbers, should it come back
                self._next = (1 << 40) + time.time_ns() // 1_000_000

    def __len__(self) -> int:
        return max(self._rows - len(self._acked), 0) + len(self._memory)

    @property
    def volatile(self) -> int:
        """Events that no disk has: they end with the process."""
        return len(self._memory)

    def append(self, topic: str, payload: str) -> None:
        """Keep an event; returns at once, whatever the disk does."""
        event = Spooled(self._next, topic, payload)
        self._next += 1
        self._memory.append(event)
        if self._disk_due():
            self._to_disk()
        self._trim()

    def pending(self, after: int, limit: int) -> list[Spooled]:
        """Up to ``limit`` events with an id above ``after``, oldest first."""
        found: list[Spooled] = []
        if self._db is not None and self._rows:
            query = "SELECT id, topic, payload FROM event WHERE id > ? ORDER BY id LIMIT ?"
            try:
                rows = self._db.execute(query, (after, limit + len(self._acked))).fetchall()
                found = [Spooled(*row) for row in rows if row[0] not in self._acked][:limit]
            except sqlite3.Error as error:
                self._failed(error)
        waiting = (event for event in self._memory if event.id > after)
        return found + list(islice(waiting, limit - len(found)))

    def delete(self, ids: Iterable[int]) -> None:
        """Forget events that have been delivered."""
        gone = set(ids)
        if self._memory:
            kept = [event for event in self._memory if event.id not in gone]
            gone -= {event.id for event in self._memory}
            self._memory = deque(kept)
        if self._rows:
            self._acked |= {number for number in gone if number <= self._newest_row}
            self._clear_acked()

    @property
    def log_is_long(self) -> bool:
        try:
            return self._db is not None and Path(f"{self.path}-wal").stat().st_size > LOG_BYTES
        except OSError:
            return False

    def checkpoint(self) -> None:
        """Force what was appended onto the medium; from any thread, with a connection of its own."""
        if self._db is None or self.path is None:
            return
        try:
            with closing(sqlite3.connect(self.path, timeout=0.1)) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            log.debug("spool %s: %s", self.path, error)  # the next append tells it, if it lasts

    def close(self) -> None:
        if self._disk_due():
            self._to_disk()
        self._retry_at_s = 0.0
        self._clear_acked()
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self, path: Path) -> None:
        try:
            self._db = self._connect_or_replace(path)
        except (OSError, sqlite3.Error) as error:  # read-only, full, no such folder
            self._failed(error)

    def _connect_or_replace(self, path: Path) -> sqlite3.Connection:
        """A file that is no database is set aside. Raises OSError, sqlite3.Error."""
        try:
            return self._connect(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            path.replace(f"{path}.broken")
            for suffix in ("-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            log.warning("spool %s: %s; it is set aside as %s.broken", path, error, path.name)
            return self._connect(path)

    def _connect(self, path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=0.05, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 0")  # it would wait for the medium, on the main loop
            db.execute("PRAGMA journal_size_limit = 0")  # a log that begins anew is cut: its size tells its length
            db.execute("PRAGMA cache_size = -256")  # [KiB]
            db.execute(SCHEMA)
            self._rows, newest = db.execute("SELECT count(*), coalesce(max(id), 0) FROM event").fetchone()
        except sqlite3.Error:
            db.close()
            raise
        self._newest_row = newest
        self._next = max(self._next, newest + 1)
        return db

    def _disk_due(self) -> bool:
        """Whether the disk may be asked: it works, or it failed a while ago."""
        return self.path is not None and time.monotonic() >= self._retry_at_s and bool(self._memory)

    def _to_disk(self) -> None:
        try:
            if self._db is None:
                assert self.path is not None
                self._db = self._connect_or_replace(self.path)
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO event VALUES (?, ?, ?)", self._memory)
            self._db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            self._failed(error)
            return
        self._rows += len(self._memory)
        self._newest_row = self._memory[-1].id
        self._memory.clear()

    def _failed(self, error: OSError | sqlite3.Error) -> None:
        self._retry_at_s = time.monotonic() + RETRY_S
        if self._db is not None and self._db.in_transaction:
            self._db.rollback()
        if not self._warned:
            self._warned = True
            log.warning("spool %s: %s; alarms wait in memory, the newest %d of them", self.path, error, MEMORY)

    def _trim(self) -> None:
        """Drop the oldest beyond the bound: those on disk first, as far as it can be read."""
        excess = len(self) - self._bound
        if excess > 0 and self._rows:
            self._drop_rows(excess)
        most = MEMORY if len(self._acked) < self._rows else min(MEMORY, self._bound)
        while len(self._memory) > most:
            self._memory.popleft()
            self.dropped += 1

    def _drop_rows(self, count: int) -> None:
        if self._db is None:
            return
        query = "SELECT id FROM event ORDER BY id LIMIT ?"
        try:
            ids = [number for (number,) in self._db.execute(query, (count + len(self._acked),))]
        except sqlite3.Error as error:
            self._failed(error)
            return
        oldest = [number for number in ids if number not in self._acked][:count]
        self._acked.update(oldest)
        self.dropped += len(oldest)
        self._clear_acked()

    def _clear_acked(self) -> None:
        if not self._acked or self._db is None or time.monotonic() < self._retry_at_s:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            done = self._db.executemany("DELETE FROM event WHERE id = ?", ((number,) for number in self._acked))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed(error)
            return
        self._rows -= done.rowcount  # one that was dropped meanwhile is not there any more
        self._acked.clear()
