"""The raw limit: one prepared insert, one commit, one thread, no Polos."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

import apsw

BODY = "x" * 100
INSERT = "INSERT INTO log (body) VALUES (?)"
AGAINST_RATE = "single-row commits/s"
AGAINST_TIME = "one single-row commit"


class RawLog:
    """A table of its own, with the durability that Polos promises: WAL, `synchronous=FULL`."""

    def __init__(self, folder: Path) -> None:
        self.connection = apsw.Connection(str(folder / "raw.db"))
        self.connection.execute("PRAGMA journal_mode = wal")
        self.connection.execute("PRAGMA synchronous = full")
        # As in the store: the same number of commits between two checkpoints.
        self.connection.execute("PRAGMA wal_autocheckpoint = 4000")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, body TEXT)"
        )
        require_full(self.connection)
        self.seconds(3)

    def come_round(self) -> None:
        """Fill the write-ahead log once, so that commits overwrite it; appending is slower."""
        self.connection.execute("CREATE TABLE filler (body BLOB)")
        self.connection.execute("INSERT INTO filler VALUES (zeroblob(20000000))")

    def seconds(self, count: int) -> float:
        """Insert `count` rows, each in a commit of its own, and return how long that took."""
        execute = self.connection.execute
        begun = time.perf_counter()
        for _ in range(count):
            execute(INSERT, (BODY,))
        return time.perf_counter() - begun

    def rate(self, count: int) -> float:
        """Return commits per second over `count` of them."""
        return count / self.seconds(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()


def require_full(connection: apsw.Connection) -> None:
    """Refuse to measure a connection that does not wait for the disk at each commit."""
    mode = connection.pragma("journal_mode")
    level = connection.pragma("synchronous")
    if (mode, level) != ("wal", 2):
        raise RuntimeError(f"journal_mode={mode}, synchronous={level}; expected wal and 2 (FULL)")
