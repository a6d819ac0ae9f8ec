"""Group commit: commands gather while a batch commits on the writer thread; no timer.

A lone command is committed on the loop thread itself while commits are quick and nobody else is
waiting. One writer connection per process, so that commits of one execution keep their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from polos.core.model import Change, Published
from polos.errors import PolosError, StoreBusyError, StoreClosedError, StoreReadOnlyError
from polos.store.commands import Command, Crashed, Gate, Result, call_back, seal, settle
from polos.store.lining import Lining
from polos.store.sqlite import batch, transactions
from polos.store.sqlite.connection import (
    UNSTORABLE,
    Location,
    connect,
    migrate,
    store_error,
    translated,
)
from polos.store.sqlite.liveness import FileLiveness, MemoryLiveness

__all__ = ["Committer", "Crashed", "MemoryDatabase"]

log = logging.getLogger("polos.store")
T = TypeVar("T")

INLINE_MAX_SECONDS = 0.001
"""A commit is made on the loop thread only while it takes less than this (DESIGN §3)."""
BATCH_MAX = 2000
EARLY = 250
"""So many commands are worth a commit before the loop has gone round."""

Verb = tuple[Callable[[apsw.Connection], Any], asyncio.Future[Any]]
_Batch = tuple[list[Command], list[Command], list[Verb]]
"""Commands, what is written of them, and verbs."""


class MemoryDatabase:
    """A database in memory that outlives the store that uses it, as a file would."""

    def __init__(self) -> None:
        self.connection = connect(Location("sqlite://"))
        self.liveness = MemoryLiveness()

    async def recorded(self) -> set[str]:
        """Return the keys of the steps, of all executions, that are recorded (for tests)."""
        found = self.connection.execute(
            "SELECT key FROM step WHERE turn IS NOT NULL AND key IS NOT NULL"
        )
        return {str(key) for (key,) in found}


class Committer:
    """Owns the connections to one database, and writes commands and verbs in batches."""

    def __init__(self, location: Location, memory: MemoryDatabase | None = None) -> None:
        self.path = location.path
        self.liveness: FileLiveness | MemoryLiveness = (
            (memory or MemoryDatabase()).liveness if location.memory else FileLiveness(self.path)
        )
        self.read_only = location.read_only
        self.gate: Gate | None = None
        self.lining = Lining()
        self.commits = 0
        self.on_bell: Callable[[set[str]], None] = lambda topics: None
        self.on_published: Callable[[Published], None] = lambda published: None
        self.location = location
        self._memory = memory
        self._published: list[Published] = []
        """What committed transactions brought, and the loop was not told yet."""
        self._in_flight = False
        self._scheduled = False
        self._closed = False
        self._pending: list[Command] = []
        self._verbs: list[Verb] = []
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._idle: asyncio.Event | None = None
        self._commit_seconds = 0.0 if location.memory else INLINE_MAX_SECONDS / 2
        self._threaded = not location.memory and location.commit != "inline"
        self._never_inline = location.commit == "thread"
        self._foreign = 0
        self._foreign_known = 0
        self._works = 0
        """Pending changes with work."""
        self._killed = False

    # -- life ---------------------------------------------------------------------------------

    @translated
    def _connect(self) -> None:
        given = self._memory.connection if self._memory is not None else None
        self._writer = given or connect(self.location)
        migrate(self._writer, self.path, read_only=self.read_only)
        self.reader = self._writer if self.location.memory else connect(self.location)
        self._data_version = self._read_data_version()

    async def open(self) -> None:
        """Connect and migrate; StoreError if the database cannot be used."""
        self._loop = asyncio.get_running_loop()
        self._ready: Sequence[Any] = getattr(self._loop, "_ready", ())
        self._connect()

    async def close(self) -> None:
        """Write what was submitted, then close the connections."""
        if self._closed:
            return
        self._closed = True
        while self._in_flight or self._pending or self._verbs:
            self._idle = asyncio.Event()
            self._schedule()
            await self._idle.wait()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        if self._memory is None:
            self.reader.close()
            self._writer.close()

    @property
    def busy(self) -> bool:
        """Say whether the database has the word: never where it is asked on the spot."""
        return False

    def kill(self) -> None:
        """Stop as death would: nothing more is written, the lock is free."""
        self._killed = True
        self._closed = self._in_flight = True
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        self.liveness.die()
        if self._memory is None:
            self.reader.close()
            self._writer.close()

    # -- commands -----------------------------------------------------------------------------

    def submit(self, command: Command) -> None:
        """Hand over a command for the next batch."""
        self._pending.append(command)
        if len(self._pending) >= EARLY and not self._in_flight and self._threaded:
            self._flush()  # the writer commits these while the loop goes on with the others
        else:
            self._schedule()

    async_transactions = False

    def transact(self, command: Change) -> None:
        """Hand over a change with work: it is a batch by itself."""
        self._works += 1
        self._pending.append(command)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._in_flight:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def commit_now(self, command: Command) -> bool:
        """Commit a lone command on the loop thread if that is cheap now; then call it back."""
        if (
            self._in_flight
            or self._pending
            or self._verbs
            or self._never_inline
            or (self._threaded and (self._is_slow() or len(self._ready) > 0))
        ):
            return False
        sealed = seal(command, self.lining)
        begun = time.perf_counter()
        if self._threaded:
            self._writer.set_busy_timeout(0)
        try:
            result = self._write_one(sealed)
        except apsw.BusyError:
            self._pending.append(command)
            self._schedule()
            return True
        except (apsw.Error, *UNSTORABLE) as error:
            result = store_error(error, self.path)
        except Crashed:
            self._in_flight = True
            return True
        finally:
            if self._threaded:
                self._writer.set_busy_timeout(int(self.location.busy_timeout * 1000))
        self._measure(time.perf_counter() - begun)
        self._tell()
        call_back(sealed, result)
        return True

    def _tell(self) -> None:
        if self._published:
            told, self._published = self._published, []
            for published in told:
                self.on_published(published)

    def _is_slow(self) -> bool:
        return self._commit_seconds >= INLINE_MAX_SECONDS

    def _measure(self, seconds: float) -> None:
        self._commit_seconds += (seconds - self._commit_seconds) * 0.05

    def _write_one(self, command: Command) -> Result:
        if isinstance(command, Change) and batch.is_lone_row(command):
            if self.gate is not None:
                return self._transaction([command], [])[0]
            self.commits += 1
            return batch.write_lone_row(self._writer, command)
        return self._transaction([command], [])[0]

    def _flush(self) -> None:
        self._scheduled = False
        if self._in_flight or not (self._pending or self._verbs):
            return
        count = self._batch_size() if self._works else BATCH_MAX
        commands = self._pending[:count]
        self._pending = self._pending[count:]
        todo: list[Verb] = []
        if not (self._works and _has_work(commands)):
            todo, self._verbs = self._verbs, []
        sealed = [seal(command, self.lining) for command in commands]
        self._in_flight = True
        if not self._threaded:
            with contextlib.suppress(Crashed):
                self._finish(commands, sealed, self._attempt(sealed, todo))
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="polos-writer", daemon=True)
            self._thread.start()
        self._queue.put((commands, sealed, todo))

    def _batch_size(self) -> int:
        """Return how many of the pending commands are one batch: one with work stands alone."""
        for place, command in enumerate(self._pending[:BATCH_MAX]):
            if _has_work([command]):
                return max(place, 1)
        return BATCH_MAX

    def _on_loop(self, call: Callable[[], None]) -> None:
        if self._threaded:
            transactions.on_loop(self._loop, call, self.path, lambda: self._killed)
        else:
            call()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            commands, sealed, todo = work
            begun = time.perf_counter()
            settled = self._attempt(sealed, todo)
            if len(commands) == 1:
                self._measure(time.perf_counter() - begun)
            try:
                self._loop.call_soon_threadsafe(self._finish, commands, sealed, settled)
            except RuntimeError:  # the loop was closed without us: the commit stands
                return

    def _finish(self, commands: list[Command], sealed: list[Command], settled: _Settled) -> None:
        self._in_flight = False
        again = [c for c, r in zip(commands, settled.results, strict=True) if r is _AGAIN]
        self._pending[:0] = again
        self._tell()
        for written, result in zip(sealed, settled.results, strict=True):
            if result is not _AGAIN:
                self._works -= self._works and _has_work([written])
                call_back(written, result)
        for future, value, error in settled.verbs:
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
        if self._pending or self._verbs:
            self._schedule()
        elif self._idle is not None:
            self._idle.set()

    # -- transactions (on the writer thread, or inline) ---------------------------------------

    def _attempt(self, commands: list[Command], todo: list[Verb]) -> _Settled:
        """Write a batch; a command that fails by itself does not take the others with it."""
        settled = _Settled(self.path)
        try:
            if self._works and _has_work(commands):
                settled.results = [self._work(commands[0])]
            else:
                settled.results = self._transaction(commands, settled.run(todo))
        except StoreClosedError as error:
            settled.results = [error]
        except (apsw.Error, *UNSTORABLE) as error:
            settled.verbs.clear()
            known = store_error(error, self.path)
            if isinstance(known, StoreBusyError):
                log.warning("%s; running steps wait for it", known)
            if isinstance(error, _OWN_FAULT):
                self._halve(commands, todo, settled, known)
                return settled
            # Running steps are not failed because the database was away for a while.
            keep = isinstance(known, StoreBusyError) and not self._closed
            settled.results = [
                _AGAIN if keep and isinstance(c, Change) else known for c in commands
            ]
            settled.verbs = [(future, None, known) for _, future in todo]
        return settled

    def _halve(
        self, commands: list[Command], todo: list[Verb], settled: _Settled, error: Exception
    ) -> None:
        if len(commands) <= 1 and not todo:
            settled.results = [error for _ in commands]
            return
        if todo:
            first, second = self._attempt(commands, []), self._attempt([], todo)
        else:
            middle = len(commands) // 2
            first = self._attempt(commands[:middle], [])
            second = self._attempt(commands[middle:], [])
        settled.results = first.results + second.results
        settled.verbs = first.verbs + second.verbs

    def _work(self, command: Command) -> Result:
        """Write a change that is formed by its work, inside its transaction."""
        assert isinstance(command, Change)
        if command.work is not None and command.work.is_formed:
            # It was rolled back: the execution goes on from its last commit.
            return StoreBusyError(f"{self.path}: a transaction of a step was not committed")
        if self.gate is not None:
            self.gate("begin")
        published = Published()
        with _Transaction(self._writer):
            if batch.is_owned(self._writer, command):
                transactions.run(self._writer, command, self._on_loop)
            written = self.lining.change(command)
            result = batch.write(self._writer, [written], self.lining, published)[0]
            settle(command, written)
            if self.gate is not None:
                self.gate("before")
        self._committed(published)
        return result

    def _transaction(
        self, commands: list[Command], extras: Sequence[Callable[[apsw.Connection], None]]
    ) -> list[Result]:
        if self.gate is not None:
            self.gate("begin")
        published = Published()
        with _Transaction(self._writer):
            results: list[Result] = []
            if commands:
                results = batch.write(self._writer, commands, self.lining, published)
            for extra in extras:
                extra(self._writer)
            if self.gate is not None:
                self.gate("before")
        self._committed(published)
        return results

    def _committed(self, published: Published) -> None:
        self.commits += 1
        if published.events or published.woken:
            self._published.append(published)
        if self._threaded:
            self._note_data_version()
        if self.gate is not None:
            self.gate("after")

    # -- other processes ----------------------------------------------------------------------

    def _read_data_version(self) -> int:
        return int(next(iter(self._writer.execute("PRAGMA data_version")))[0])

    def _note_data_version(self) -> None:
        version = self._read_data_version()
        if version != self._data_version:
            self._data_version = version
            self._foreign += 1

    def foreign_commits(self) -> bool:
        """Say whether another process may have committed since the last call."""
        known, self._foreign_known = self._foreign_known, self.foreign_count()
        return self._foreign_known != known

    def foreign_count(self) -> int:
        """Count how often another process was seen to have committed."""
        if not self._in_flight and not self._closed and not self.location.memory:
            self._note_data_version()
        return self._foreign

    # -- verbs and reads ----------------------------------------------------------------------

    def demand_writable(self) -> None:
        """Raise unless the store is open and takes writes."""
        if self._closed:
            raise StoreClosedError(f"{self.path}: the client was closed; open a new one")
        if self.read_only:
            raise StoreReadOnlyError(
                f"{self.path}: opened with mode=ro, which only looks; open it without to change "
                "anything"
            )

    def do(self, verb: Callable[[apsw.Connection], T]) -> asyncio.Future[T]:
        self.demand_writable()
        future: asyncio.Future[T] = self._loop.create_future()
        self._verbs.append((verb, future))
        self._schedule()
        return future

    @translated
    def read(self, query: Callable[..., T], *arguments: Any) -> T:
        if self._closed:
            raise StoreClosedError(f"{self.path}: the client was closed; open a new one")
        return query(self.reader, *arguments)


def _has_work(commands: Sequence[Command]) -> bool:
    first = commands[0] if commands else None
    return isinstance(first, Change) and first.work is not None


_OWN_FAULT = (apsw.ConstraintError, apsw.TooBigError, apsw.MismatchError, *UNSTORABLE)
"""Errors that one command brings about by itself, whatever else is in its batch."""


class _Transaction:
    """What is written in its block is committed, or rolled back."""

    __slots__ = ("_writer",)

    def __init__(self, writer: apsw.Connection) -> None:
        self._writer = writer

    def __enter__(self) -> None:
        self._writer.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        writer = self._writer
        try:
            if kind is None:
                writer.execute("COMMIT")
        finally:
            if writer.in_transaction:
                writer.execute("ROLLBACK")


class _Again(Exception):
    """Marks a command that goes into the next batch."""


_AGAIN = _Again()


class _Settled:
    """What became of a batch."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.results: list[Result] = []
        self.verbs: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []

    def run(self, todo: list[Verb]) -> list[Callable[[apsw.Connection], None]]:
        """Return functions that run the verbs, each by itself, and keep their results."""
        return [self._runner(verb, future) for verb, future in todo]

    def _runner(
        self, verb: Callable[[apsw.Connection], Any], future: asyncio.Future[Any]
    ) -> Callable[[apsw.Connection], None]:
        def run(connection: apsw.Connection) -> None:
            connection.execute("SAVEPOINT verb")
            try:
                value = verb(connection)
            except PolosError as error:
                connection.execute("ROLLBACK TO verb")
                self.verbs.append((future, None, error))
            except _OWN_FAULT as error:
                connection.execute("ROLLBACK TO verb")
                self.verbs.append((future, None, store_error(error, self._path)))
            else:
                self.verbs.append((future, value, None))
            connection.execute("RELEASE verb")

        return run
