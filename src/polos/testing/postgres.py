"""A PostgreSQL schema for simulations; needs the extra `postgres`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from polos.store.postgres.links import Link, connect
from polos.store.postgres.location import Location
from polos.store.postgres.migrate import known, migrate
from polos.store.postgres.store import PostgresStore

_TABLES = (
    "execution, step, state, inbox, worker, beat, wait, topic, event, event_trigger, "
    "keyed_state, key_queue"
)
_SERVED = "SELECT 1 FROM pg_stat_activity WHERE pid = ANY($1::bigint[])"
_RECORDED = "SELECT key FROM {s}.step WHERE turn IS NOT NULL AND key IS NOT NULL"


class _Store(PostgresStore):
    """Counts a free lock as a death at once, however young the server is."""

    death_seconds = 0.0

    async def open(self) -> None:
        """See `Store.open`."""
        await super().open()
        self.session.steady_seconds = 0.0


class PostgresDatabase:
    """A schema of a PostgreSQL server (`postgresql://…?schema=NAME`), for simulations alone.

    `clean` empties it. Not for a schema that anybody works with.
    """

    def __init__(self, url: str) -> None:
        self.location = Location(url)

    def make_store(self) -> PostgresStore:
        """Return one more store on it; a free lock is a death at once, as on SQLite."""
        return _Store(self.location)

    @asynccontextmanager
    async def _link(self) -> AsyncGenerator[Link]:
        link = Link(await connect(self.location, self.location.dsn), self.location)
        try:
            yield link
        finally:
            link.drop()  # whoever asked may have been cancelled

    async def clean(self) -> None:
        """Make the tables if need be, and empty them."""
        async with self._link() as link:
            await migrate(link, self.location, known())
            schema = self.location.schema
            tables = [f'"{schema}".{name}' for name in _TABLES.split(", ")]
            # As exclusive as TRUNCATE, which would make new files for every table and index.
            lines = [f"LOCK TABLE {', '.join(tables)}", *(f"DELETE FROM {name}" for name in tables)]
            await link.connection.execute("; ".join(lines))

    async def recorded(self) -> set[str]:
        """Return the keys of the steps, of all executions, that are recorded."""
        async with self._link() as link:
            return {str(key) for (key,) in await link.fetch(_RECORDED)}

    async def bury(self, store: PostgresStore) -> None:
        """Return once the server has noticed that a store was killed, and freed what it locked."""
        async with self._link() as link:
            while await link.fetch(_SERVED, store.left_behind):  # noqa: ASYNC110 - asks a server
                await asyncio.sleep(0.001)
