"""Reading the state of others inside of workflows: recorded, so that a replay sees the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from polos.core import delta, failure
from polos.core.model import TERMINAL, Execution, Failure, Kind, StateEntry
from polos.errors import ExecutionNotFoundError, InvalidStateError
from polos.worker.asks import Ask
from polos.worker.once import once
from polos.workflow.reading import StateOf

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

CHILDREN_MAX = 10_000


async def read_state(attempt: Attempt, kind: Kind, key: str, target: StateOf) -> Any:
    """Return the state of an execution, of a key or of children, as it was at the first run."""

    async def live(ask: Ask) -> None:
        attempt.look(ask)
        row = attempt.writer.new_row(ask, attempt.clock.now())
        try:
            value = await _fetch(attempt, target)
        except (ExecutionNotFoundError, InvalidStateError) as error:
            failed = Failure("StepExecutionError", str(error), type(error).__name__, ask.key)
            row.ok, row.body = False, failure.dump(failed)
        else:
            encoded = attempt.codec.encode(value)
            row.ok, row.body, row.type = True, encoded.body, encoded.type
        row.completed_at = attempt.clock.now()
        attempt.writer.record(ask, row)

    return await once(attempt, kind, key, live)


async def _fetch(attempt: Attempt, target: StateOf) -> Any:
    backend, own = attempt.backend, attempt.execution
    if target.execution_id is not None:
        return await _state(attempt, await backend.require(target.execution_id))
    if target.workflow_id is not None:
        record = await backend.keyed_state(target.workflow_id, target.key)
        if record is None:
            return None
        return _plain(attempt, record.workflow_id, delta.split(record.state), record.schema_version)
    filters = {"root_id": own.root_id, "parent_id": own.id}
    children = await backend.listing(filters, CHILDREN_MAX)
    return {
        child.id: {
            "workflow_id": child.workflow_id,
            "step_key": child.parent_key,
            "status": str(child.status),
            "state": await _state(attempt, child),
        }
        for child in reversed(children)
        if target.ended or child.status not in TERMINAL
    }


async def _state(attempt: Attempt, record: Execution) -> Any:
    entries: list[StateEntry] = await attempt.backend.latest_states(record)
    if not entries:
        return None
    fields = delta.replay(entry.jump or entry.body for entry in entries)
    return _plain(attempt, record.workflow_id, fields, entries[-1].schema_version)


def _plain(
    attempt: Attempt, workflow_id: str, fields: delta.Fields, schema_version: int | None
) -> Any:
    """Return a record as plain data, of the version that this process has of its class."""
    workflow = attempt.workflow_named(workflow_id)
    if workflow is not None and workflow.schema is not None:
        fields = workflow.schema.upgraded(fields, schema_version)
    return from_json(delta.encoded(fields))
