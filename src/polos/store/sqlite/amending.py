"""Changes of state from outside, of executions that nobody runs."""

from __future__ import annotations

import apsw

from polos.core import delta, transitions
from polos.core.amending import Amendment, amended, amending_row, check_amendable
from polos.store.lining import Lining
from polos.store.sqlite import batch, clear, indexing, queries, verbs

# Whoever had its coroutine in memory finds the journal longer than it was, and the claim another.
_FENCED = "UPDATE execution SET attempt = attempt + (attempt > 0) WHERE root_id = ? AND id = ?"
_RELEASED = (
    "UPDATE execution SET status = 'queued', wake_at = 0, blocked_reason = NULL, crashes = 0, "
    "crash_mark = -1 WHERE root_id = ? AND id = ?"
)


def amend(
    connection: apsw.Connection, execution_id: str, amendment: Amendment, lining: Lining
) -> str | None:
    """Write a change of state with its row, as the owner would; returns who had the execution."""
    record = verbs.require(connection, execution_id)
    key = (record.root_id, record.id)
    latest = clear.states(connection, lining, key)
    version = latest[-1].version if latest else -1
    check_amendable(record, amendment.expected, version)
    row = amending_row(queries.steps(connection, *key), amendment)
    fields = delta.replay(each.jump or each.body for each in [*latest, amendment.entry])
    change = clear.line(connection, lining, amended(key, row, amendment.entry, fields))
    batch.write_journal(connection, *key, change.rows, list(change.states))
    indexing.write(connection, key, indexing.of_state(connection, record.workflow_id, fields))
    connection.execute(_FENCED, key)
    if (record.blocked_reason or "").startswith(transitions.MISFIT):
        connection.execute(_RELEASED, key)
    return record.worker_id
