"""What executions are found by: the entries of the index, as an execution's state changes."""

from __future__ import annotations

from collections.abc import Sequence

from polos.core import where
from polos.core.delta import Fields
from polos.core.indexed import IndexEntry
from polos.store import values
from polos.store.postgres import finding, queries
from polos.store.postgres import statements as sql
from polos.store.postgres.links import Link


async def write(link: Link, entries: Sequence[tuple[str, str, IndexEntry]]) -> None:
    """Write what executions, given by (root, id), are found by; the last entry of a path holds."""
    last = {(root_id, id_, each.path): each for root_id, id_, each in entries}
    gone = [key for key, each in last.items() if each.value is None]
    kept = [values.index(*key[:2], each) for key, each in last.items() if each.value is not None]
    if gone:
        await link.fetch(sql.UNINDEX, *queries.columns(gone, 3))
    if kept:
        await link.fetch(sql.INDEX, *queries.columns(kept, 6))


async def of_state(link: Link, workflow_id: str, fields: Fields) -> list[IndexEntry]:
    """Return what the index holds of a state, at the places that its workflow declared."""
    return where.entries(workflow_id, await finding.declared(link, workflow_id), fields)
