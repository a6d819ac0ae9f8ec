"""Connections to the server: prepared statements, lost connections, and its errors as ours."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from socket import SHUT_RDWR
from typing import Any, TypeVar

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
from asyncpg.exceptions import _base as driver  # pyright: ignore[reportMissingTypeStubs]

from polos.errors import (
    PolosError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    UsageError,
)
from polos.store.postgres.location import Location

T = TypeVar("T")
Connection = Any
"""A connection of asyncpg, which has no types to speak of."""
ServerError = asyncpg.PostgresError
NotAllowed = asyncpg.InsufficientPrivilegeError

CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 30.0
"""A statement without an answer for so long is taken as a lost connection."""
PAUSE_MAX_SECONDS = 1.0
IDLE_SECONDS = 5
"""A process that freezes within a transaction may keep its locks for so long: less than it takes
to be declared dead, so that whoever takes over does not wait for it."""
CLOSE_SECONDS = 2.0
"""A connection that cannot say good-bye in so long is dropped."""
LINKS_MAX = 4
"""Connections of a process for reads and rare verbs, beside the writer's and the session's."""

LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    driver.InternalClientError,  # a connection that broke in the middle of an answer; no host fits
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,  # somebody's pg_cancel_backend, or a statement_timeout of the role
    asyncpg.ReadOnlySQLTransactionError,  # a standby that is about to be promoted, or a demoted one
)
"""The connection or the server is gone: nobody knows whether what was sent was done."""
STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
"""A newer release has changed a table since the statement was prepared."""


class LateWaiters(Exception):
    """Executions began to wait for a topic just before it was locked, and are locked themselves.

    They come after the topic in the order of locks: the transaction begins anew, and locks them
    first.
    """


AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, LateWaiters, *STALE)
"""Nothing was done: send it again."""
OWN_FAULT = (
    asyncpg.DataError,
    driver.DataError,  # the driver could not encode a value
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
"""Errors that one command brings about by itself, whatever else is in its batch."""


def store_error(error: BaseException, location: Location) -> StoreError:
    """Return our error for one of the server's or the driver's: what happened, what to do."""
    where = f"{location.shown} (schema {location.schema})"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StoreError(
            f"{where}: {error}; the role must own the schema, or an owner must create it first: "
            f'CREATE SCHEMA "{location.schema}" AUTHORIZATION role'
        )
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return StoreError(f"{where}: {error}; check user and password of the URL")
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StoreError(f"{where}: {error}; create it first, or name another in the URL")
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return StoreReadOnlyError(
            f"{where}: {error}; open it without mode=ro, on a server that takes writes"
        )
    if isinstance(error, asyncpg.DiskFullError | asyncpg.OutOfMemoryError):
        return StoreFullError(
            f"{where}: {error}; free space on the server: executions go on from their last commit"
        )
    if isinstance(error, LOST):
        return StoreUnavailableError(
            f"{where}: the database cannot be reached ({type(error).__name__}: {error}); check "
            "the URL and that the server runs"
        )
    return StoreError(f"{where}: {error}")


class RefusedError(ConnectionError):
    """A server that was used before refuses a connection now: it may be put right again."""


# What a role or a database has set for its other programs must not change what statements mean.
_OURS = {
    "search_path": "pg_catalog",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
    "jit": "off",
    # Every statement finds its rows by the order of an index. With statistics that are missing or
    # old the planner may think otherwise, and read a whole table each time it looks for work.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
}
# Every statement of the writer goes by a key, whatever its arguments.
_WRITERS = {
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}


def _settings(location: Location, *, durable: bool = True) -> dict[str, str]:
    full = durable and location.synchronous == "full"
    return _OURS | {"synchronous_commit": "on" if full else "off"}


def _set_local(location: Location) -> str:
    return "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in _settings(location).items())


async def reconnect(
    location: Location, dsn: str, *, writer: bool = False, durable: bool = True
) -> Connection:
    """Connect to a server that has been used before (see `connect`); raises one of `LOST`."""
    try:
        return await connect(location, dsn, writer=writer, durable=durable)
    except LOST:
        raise
    except asyncpg.PostgresError as error:
        # A password that was changed, a database that is being restored: nothing fails by it.
        raise RefusedError(f"{type(error).__name__}: {error}") from error


async def connect(
    location: Location, dsn: str, *, writer: bool = False, durable: bool = True
) -> Connection:
    """Connect once; raises one of `LOST` or another error of the driver.

    `durable=False` is for beats and bells, which need not survive a crash of the server.
    """
    settings: dict[str, str] = {"application_name": "polos"}
    direct = not location.pooled or dsn == location.direct
    if direct:
        settings |= _settings(location, durable=durable)
        if location.read_only:
            settings["default_transaction_read_only"] = "on"
        if writer:
            settings |= _WRITERS
    driver_: Any = asyncpg
    opening = driver_.connect(
        dsn,
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        statement_cache_size=100 if direct else 0,
        server_settings=settings,
    )
    # In a task of its own: one that is given up half-way would leave its socket open.
    task = asyncio.Task(opening, loop=asyncio.get_running_loop(), context=Context())
    try:
        return await asyncio.shield(task)
    except asyncpg.ClientConfigurationError as error:
        raise UsageError(f"{location.shown}: {error}") from error
    except asyncio.CancelledError:
        task.add_done_callback(_hang_up)
        raise


def _hang_up(task: asyncio.Task[Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


class Link:
    """One connection with its prepared statements; `{s}` in their text is the schema."""

    __slots__ = ("_pooled", "_prepared", "_schema", "_settings", "_texts", "connection")

    def __init__(self, connection: Connection, location: Location, *, direct: bool = False) -> None:
        self.connection = connection
        self._schema = f'"{location.schema}"'
        self._pooled = location.pooled and not direct
        self._settings = _set_local(location) if self._pooled else ""
        self._prepared: dict[str, Any] = {}
        self._texts: dict[str, str] = {}

    def prepared(self, statement: str) -> Any:
        """Return a statement as asyncpg has prepared it here, or None if it has not yet."""
        return None if self.connection.is_closed() else self._prepared.get(statement)

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Run a statement and return its rows."""
        if self._pooled:
            return await self._unprepared(self.connection.fetch, statement, arguments)
        return (await self._run(statement, arguments))[0]

    async def execute(self, statement: str, *arguments: Any) -> str:
        """Run a statement that returns no rows, and return what it did, as in `UPDATE 1`."""
        if self._pooled:
            return await self._unprepared(self.connection.execute, statement, arguments)
        return (await self._run(statement, arguments))[1].get_statusmsg()

    async def _run(self, statement: str, arguments: Sequence[Any]) -> tuple[list[Any], Any]:
        prepared = self._prepared.get(statement)
        if prepared is None:
            text = statement.replace("{s}", self._schema)
            prepared = self._prepared[statement] = await self.connection.prepare(text)
        try:
            return await prepared.fetch(*arguments), prepared
        except STALE:
            self._prepared.clear()
            raise

    async def _unprepared(
        self, run: Callable[..., Awaitable[Any]], statement: str, arguments: Sequence[Any]
    ) -> Any:
        # PgBouncer keeps one server connection for the length of a transaction only.
        text = self._texts.get(statement)
        if text is None:
            text = self._texts[statement] = statement.replace("{s}", self._schema)
        if self.connection.is_in_transaction():
            return await run(text, *arguments)
        async with self.transaction():
            return await run(text, *arguments)

    async def row(self, statement: str, *arguments: Any) -> Any:
        """Run a statement and return its first row, or None."""
        found = await self.fetch(statement, *arguments)
        return found[0] if found else None

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Commit what happens inside, or nothing of it."""
        if self._pooled:
            return self._pooled_transaction()
        # No generator of our own around it: one that is left open at the end of a loop complains.
        begun: AbstractAsyncContextManager[Any] = self.connection.transaction()
        return begun

    @asynccontextmanager
    async def _pooled_transaction(self) -> AsyncGenerator[None]:
        # Behind PgBouncer a connection has no settings of its own: said each time.
        async with self.connection.transaction(isolation="read_committed"):
            await self.connection.execute(self._settings)
            yield

    def drop(self) -> None:
        """Close at once, without a word to the server."""
        self.connection.terminate()

    async def close(self) -> None:
        """Say good-bye and close; in `CLOSE_SECONDS`, whatever the server does."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.connection.close(timeout=CLOSE_SECONDS)
        except LOST:
            self.drop()

    def server_pids(self) -> list[int]:
        """Return the process of the server behind the connection, if it is open."""
        return [] if self.connection.is_closed() else [self.connection.get_server_pid()]

    def hang_up(self) -> None:
        """End the session at the end of the process, when its event loop may not run any more."""
        transport = self.connection._transport
        socket = None if transport is None else transport.get_extra_info("socket")
        if socket is not None:
            with contextlib.suppress(OSError):
                socket.shutdown(SHUT_RDWR)


class Pauses:
    """Growing pauses between tries, each a little different from those of other processes."""

    def __init__(self) -> None:
        self._seconds = 0.02

    async def rest(self) -> None:
        """Pause, longer each time."""
        await asyncio.sleep(self._seconds * random.uniform(0.7, 1.3))
        self._seconds = min(self._seconds * 1.6, PAUSE_MAX_SECONDS)


class Pool:
    """A few connections for reads and for verbs that are not hot, opened when they are needed."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._idle: list[Link] = []
        self._in_use: set[Link] = set()
        self._places = asyncio.Semaphore(LINKS_MAX)
        self._closed = False

    async def _take(self) -> Link:
        if self._closed:
            raise StoreClosedError(
                f"{self._location.shown}: the client was closed; make a new PolosClient"
            )
        while self._idle:
            link = self._idle.pop()
            if not link.connection.is_closed():
                return link
        link = Link(await reconnect(self._location, self._location.dsn), self._location)
        if self._closed:
            link.drop()
        return link

    async def _once(
        self, work: Callable[[Link, bool], Awaitable[T]], *, write: bool, again: bool
    ) -> T:
        async with self._places:
            link = await self._take()
            self._in_use.add(link)
            given_up = False
            try:
                if not write:
                    return await work(link, again)
                async with link.transaction():
                    try:
                        return await work(link, again)
                    except asyncio.CancelledError:
                        # Now: the end of the transaction would wait for a server that may say
                        # nothing.
                        given_up = True
                        link.drop()
                        raise
            except (*LOST, asyncio.CancelledError) as error:
                link.drop()  # whatever it was doing
                if given_up:  # the driver complains of the connection instead
                    raise asyncio.CancelledError from error
                raise
            finally:
                self._in_use.discard(link)
                if self._closed or link.connection.is_closed():
                    link.drop()
                else:
                    self._idle.append(link)

    async def run(self, work: Callable[[Link, bool], Awaitable[T]], *, write: bool = False) -> T:
        """Run `work(link, again)`, in a transaction if it writes, until the server has answered.

        `again` says that it was sent before, and may have been done. While the database is away,
        this waits for it as long as the URL's `away` allows, then raises `StoreUnavailableError`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._location.away_seconds
        pauses, again = Pauses(), False
        while True:
            try:
                return await self._once(work, write=write, again=again)
            except PolosError:
                raise
            except AGAIN:
                continue
            except LOST as error:
                read_only = isinstance(error, asyncpg.ReadOnlySQLTransactionError)
                if loop.time() > deadline or (read_only and self._location.read_only):
                    raise store_error(error, self._location) from error
                again = True
            except asyncpg.PostgresError as error:
                raise store_error(error, self._location) from error
            await pauses.rest()

    def drop(self) -> None:
        """Close all at once."""
        self._closed = True
        for link in [*self._idle, *self._in_use]:
            link.drop()
        self._idle.clear()

    def server_pids(self) -> list[int]:
        """Return the processes of the server behind all of them."""
        return [pid for link in [*self._idle, *self._in_use] for pid in link.server_pids()]

    def hang_up(self) -> None:
        """End all sessions (see `Link.hang_up`)."""
        self._closed = True
        for link in [*self._idle, *self._in_use]:
            link.hang_up()

    async def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(link.close() for link in idle))
