"""The direct connection of a process: its lock and its beat, what it sees, and its bells.

The lock dies with the session, the counter stands still when the process freezes. Both, and all
that a worker looks at between times, travel in one statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
from typing import Any, TypeVar

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from polos.core import versions
from polos.core.model import Neighbour, Survey
from polos.core.upkeep import Need
from polos.errors import StoreError
from polos.store import rows
from polos.store.postgres import queries
from polos.store.postgres.links import (
    AGAIN,
    CLOSE_SECONDS,
    LOST,
    Connection,
    Link,
    Pauses,
    Pool,
    ServerError,
    reconnect,
    store_error,
)
from polos.store.postgres.location import Location

log = logging.getLogger("polos.store")
T = TypeVar("T")

BELL_SECONDS = 0.02
"""Bells of a process are rung together, at most so often."""
STEADY_SECONDS = 5.0
"""A server that restarted, or a session that was lost, frees locks of processes that live: for so
long a free lock says nothing."""

PAYLOAD_MAX = 7000
NAME_MAX = 63
DROP_SECONDS = 2.0
"""Giving up a lock takes so long at most: it goes with the connection all the same."""
EVERYTHING = "all"
"""Rung where there is too much to name (PostgreSQL takes 8,000 bytes)."""

_NOTIFY = "SELECT pg_notify($1, $2)"
_HOLD = (
    "INSERT INTO {s}.beat (worker_id, lock_key, count) VALUES ($1, $2, 1) "
    "ON CONFLICT (worker_id) DO UPDATE SET lock_key = excluded.lock_key"
)
_LOCK = "SELECT pg_try_advisory_lock($1, $2)"
_UNLOCK = "SELECT pg_advisory_unlock_all()"
_DROP = "DELETE FROM {s}.beat WHERE worker_id = $1"
_BEAT = "UPDATE {s}.beat SET count = count + 1 WHERE worker_id = $1"
# A worker without a direct connection has no lock: only its counter speaks for it.
_LOCKED = (
    "(b.lock_key IS NULL OR EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND l.classid = ({space})::bigint::oid AND l.objid = b.lock_key::oid AND l.objsubid = 2 "
    "AND l.granted))"
)
_LOOK = f"SELECT b.count, {_LOCKED} FROM {{s}}.beat b WHERE b.worker_id = $1"
_HELD = f"SELECT b.worker_id FROM {{s}}.beat b WHERE b.worker_id = ANY($1::text[]) AND {_LOCKED}"
_AS_JSON = "SELECT json_agg(json_build_array(n.workflow_id, n.deployment_id, n.code_version))"
# $1 worker, $2 workflows, $3 takes queue, $4 now, $5 now less the head start, $6 one,
# $7 queued before, $8 asked to end before.
_SURVEY = (
    "WITH beat AS (UPDATE {s}.beat SET count = count + 1 WHERE worker_id = $1), live AS ("
    f"SELECT w.*, coalesce(b.count, 0) AS count, {_LOCKED} AS locked "
    "FROM {s}.worker w LEFT JOIN {s}.beat b ON b.worker_id = w.id WHERE w.stopped_at IS NULL) "
    "SELECT NOT EXISTS (SELECT 1 FROM {s}.worker WHERE id = $1 AND stopped_at IS NULL), "
    f"(SELECT json_agg(json_build_array({rows.WORKER_COLUMNS}, count, locked)) FROM live), "
    f"({_AS_JSON} FROM ({queries.BLOCKED_NEEDS}) n), "
    f"({_AS_JSON} FROM ({queries.DUE_NEEDS}) n), "
    f"EXISTS ({queries.OVERDUE_CANCEL.replace('$1', '$8')}) "
    f"OR EXISTS ({queries.OVERDUE_TIME.replace('$1', '$8')}), "
    "ARRAY(SELECT id FROM {s}.execution WHERE cancel_requested_at IS NOT NULL "
    "AND completed_at IS NULL AND cancel_delivered_at IS NULL AND worker_id = $1), "
    f"EXISTS ({queries.CLAIMABLE}), "
    f"({queries.LATER_WAKE}), "
    "EXISTS (SELECT 1 FROM {s}.event_trigger t JOIN {s}.topic p ON p.name = t.topic "
    "WHERE t.workflow_id = ANY($2::text[]) AND p.last > t.last), "
    "extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
)


class Session:
    """Keeps a direct connection open, and says so; `Liveness` of `polos.store.protocol`."""

    def __init__(self, location: Location, pool: Pool, on_bell: Callable[[set[str]], None]) -> None:
        self._location = location
        self._pool = pool
        self._on_bell = on_bell
        self._context = Context()
        self._space = zlib.crc32(f"polos {location.schema}".encode())
        self._channel = _channel(location.schema)
        self._link: Link | None = None
        self._turn = asyncio.Lock()
        self.steady_seconds = STEADY_SECONDS
        self._since = 0.0
        self._lost_before = False
        self._held: str | None = None
        self._locked = False
        self._closed = False
        self._running = 0
        self._pid = 0
        self._ringing: set[str] = set()
        self._bell_task: asyncio.Task[None] | None = None
        self._revival: asyncio.Task[None] | None = None

    # -- the connection -----------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and listen, unless there is only a pooler to connect to."""
        if self._location.direct is not None:
            await self._connect()

    async def _connect(self) -> Link:
        link = self._link
        if link is not None and not link.connection.is_closed():
            return link
        dsn = self._location.direct
        assert dsn is not None
        connection = await reconnect(self._location, dsn, durable=False)
        link = self._link = Link(connection, self._location, direct=True)
        self._pid = connection.get_server_pid()
        if self._closed:
            link.drop()
        self._locked = False
        try:
            if self._location.bells:
                await self._listen(connection)
            if self._held is not None:
                await self._take_lock(link, self._held)
        except BaseException:
            link.drop()
            raise
        self._since = asyncio.get_running_loop().time()
        connection.add_termination_listener(self._on_lost)
        return link

    async def _listen(self, connection: Connection) -> None:
        try:
            await connection.add_listener(self._channel, self._heard)
        except asyncpg.ReadOnlySQLTransactionError:
            if not self._location.read_only:
                raise
            # A standby: nobody can ring there, and who only looks can poll.

    async def _take_lock(self, link: Link, worker_id: str) -> None:
        """Take the lock and enter the counter, which a crash of the server may have lost.

        The server may not have noticed yet that the session before is gone; then it still holds
        the lock, and this is tried again with every look around.
        """
        self._locked = (await link.row(_LOCK, *self._lock_of(worker_id)))[0]
        await link.fetch(_HOLD, worker_id, _lock_key(worker_id))

    def _on_lost(self, connection: Connection) -> None:
        del connection
        self._lost_before = True
        if not self._closed and self._revival is None:
            self._revival = self._spawn(self._revive())

    async def _revive(self) -> None:
        # At once, for whoever looks sees a free lock.
        pauses = Pauses()
        try:
            while not self._closed:
                with contextlib.suppress(*LOST):
                    async with self._turn:
                        await self._connect()
                    self._on_bell({"queue", "ended"})  # what rang meanwhile was not heard
                    return
                await pauses.rest()
        finally:
            self._revival = None

    async def _run(self, work: Callable[[Link], Awaitable[T]]) -> T:
        """Run something on the session, for as long as it takes to reach the server."""
        self._running += 1
        try:
            return await self._run_until_done(work)
        finally:
            self._running -= 1

    async def _run_until_done(self, work: Callable[[Link], Awaitable[T]]) -> T:
        if self._location.direct is None:
            return await self._pool.run(lambda link, _: work(link), write=True)
        pauses = Pauses()
        while True:
            try:
                async with self._turn:
                    return await work(await self._connect())
            except AGAIN:
                continue
            except LOST as error:
                if self._closed:
                    raise
                if self._link is not None:
                    self._link.drop()
                log.debug("session: %s: %s", type(error).__name__, error)
            except ServerError as error:
                raise store_error(error, self._location) from error
            await pauses.rest()

    @property
    def busy(self) -> bool:
        """Say whether something is on its way."""
        return self._running > 0

    def _spawn(self, job: Any) -> asyncio.Task[None]:
        return asyncio.Task(job, loop=asyncio.get_running_loop(), context=self._context.copy())

    # -- liveness -----------------------------------------------------------------------------

    def _lock_of(self, worker_id: str) -> tuple[int, int]:
        return _signed(self._space), _signed(_lock_key(worker_id))

    async def hold(self, worker_id: str) -> None:
        """Take the lock of a new worker of this process, and begin its counter."""

        async def work(link: Link) -> None:
            if self._location.direct is None:
                await link.fetch(_HOLD, worker_id, None)
            else:
                await self._take_lock(link, worker_id)

        self._held = worker_id
        await self._run(work)

    async def beat(self) -> None:
        """Move the counter on."""
        if self._held is not None:
            held = self._held
            await self._run(lambda link: link.fetch(_BEAT, held))

    async def look(self, worker_id: str) -> int | None:
        """Return another worker's counter, or None if its lock is free."""
        statement = _LOOK.replace("{space}", str(self._space))
        found = await self._run(lambda link: link.row(statement, worker_id))
        return found[0] if found is not None and found[1] else None

    async def held(self, worker_ids: list[str]) -> set[str]:
        """Return those of the workers whose lock is held."""
        statement = _HELD.replace("{space}", str(self._space))
        found = await self._run(lambda link: link.fetch(statement, worker_ids))
        return {id_ for (id_,) in found}

    async def drop(self) -> None:
        """Give the lock up."""
        held, self._held = self._held, None
        if held is None:
            return

        if self._location.direct is None:
            with contextlib.suppress(TimeoutError, StoreError):  # others see that it beats no more
                async with asyncio.timeout(DROP_SECONDS):
                    await self._pool.run(lambda link, _: link.fetch(_DROP, held), write=True)
            return
        # Once only: where the server is away, the lock went with the session.
        try:
            async with asyncio.timeout(DROP_SECONDS), self._turn:
                if self._link is not None:
                    await self._link.fetch(_DROP, held)
                    await self._link.fetch(_UNLOCK)
        except (*LOST, asyncpg.PostgresError):  # as of a role that may not write
            if self._link is not None:
                self._link.drop()

    def die(self) -> None:
        """Lose the lock as the death of the process would."""
        self._closed = True
        self._held = None
        if self._link is not None:
            self._link.drop()

    def server_pids(self) -> list[int]:
        """Return the process of the server behind the connection."""
        return [] if self._link is None else self._link.server_pids()

    def hang_up(self) -> None:
        """End the session (see `Link.hang_up`)."""
        self._closed = True
        if self._link is not None:
            self._link.hang_up()

    async def survey(
        self,
        worker_id: str,
        workflows: Sequence[str],
        *,
        takes_queue: bool,
        now: int,
        head_start: int,
        queued_before: int,
        asked_before: int,
    ) -> Survey:
        """Beat, and see what there is to do, in one round trip."""
        statement = _SURVEY.replace("{space}", str(self._space)).replace("{before}", "$7")
        arguments = (worker_id, list(workflows), takes_queue, now, now - head_start, 1)

        async def work(link: Link) -> Any:
            if self._held is not None and not self._locked and self._location.direct is not None:
                await self._take_lock(link, self._held)
            return await link.row(statement, *arguments, queued_before, asked_before)

        record = await self._run(work)
        stopped, live, blocked, due, overdue, to_cancel, claimable, *others = record
        next_wake, triggered, uptime = others
        workers = [
            Neighbour(rows.worker(tuple(each[:-2])), each[-2], locked=each[-1])
            for each in json.loads(live or "[]")
        ]
        neighbours = [each for each in workers if each.worker.id != worker_id]
        unsorted = versions.sort_out(
            [each.worker for each in workers],
            [Need(*each) for each in json.loads(blocked or "[]")],
            [Need(*each) for each in json.loads(due or "[]")],
        )
        age = asyncio.get_running_loop().time() - self._since
        steady = uptime > self.steady_seconds and (
            not self._lost_before or age > self.steady_seconds
        )
        return Survey(
            stopped,
            neighbours,
            any(unsorted),
            overdue,
            to_cancel,
            claimable,
            next_wake,
            triggered,
            steady,
        )

    # -- bells --------------------------------------------------------------------------------

    def _heard(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        del connection, channel
        if pid != self._pid and not self._closed:
            self._on_bell(set(str(payload).split(",")))

    def ring(self, topics: Iterable[str]) -> None:
        """Tell the other processes, soon: never inside a commit, which would serialize them all."""
        if self._location.direct is None or not self._location.bells or self._closed:
            return
        own = f"worker:{self._held}"
        self._ringing |= {topic for topic in topics if topic != own}
        if self._ringing and self._bell_task is None:
            self._bell_task = self._spawn(self._ring())

    async def _ring(self) -> None:
        try:
            while self._ringing and not self._closed:
                topics, self._ringing = self._ringing, set()
                # A bell that is lost costs time, not correctness.
                with contextlib.suppress(*LOST):
                    async with self._turn:
                        if self._link is not None:
                            payload = ",".join(sorted(topics))
                            if len(payload) > PAYLOAD_MAX:
                                payload = EVERYTHING
                            await self._link.fetch(_NOTIFY, self._channel, payload)
                await asyncio.sleep(BELL_SECONDS)
        finally:
            self._bell_task = None

    async def close(self) -> None:
        """Stop listening and close."""
        self._closed = True
        tasks = [task for task in (self._revival, self._bell_task) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        if self._link is not None:
            self._link.connection.remove_termination_listener(self._on_lost)
            await self._link.close()


def _channel(schema: str) -> str:
    name = f"polos_{schema}"
    # A longer name would be cut by LISTEN and refused by pg_notify.
    return name if len(name) <= NAME_MAX else f"polos_{zlib.crc32(schema.encode()):08x}"


def _lock_key(worker_id: str) -> int:
    return zlib.crc32(worker_id.encode())


def _signed(key: int) -> int:
    return key - (1 << 32) if key >= 1 << 31 else key
