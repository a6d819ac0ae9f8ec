"""Changes of state from outside, of executions that nobody runs."""

from __future__ import annotations

from polos.core import delta, transitions
from polos.core.amending import Amendment, amended, amending_row, check_amendable
from polos.core.model import Kind, Row
from polos.store import values
from polos.store.lining import Lining
from polos.store.postgres import batch, clear, indexing, queries, verbs
from polos.store.postgres import statements as sql
from polos.store.postgres.links import Link

# Whoever had its coroutine in memory finds the journal longer than it was, and the claim another.
_FENCED = (
    "UPDATE {s}.execution SET attempt = attempt + CASE WHEN attempt > 0 THEN 1 ELSE 0 END "
    "WHERE root_id = $1 AND id = $2"
)
_RELEASED = (
    "UPDATE {s}.execution SET status = 'queued', wake_at = 0, blocked_reason = NULL, crashes = 0, "
    "crash_mark = -1 WHERE root_id = $1 AND id = $2"
)


async def amend(
    link: Link, execution_id: str, amendment: Amendment, lining: Lining, *, again: bool
) -> str | None:
    """Write a change of state with its row, as the owner would; returns who had the execution."""
    found = await verbs.require(link, execution_id)
    key = (found.root_id, found.id)
    await batch.lock(link, [key])
    record = await verbs.require(link, execution_id)
    journal = await queries.steps(link, *key)
    if again and any(_is_of(row, amendment) for row in journal):
        return record.worker_id
    latest = await clear.states(link, lining, key)
    version = latest[-1].version if latest else -1
    check_amendable(record, amendment.expected, version)
    row = amending_row(journal, amendment)
    fields = delta.replay(each.jump or each.body for each in [*latest, amendment.entry])
    change = await clear.line(link, lining, amended(key, row, amendment.entry, fields))
    await link.fetch(sql.STEPS, *[[each] for each in values.step(change, change.rows[0])])
    entry = values.state(*key, change.states[0])
    await link.fetch(sql.STATES, *[[each] for each in entry])
    found_by = await indexing.of_state(link, record.workflow_id, fields)
    await indexing.write(link, [(*key, each) for each in found_by])
    await link.fetch(_FENCED, *key)
    if (record.blocked_reason or "").startswith(transitions.MISFIT):
        await link.fetch(_RELEASED, *key)
    return record.worker_id


def _is_of(row: Row, amendment: Amendment) -> bool:
    entry = amendment.entry
    same = (row.state_version, row.completed_at, row.info)
    return row.kind == Kind.PATCH_STATE and same == (entry.version, entry.at, entry.origin)
