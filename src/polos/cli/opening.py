"""Opening a store to look at it: nothing is created, nothing is upgraded, nothing is run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs

from polos import PolosClient
from polos.errors import StoreError, StoreReadOnlyError, UsageError
from polos.store.sqlite.connection import Location

_WITH_MODE = ("sqlite:", "postgresql:", "postgres:")


@asynccontextmanager
async def opened(given: str | None, *, write: bool = False) -> AsyncGenerator[PolosClient]:
    """Open the store of a URL (default: as `PolosClient`) to look, or to ask for a change.

    It opens with `mode=ro` or `mode=rw` unless the URL says otherwise. Read-only is tried
    first even for a change: what is not a database of this release's stays as it is.
    """
    url = located(given)
    async with _looking(url) as client:
        if not write:
            yield client
    if write:
        async with PolosClient(_with_mode(url, "rw")) as client:
            yield client


@asynccontextmanager
async def _looking(url: str) -> AsyncGenerator[PolosClient]:
    client = PolosClient(_with_mode(url, "ro"))
    try:
        await client.node()
    except StoreReadOnlyError as error:
        # What SQLite itself says of a file, or the other store of its schema, fits.
        if error.__cause__ is not None or not url.startswith("sqlite:"):
            raise
        raise StoreError(
            f"{Location(url).path}: not a database that this release of Polos has worked with; "
            "run a workflow on it once, or pass another --url"
        ) from error
    async with client:
        yield client


def located(given: str | None) -> str:
    """Return the URL of a store that exists."""
    url = PolosClient(given).url
    if not url.startswith("sqlite:"):
        return url  # the client says what it thinks of it
    location = Location(shared(url))
    if not Path(location.path).exists():
        raise StoreError(f"no database at {location.path}; run a workflow first, or pass --url")
    return url


def shared(url: str) -> str:
    """Return the URL of a store that several processes can open; UsageError for one in memory."""
    if url.startswith("sqlite:") and Location(url).memory:
        raise UsageError(
            f"{url!r} is a database in the memory of one process; pass the URL of a file, as in "
            "--url sqlite:///path/to/file.db"
        )
    return url


def _with_mode(url: str, mode: str) -> str:
    query = url.partition("?")[2]
    if not url.startswith(_WITH_MODE) or "mode" in parse_qs(query):
        return url
    return f"{url}{'&' if query else '' if url.endswith('?') else '?'}mode={mode}"
