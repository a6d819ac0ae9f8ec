"""Subprocesses under the eye of a test: started, watched by what they leave, ended."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

PROGRAM = Path(__file__).with_name("program.py")
LIMIT_SECONDS = 180.0


class Site:
    """A folder with a database and what the steps of its processes left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "polos.db"
        self.url = f"sqlite:///{self.database}"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, mode: str, name: str = "job") -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), mode, self.url, str(self.folder), name]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def effects(self) -> list[str]:
        path = self.folder / "effects"
        return path.read_text().splitlines() if path.exists() else []

    def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Read the database, if it is there."""
        if not self.database.exists():
            return []
        connection = apsw.Connection(str(self.database), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(5000)
        try:
            return list(connection.execute(sql, arguments))
        except apsw.SQLError:  # not migrated yet
            return []
        finally:
            connection.close()

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        tables = ("execution", "step", "state", "inbox", "worker")
        return {table: self.rows(f"SELECT * FROM {table}") for table in tables}

    def owned(self) -> list[tuple[Any, ...]]:
        """Return what is marked as running, or as owned by a worker that did not stop."""
        return self.rows(
            "SELECT id, status FROM execution WHERE status = 'running' OR (status = 'queued' "
            "AND worker_id IN (SELECT id FROM worker WHERE stopped_at IS NULL))"
        ) + self.rows("SELECT id, pid FROM worker WHERE stopped_at IS NULL")

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    place = Site(folder)
    try:
        yield place
    finally:
        place.end()


async def until(condition: Callable[[], Any], seconds: float = LIMIT_SECONDS) -> float:
    """Wait until the condition holds; returns how long that took."""
    begun = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process cannot set an event
            await asyncio.sleep(0.005)
    return time.monotonic() - begun


async def output(process: subprocess.Popen[str], seconds: float = LIMIT_SECONDS) -> str:
    """Wait for the end of a process; returns what it printed."""
    out, err = await asyncio.to_thread(process.communicate, timeout=seconds)
    assert "Traceback" not in err or process.returncode != 0, err
    return out
