"""Group commit: commands gather while a batch is on its way; one writer connection a process.

While the database is away a batch waits, and is sent again when it is back: row keys are derived
and the fence is part of it, so that what was done before the connection was lost is not done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any, NoReturn, TypeVar

from polos.core.model import Change, Publish, Published, Start
from polos.errors import (
    StoreClosedError,
    StoreError,
    StoreReadOnlyError,
)
from polos.store.commands import Command, Crashed, Gate, Result, call_back, seal
from polos.store.lining import Lining
from polos.store.postgres import batch, transactions
from polos.store.postgres.absence import away, closed
from polos.store.postgres.flight import Flight
from polos.store.postgres.links import (
    AGAIN,
    LOST,
    OWN_FAULT,
    Link,
    Pauses,
    Pool,
    ServerError,
    connect,
    reconnect,
    store_error,
)
from polos.store.postgres.location import Location
from polos.store.postgres.migrate import Migration, known, migrate, try_pooled
from polos.store.postgres.session import Session

log = logging.getLogger("polos.store")
T = TypeVar("T")

BATCH_MAX = 2000
CLOSING_SECONDS = 10.0
"""How long a store that is being closed waits for a database that is away, or says nothing."""
LAST_SECONDS = 1.0
"""So long what was given up may take to notice."""


class Committer:
    """Owns the connections to one database, and writes commands in batches."""

    def __init__(self, location: Location, migrations: tuple[Migration, ...] | None = None) -> None:
        self.path = location.shown
        self.location = location
        self.read_only = location.read_only
        self.gate: Gate | None = None
        self.lining = Lining()
        self.commits = 0
        self.on_bell: Callable[[set[str]], None] = lambda topics: None
        self.on_published: Callable[[Published], None] = lambda published: None
        self.in_flight = 0
        """Statements on their way: while there are any, the database has the word."""
        self.left_behind: list[int] = []
        """Processes of the server that served this one until it was killed."""
        self._migrations = known() if migrations is None else migrations
        self._pending: list[Command] = []
        self._writing: asyncio.Future[None] | None = None
        """What writes now: a task for batches, or a lone command in flight."""
        self._transacting: set[asyncio.Task[None]] = set()
        self._link: Link | None = None
        self._closed = False
        self._given_up = False
        """Closed without an answer from the database: nothing is sent any more."""
        self._dead = False
        self._context = Context()

    # -- life ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and migrate; StoreError if the database cannot be used."""
        self._loop = asyncio.get_running_loop()
        self._ready: Sequence[Any] = getattr(self._loop, "_ready", ())
        self._pool = Pool(self.location)
        self.session = self.liveness = Session(self.location, self._pool, self._heard)
        try:
            link = Link(
                await connect(self.location, self.location.direct or self.location.dsn),
                self.location,
                direct=self.location.direct is not None,
            )
            try:
                await migrate(link, self.location, self._migrations)
            finally:
                await link.connection.close()
            await try_pooled(self.location, self._migrations)
            await self.session.open()
        except (*LOST, ServerError) as error:
            raise store_error(error, self.location) from error

    async def close(self) -> None:
        """Write what was submitted, then close the connections; in a bounded time."""
        if self._closed:
            return
        self._closed = True
        if not await self._written_within(CLOSING_SECONDS):
            await self._give_up()
        await self.session.close()
        await self._pool.close()
        if self._link is not None:
            await self._link.close()

    async def _written_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.written()
                if self._transacting:
                    await asyncio.wait(self._transacting)
        return self._dead or (self._writing is None and not self._transacting)

    async def _give_up(self) -> None:
        """Tell whoever waits for what was submitted that the database says nothing."""
        self._given_up = True
        self._drop_link()
        for job in self._transacting:
            job.cancel()
        if not await self._written_within(LAST_SECONDS) and self._writing is not None:
            self._writing.cancel()  # it was connecting
            await asyncio.wait({self._writing})
        for command in self._pending:
            call_back(command, closed(self.path))
        self._pending.clear()

    @property
    def busy(self) -> bool:
        """Say whether the database has the word (for clocks that jump)."""
        return not self._dead and bool(self.in_flight or self._writing or self.session.busy)

    def kill(self) -> None:
        """Stop as death would: nothing more is written, the lock is free."""
        self._closed = self._dead = True
        self.left_behind = [*self._pool.server_pids(), *self.session.server_pids()]
        if self._link is not None:
            self.left_behind += self._link.server_pids()
        self.session.die()
        self._pool.drop()
        self._drop_link()

    def hang_up(self) -> None:
        """End all sessions at the end of the process: what they hold locked would be in the way."""
        self._closed = True
        self.session.hang_up()
        self._pool.hang_up()
        if self._link is not None:
            self._link.hang_up()

    # -- commands -----------------------------------------------------------------------------

    def submit(self, command: Command) -> None:
        """Hand over a command for the next batch."""
        self._pending.append(command)
        if self._writing is None and not self._dead:
            self._write_on()

    def commit_now(self, command: Command) -> bool:
        """Send a command at once, if nothing is on its way and nobody is about to send another."""
        link = self._link
        if (
            self._writing is not None
            or self._pending
            or self.gate is not None
            or link is None
            or self._dead
            or len(self._ready) > 0
        ):
            return False
        command = seal(command, self.lining)
        statement, arguments = batch.lone_statement(command) if batch.lone(command) else ("", ())
        prepared = link.prepared(statement)
        if prepared is None:
            self._write_on([command])
            return True
        self._writing = self._loop.create_future()
        self.in_flight += 1
        Flight(self._fly(command, prepared, arguments), self._ready)
        return True

    async def _fly(self, command: Command, prepared: Any, arguments: Sequence[Any]) -> None:
        try:
            rows = await prepared.fetch(*arguments)
            result = batch.lone_result(command, rows, prepared.get_statusmsg())
        except (*LOST, ServerError, *OWN_FAULT) as error:
            self._landed([command], error)
            return
        except Exception as error:
            # A mistake of ours: whoever waits must hear of it.
            self._landed()
            call_back(command, error)
            raise
        self._landed()
        if not self._dead:
            self._count(command)
            call_back(command, result)

    def _landed(self, commands: Sequence[Command] = (), error: Exception | None = None) -> None:
        """The flight is over: go on with what gathered meanwhile, and what it failed with."""
        flight, self._writing = self._writing, None
        self.in_flight -= 1
        if not self._dead and (commands or self._pending):
            self._write_on(commands, error)
        if flight is not None and not flight.done():
            flight.set_result(None)

    async def written(self) -> None:
        """Return when everything that was submitted is written."""
        while self._writing is not None and not self._dead:
            await asyncio.wait({self._writing})

    async_transactions = True

    def transact(self, command: Change) -> None:
        """Do the work of a change on a connection of its own, beside the other commands."""
        job = asyncio.Task(self._transact(command), loop=self._loop, context=self._context)
        self._transacting.add(job)
        job.add_done_callback(self._transacting.discard)

    async def _transact(self, change: Change) -> None:
        self.in_flight += 1
        result: Result = None
        try:
            written = await self._pool.run(
                lambda link, again: transactions.run(
                    link, change, self._at, self.lining, again=again
                ),
                write=True,
            )
            self.commits += 1
            await self._at("after")
            self.session.ring(written.bells)
            if written.published.events or written.published.woken:
                self.on_published(written.published)
            result = written.results[0]
        except Crashed:
            self._dead = True
        except StoreError as error:
            result = error
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            result = closed(self.path)
        finally:
            self.in_flight -= 1
        if not self._dead:
            call_back(change, result)

    def foreign_commits(self) -> bool:
        """Say no: other processes ring."""
        return False

    def foreign_count(self) -> int:
        """Say nothing: other processes ring."""
        return 0

    def _heard(self, topics: set[str]) -> None:
        self.on_bell(topics)

    def _write_on(self, sealed: Sequence[Command] = (), error: Exception | None = None) -> None:
        """Write in a task, commands that are sealed first; `error`: they have failed with."""
        # In no context of the caller's: it is no task of a workflow's.
        job = self._drain(sealed, error)
        self._writing = asyncio.Task(job, loop=self._loop, context=self._context)

    async def _drain(self, sealed: Sequence[Command], error: Exception | None) -> None:
        try:
            if sealed:
                await self._settle(sealed, error)
            while self._pending:
                commands = self._pending[:BATCH_MAX]
                self._pending = self._pending[BATCH_MAX:]
                sealed = [seal(command, self.lining) for command in commands]
                await self._settle(sealed)
        except Crashed:
            self._dead = True
        finally:
            self._writing = None

    async def _settle(self, commands: Sequence[Command], error: Exception | None = None) -> None:
        self.in_flight += 1
        try:
            results = await self._write(commands, error)
        except Crashed:
            raise
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            results = [closed(self.path)] * len(commands)
        except Exception as fault:
            # A mistake of ours: whoever waits must hear of it.
            for command in commands:
                call_back(command, fault)
            raise
        finally:
            self.in_flight -= 1
        for command, result in zip(commands, results, strict=True):
            if result is not _ANSWERED:
                call_back(command, result)

    async def _write(self, commands: Sequence[Command], failed: Exception | None) -> list[Result]:
        """Write a batch, however often the connection is lost on the way."""
        given_up: dict[int, Result] = {}
        pauses, again, since = Pauses(), False, self._loop.time()
        while True:
            rest = [(n, c) for n, c in enumerate(commands) if n not in given_up]
            try:
                failure, failed = failed, None
                results = await self._attempt([c for _, c in rest], failure, again=again)
                found = given_up | {n: r for (n, _), r in zip(rest, results, strict=True)}
                return [found[n] for n in range(len(commands))]
            except AGAIN:
                continue
            except LOST as error:
                self._drop_link()
                if self._dead:
                    raise Crashed from error
                if not again:
                    log.warning("%s; running steps wait for it", store_error(error, self.location))
                again = True
                seconds = self._loop.time() - since
                if self._given_up or (self._closed and seconds > CLOSING_SECONDS):
                    return [closed(self.path)] * len(commands)
                if seconds > self.location.away_seconds:
                    self._give_up_starts(rest, given_up)
            await pauses.rest()

    def _give_up_starts(
        self, rest: Sequence[tuple[int, Command]], given_up: dict[int, Result]
    ) -> None:
        """Tell callers that the database is away for too long; steps that ran wait on."""
        for n, command in rest:
            if isinstance(command, Publish | Start):
                given_up[n] = _ANSWERED
                call_back(command, away(self.path, self.location.away_seconds, command))

    async def _writer(self) -> Link:
        link = self._link
        if link is None or link.connection.is_closed():
            connection = await reconnect(self.location, self.location.dsn, writer=True)
            link = self._link = Link(connection, self.location)
            if self._dead:
                self._drop_link()
        if self._dead:
            raise Crashed
        return link

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.drop()
            self._link = None

    async def _attempt(
        self, commands: list[Command], failed: Exception | None = None, *, again: bool
    ) -> list[Result]:
        """Write a batch; a command that fails by itself does not take the others with it.

        `failed` is what became of it, if it was sent already.
        """
        if self._given_up:
            return [closed(self.path)] * len(commands)
        if not commands:
            return []
        try:
            if failed is not None:
                raise failed
            link = await self._writer()
            lone = len(commands) == 1 and not again and self.gate is None
            if not (lone and batch.lone(commands[0])):
                return await self._transaction(link, commands, again=again)
            result = await batch.write_lone(link, commands[0])
            self._count(commands[0])
            return [result]
        except OWN_FAULT as error:
            if len(commands) == 1:
                return [store_error(error, self.location)]
            middle = len(commands) // 2
            first = await self._attempt(commands[:middle], again=again)
            return first + await self._attempt(commands[middle:], again=again)
        except (*LOST, *AGAIN):
            raise
        except ServerError as error:
            known = store_error(error, self.location)
            return [known] * len(commands)

    def _count(self, command: Command) -> None:
        """A lone command is durable: tell who waits for such."""
        self.commits += 1
        if isinstance(command, Start):
            if command.attempt == 0:
                self.session.ring({"queue"})
        elif isinstance(command, Change) and command.ending is not None:
            self.session.ring({"ended"})

    async def _transaction(
        self, link: Link, commands: Sequence[Command], *, again: bool
    ) -> list[Result]:
        await self._at("begin")
        async with link.transaction():
            written = await batch.write(link, commands, self.lining, again=again)
            await self._at("before")
        self.commits += 1
        await self._at("after")
        if any(isinstance(c, Start) and c.attempt == 0 for c in commands):
            written.bells.add("queue")
        self.session.ring(written.bells)
        if written.published.events or written.published.woken:
            self.on_published(written.published)
        return written.results

    async def _at(self, moment: str) -> None:
        if self.gate is not None:
            answer = self.gate(moment)
            if answer is not None:
                await answer

    # -- verbs and reads ----------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(f"{self.path}: the client was closed; open a new one")

    def demand_writable(self) -> None:
        """Raise unless the store is open and takes writes."""
        self._check_open()
        if self.read_only:
            raise StoreReadOnlyError(
                f"{self.path}: opened with mode=ro, which only looks; open it without to change "
                "anything"
            )

    async def do(self, verb: Callable[[Link, bool], Awaitable[T]]) -> T:
        """Run a verb in a transaction of its own; its second argument: it was sent before."""
        self.demand_writable()
        self.in_flight += 1
        try:
            value = await self._pool.run(self._gated(verb), write=True)
            self.commits += 1
            await self._at("after")
            return value
        except Crashed:
            self._dead = True
            await _for_ever()
        except StoreError:
            self._end_if_dead()
            raise
        finally:
            self.in_flight -= 1

    def _end_if_dead(self) -> None:
        if self._dead:  # its jobs were cancelled: a statement on its way may have swallowed that
            raise asyncio.CancelledError

    def _gated(
        self, verb: Callable[[Link, bool], Awaitable[T]]
    ) -> Callable[[Link, bool], Awaitable[T]]:
        if self.gate is None:
            return verb

        async def gated(link: Link, again: bool) -> T:
            await self._at("begin")
            value = await verb(link, again)
            await self._at("before")
            return value

        return gated

    async def read(self, query: Callable[[Link], Awaitable[T]]) -> T:
        """Run a read."""
        self._check_open()
        self.in_flight += 1
        try:
            return await self._pool.run(lambda link, _: query(link))
        except StoreError:
            self._end_if_dead()
            raise
        finally:
            self.in_flight -= 1


class _Answered(Exception):
    """Marks a command that was called back already."""


_ANSWERED = _Answered()


async def _for_ever() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody answers for the dead")
