"""A whole Polos in one test: store, engine and worker on virtual time, to be crashed at will."""

from __future__ import annotations

from typing import Any, Protocol, Self

from polos.app import LiveNode, PolosClient
from polos.client.client import Client
from polos.store.commands import Crashed, Gate
from polos.store.protocol import Store
from polos.store.sqlite.committer import MemoryDatabase
from polos.store.sqlite.connection import MEMORY, Location
from polos.store.sqlite.liveness import MemoryLiveness
from polos.store.sqlite.store import SqliteStore
from polos.testing.clock import ManualClock
from polos.workflow import registry as registries
from polos.workflow.registry import Registry


class SimulatedStore(Store, Protocol):
    """A store that can be crashed."""

    gate: Gate | None
    commits: int

    @property
    def busy(self) -> bool:
        """Say whether the database has the word: time may not pass."""
        ...

    def kill(self) -> None:
        """Stop as death would."""
        ...


class Database(Protocol):
    """Where simulations keep what outlives them."""

    def make_store(self) -> SimulatedStore:
        """Return one more store on it, as a new process would open."""
        ...

    async def recorded(self) -> set[str]:
        """Return the keys of the steps, of all executions, that are recorded."""
        ...

    async def bury(self, store: Any) -> None:
        """Return once nothing is left of a store that was killed."""
        ...


class Simulation:
    """Runs workflows in memory (or on the file at `path`) and on a virtual clock.

    `database` is a `MemoryDatabase`, or a `polos.testing.postgres.PostgresDatabase`.

    `client` is a `PolosClient` for all that a real one does. `crash()` drops every object but the
    database; `restart()` opens it again, as a new process would. `strict` makes every departure of
    the code from its journal an error. With `prove_state` each state is read back at the next step
    and at the end; one that would come back as something else fails the execution.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        clock: ManualClock | None = None,
        registry: Registry | None = None,
        strict: bool = False,
        prove_state: bool = True,
        database: MemoryDatabase | Database | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        self.database: Any = database or (MemoryDatabase() if path is None else None)
        self._location = Location(f"sqlite:///{path or MEMORY}?commit=inline&busy_timeout=0.05")
        self._registry = registry or registries.default
        self._options = {"strict": strict, "prove_state": prove_state, **options}
        self._died: SimulatedStore | None = None
        self.client: PolosClient
        self.store: SimulatedStore
        self.node: LiveNode

    async def __aenter__(self) -> Self:
        self.clock.start()
        await self.restart()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.close()
        await self.clock.stop()

    async def restart(self) -> None:
        """Open the database as a new process would."""
        if self._died is not None and not isinstance(self.database, MemoryDatabase | None):
            # A server notices a death a moment later: no virtual time may pass until it has.
            await self.database.bury(self._died)
        self.client = client = PolosClient(f"sqlite:///{self._location.path}")
        client.use_opener(self._open)
        await client.node()

    def _make_store(self) -> SimulatedStore:
        database = self.database
        if database is not None and not isinstance(database, MemoryDatabase):
            return database.make_store()
        store = SqliteStore(self._location, database)
        if database is not None:
            # Its own, so that several simulations on one database are several workers.
            own = MemoryLiveness()
            own.counters = database.liveness.counters
            store.liveness = own
        return store

    async def _open(self, client: Client) -> LiveNode:
        self.store = store = self._make_store()
        self.node = LiveNode(
            self.store, self.clock, self._registry, client, guard=False, **self._options
        )
        threads, before = self.node.runner.threads, self.clock.busy
        self.clock.busy = lambda: threads.busy > 0 or store.busy or before()
        await self.node.open()
        return self.node

    def crash(self) -> None:
        """Die: nothing more is written, nothing is handed back, the worker's lock is free."""
        self.node.pruning.close()
        self._died = self.store
        self.node.engine.die()
        self.store.kill()
        self.node.runner.kill()

    def on_transaction(self, gate: Gate | None) -> None:
        """Call `gate` with "begin" ahead of each transaction, "before" and "after" its commit.

        It may raise `polos.testing.simulation.Crashed`: nobody hears of the transaction any more,
        and unless it was "after" its commit it did not happen. Then call `crash()`.
        """
        self.store.gate = gate


__all__ = ["Crashed", "Simulation"]
