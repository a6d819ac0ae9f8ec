"""Databases of their own for whole clients, and all that is in them as bytes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest

from tests.postgres import NAMES, fresh_url, stop_servers

__all__ = ["contents", "fresh", "make_url", "stop_servers"]

MakeUrl = Callable[[], str]


def fresh(kind: str, folder: Path, number: int = 0) -> str:
    return f"sqlite:///{folder}/polos{number}.db" if kind == "sqlite" else fresh_url(kind)


@pytest.fixture(
    params=["sqlite", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[-1:])]
)
def make_url(request: pytest.FixtureRequest, tmp_path: Path) -> MakeUrl:
    """Return a function that names one more empty database."""
    made: list[str] = []

    def make() -> str:
        made.append(fresh(request.param, tmp_path, len(made)))
        return made[-1]

    return make


async def until(check: Callable[[], Awaitable[Any]], limit: int = 100_000) -> None:
    """Let everybody run until something holds."""
    for _ in range(limit):
        if await check():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to hold")


async def contents(url: str) -> bytes:
    """Return everything that a database holds: the bytes of its files, or of its tables."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        files = [each for each in path.parent.glob(f"{path.name}*") if each.is_file()]
        return b"".join(each.read_bytes() for each in files)
    base, _, options = url.partition("?")
    host, schema = (part.partition("=")[2] for part in options.split("&"))
    connection = await asyncpg.connect(f"{base}?host={host}")
    try:
        found: list[str] = []
        for (table,) in await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = $1", schema
        ):
            rows = await connection.fetch(f'SELECT t::text FROM "{schema}"."{table}" t')
            found += [row[0] for row in rows]
            if table == "blob_chunk":
                bodies = await connection.fetch(f'SELECT body FROM "{schema}".blob_chunk')
                found += [row[0].decode("latin-1") for row in bodies]
        return "\n".join(found).encode()
    finally:
        await connection.close()


async def count(url: str, table: str) -> int:
    """Return how many rows a table has."""
    if url.startswith("sqlite"):
        with apsw.Connection(url.removeprefix("sqlite:///")) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").get)
    base, _, options = url.partition("?")
    host, schema = (part.partition("=")[2] for part in options.split("&"))
    connection = await asyncpg.connect(f"{base}?host={host}")
    try:
        return await connection.fetchval(f'SELECT count(*) FROM "{schema}"."{table}"')
    finally:
        await connection.close()
