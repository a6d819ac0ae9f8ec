"""Bringing the schema up to date: forward only, one file a change, by one process at a time.

A change is made so that the release before it goes on working beside it (expand); what only old
releases needed is removed one release later (contract). A file whose name ends in `.contract.sql`
is one that releases which do not know it cannot live with: only those refuse the database then.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from polos.errors import StoreError, StoreReadOnlyError, StoreUnavailableError, StoreVersionError
from polos.store.postgres.links import AGAIN, Link, NotAllowed, Pauses, connect
from polos.store.postgres.location import Location

LOCK_MS = 2000
BUSY_SECONDS = 60.0
"""So long a change tries to get at tables that are in use, before it says so."""
CHANGE_SECONDS = 86_400.0
BUSY = (asyncpg.LockNotAvailableError, *AGAIN)
FOLDER = Path(__file__).with_name("migrations")
_CONTRACT = ".contract.sql"
_HISTORY = """
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE IF NOT EXISTS {s}.migration (
  number bigint PRIMARY KEY,
  name text NOT NULL,
  checksum text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_HAS_SCHEMA = "SELECT 1 FROM pg_namespace WHERE nspname = $1"
_HAS_HISTORY = "SELECT to_regclass($1) IS NOT NULL"
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock($1)"
_APPLIED = "SELECT number, name, checksum FROM {s}.migration ORDER BY number"
_NOTE = "INSERT INTO {s}.migration (number, name, checksum) VALUES ($1, $2, $3)"


@dataclass(frozen=True)
class Migration:
    """One change of the schema."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """The digest of the file, which must not change once it was applied anywhere."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@functools.cache
def known(folder: Path = FOLDER) -> tuple[Migration, ...]:
    """Read the changes that this release knows, in order."""
    files = sorted(folder.glob("*.sql"))
    return tuple(
        Migration(int(file.name.partition("_")[0]), file.name, file.read_text(encoding="utf-8"))
        for file in files
    )


async def missing(
    link: Link, location: Location, migrations: tuple[Migration, ...]
) -> list[Migration]:
    """Return what was not applied yet; refuse a schema that this release cannot work with."""
    return _missing(await _applied(link, location), migrations, location)


async def migrate(link: Link, location: Location, migrations: tuple[Migration, ...]) -> None:
    """Apply what is missing; refuse a schema that this release cannot work with."""
    lacking = await missing(link, location, migrations)
    if not lacking:
        return
    if location.read_only or not location.create:
        raise StoreReadOnlyError(
            f"{location.shown}: schema {location.schema!r} has "
            f"{len(migrations) - len(lacking)} of the {len(migrations)} changes that this release "
            "needs; open it once without mode=ro or mode=rw"
        )
    try:
        await _apply_in_turn(link, location, migrations)
    except NotAllowed as error:
        raise StoreError(
            f"{location.shown}: {error}; the role must own the schema {location.schema!r}, or an "
            f'owner must create it first: CREATE SCHEMA "{location.schema}" AUTHORIZATION role'
        ) from error


def lock_key(location: Location) -> int:
    """Return the advisory lock that is held while a schema is changed."""
    return zlib.crc32(f"polos migrations of {location.schema}".encode())


async def _apply_in_turn(link: Link, location: Location, migrations: tuple[Migration, ...]) -> None:
    # Asked for again and again, not waited for: who waits inside a statement would be in the way
    # of CREATE INDEX CONCURRENTLY, and would lose patience with a change that takes long.
    key = lock_key(location)
    loop = asyncio.get_running_loop()
    deadline, pauses = loop.time() + BUSY_SECONDS, Pauses()
    while True:
        try:
            async with link.transaction():
                if (await link.row(_TRY_LOCK, key))[0]:
                    await _apply(link, location, migrations)
                    return
            deadline = loop.time() + BUSY_SECONDS
        except BUSY as error:
            if loop.time() > deadline:
                raise StoreUnavailableError(
                    f"{location.shown}: a table of schema {location.schema!r} cannot be changed "
                    f"({error}); end the transactions that hold it (pg_stat_activity), then open "
                    "it again"
                ) from error
        await pauses.rest()


async def _apply(link: Link, location: Location, migrations: tuple[Migration, ...]) -> None:
    # Who waits for the lock of a table keeps everybody else from it: better to try again.
    await link.connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
    await _create(link, location)
    for each in await missing(link, location, migrations):
        await _run(link, location, each.text)
        await link.fetch(_NOTE, each.number, each.name, each.checksum)


async def _create(link: Link, location: Location) -> None:
    # A role that owns the schema, and may create none, never gets as far as the first line.
    lines = _HISTORY.strip().split(";\n")
    if await link.fetch(_HAS_SCHEMA, location.schema):
        lines = lines[1:]
    for line in lines:
        await _run(link, location, line)


async def _run(link: Link, location: Location, text: str) -> None:
    text = text.replace("{s}", f'"{location.schema}"')
    await link.connection.execute(text, timeout=CHANGE_SECONDS)


async def _applied(link: Link, location: Location) -> list[tuple[int, str, str]]:
    name = f'"{location.schema}".migration'
    if not (await link.row(_HAS_HISTORY, name))[0]:
        return []
    return [(number, name, checksum) for number, name, checksum in await link.fetch(_APPLIED)]


def _missing(
    done: list[tuple[int, str, str]], migrations: tuple[Migration, ...], location: Location
) -> list[Migration]:
    ours = {each.number: each for each in migrations}
    for number, name, checksum in done:
        mine = ours.get(number)
        if mine is None and name.endswith(_CONTRACT):
            raise StoreVersionError(
                f"{location.shown}: schema {location.schema!r} was changed by a newer release of "
                f"Polos ({name}), which this release cannot work with; upgrade the polos package"
            )
        if mine is not None and mine.checksum != checksum:
            raise StoreVersionError(
                f"{location.shown}: {name} in schema {location.schema!r} is not the {mine.name} of "
                "this release; name another schema with ?schema=, or install the release that "
                "made this one"
            )
    have = {number for number, _, _ in done}
    return [each for each in migrations if each.number not in have]


async def try_pooled(location: Location, migrations: tuple[Migration, ...]) -> None:
    """Try the pooler's way in before anybody relies on it."""
    if location.direct in (None, location.dsn):
        return
    connection = await connect(location, location.dsn)
    try:
        if await missing(Link(connection, location), location, migrations):
            raise StoreError(
                f"{location.shown}: the direct URL leads to another database: its tables are not "
                f"in schema {location.schema!r} of this one; name the same server and database in "
                "both"
            )
    finally:
        await connection.close()
