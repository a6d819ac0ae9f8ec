"""What stored states say, for verbs that look inside of them, and states on their way back."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from typing import Any

import apsw

from polos.core.model import Change, StateEntry
from polos.store.commands import apart
from polos.store.lining import Lining
from polos.store.protocol import VERSION_MAX
from polos.store.sqlite import blobs, queries


def states(
    connection: apsw.Connection, lining: Lining, key: tuple[str, str], version: int = VERSION_MAX
) -> list[StateEntry]:
    """Read what the state of a version, or the last, is made of; as code has it."""
    found = queries.states_up_to(connection, *key, version)
    source = _Source(connection)
    for each in found:
        _driven(lining.load_entry(each, source))
    return found


def text(connection: apsw.Connection, lining: Lining, stored: str) -> str:
    """Return a stored snapshot as code has it."""
    return _driven(lining.load(stored, _Source(connection)))


def line(connection: apsw.Connection, lining: Lining, change: Change) -> Change:
    """Return what is written of a change; what lies apart, and who refers to it, is written."""
    lined = lining.change(change)
    blobs.write(connection, apart([lined]))
    return lined


class _Source:
    """Chunks of blobs, read inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    async def blob_chunk(self, hash: str, number: int) -> bytes | None:
        return blobs.read_chunk(self._connection, hash, number)


def _driven(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what awaits nothing but `_Source`, which never waits."""
    with contextlib.closing(coroutine):
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
    raise AssertionError("it waited")
