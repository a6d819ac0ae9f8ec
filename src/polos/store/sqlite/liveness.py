"""Is a worker alive? A locked file beside the database says so; it dies with the process.

`flock` and not POSIX record locks: those are lost when any other descriptor of the file is
closed in the same process, and cannot tell two clients of one process apart (ADR 0004). A
forked child closes its copy, so that it does not keep its dead parent's lock.
"""

from __future__ import annotations

import fcntl
import os
import struct
import weakref
from pathlib import Path


class FileLiveness:
    """A file per worker in `<database>-workers/`, locked while it lives, with a counter inside."""

    def __init__(self, path: str) -> None:
        self._folder = Path(f"{path}-workers")
        self._fd: int | None = None
        self._file: Path | None = None
        self._count = 0

    async def hold(self, worker_id: str) -> None:
        """Take the lock of a new worker of this process."""
        self._folder.mkdir(exist_ok=True)
        self._file = self._folder / worker_id
        self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        await self.beat()
        me = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _close_copy(me()))

    async def beat(self) -> None:
        """Move the counter on; no fsync, it only has to be seen on this machine."""
        if self._fd is not None:
            self._count += 1
            os.pwrite(self._fd, struct.pack("<Q", self._count), 0)

    async def look(self, worker_id: str) -> int | None:
        """Return another worker's counter, or None if its lock is free: it is dead."""
        try:
            fd = os.open(self._folder / worker_id, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            data = os.pread(fd, 8, 0)
            return int(struct.unpack("<Q", data)[0]) if len(data) == 8 else 0
        else:
            (self._folder / worker_id).unlink(missing_ok=True)
            return None
        finally:
            os.close(fd)

    async def drop(self) -> None:
        """Give the lock up and remove the file."""
        self.leave()

    def leave(self) -> None:
        """Do the same where no event loop runs any more."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        self.die()

    def die(self) -> None:
        """Give the lock up as death would: the file stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _close_copy(liveness: FileLiveness | None) -> None:
    if liveness is not None:
        liveness.die()


class MemoryLiveness:
    """The same for a database in memory: a table of counters."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self._mine: str | None = None

    async def hold(self, worker_id: str) -> None:
        """Enter a new worker."""
        self._mine = worker_id
        self.counters[worker_id] = 1

    async def beat(self) -> None:
        """Move the counter on."""
        if self._mine in self.counters:
            self.counters[self._mine] += 1

    async def look(self, worker_id: str) -> int | None:
        """Return a worker's counter, or None if it is gone."""
        return self.counters.get(worker_id)

    async def drop(self) -> None:
        """Take the worker out."""
        self.leave()

    def leave(self) -> None:
        """Do the same where no event loop runs any more."""
        if self._mine is not None:
            self.counters.pop(self._mine, None)
            self._mine = None

    def die(self) -> None:
        """Leave as death would."""
        self.leave()
