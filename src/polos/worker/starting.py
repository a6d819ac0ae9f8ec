"""From a workflow and its payload to the command that starts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polos.core import delta, ids, where
from polos.core.codec import Codec
from polos.core.content import Content
from polos.core.keyed import Keyed
from polos.core.model import Execution, Start, Status
from polos.errors import EncodeError, InvalidStateError
from polos.workflow import payload as payloads
from polos.workflow.runnable import Workflow


def prepare_start(
    codec: Codec, workflow: Workflow[Any], payload: Any, initial_state: Any, moment: int
) -> Start:
    """Return the command that starts a workflow as a root; nothing is stored if it does not fit."""
    typed = payloads.prepare(workflow, payload)
    encoded = codec.encode(typed, what="payload")
    contents = codec.take_contents()
    keyed = None
    if workflow.keying is not None:
        key = workflow.keying.key_of(typed)
        keyed = Keyed(key, workflow.keying.rollback, given=initial_state is not None)
    state = loaded = schema_version = None
    if workflow.schema is not None:
        codec.demand_secrecy(workflow.schema.secrets)
        model, fields = workflow.schema.recorded(initial_state)
        workflow.schema.check_size(fields)
        state, loaded = delta.document(fields), (model, fields)
        schema_version = workflow.schema.recorded_version
    elif initial_state:
        raise InvalidStateError(
            f"workflow {workflow.id!r} has no state, but initial_state was given; declare it with "
            "@workflow(state_schema=...)"
        )
    execution_id = ids.new_id(moment)
    start = Start(
        execution_id,
        execution_id,
        workflow.id,
        workflow.id,
        encoded.body,
        encoded.type,
        moment,
        state=state,
        keyed=keyed,
        schema_version=schema_version,
        loaded=loaded,
        queue_name=workflow.queue_name,
        run_timeout_seconds=workflow.run_timeout_seconds,
        code_version=workflow.code_version,
        contents=contents,
    )
    if workflow.index_state and loaded is not None:
        start.index = where.entries(workflow.id, workflow.index_state, loaded[1])
    return start


def in_memory(contents: Sequence[Content]) -> Sequence[Content]:
    """Return contents that can be stored by a commit; `EncodeError` for one that is a file."""
    for each in contents:
        if not each.in_memory:
            raise EncodeError(
                f"a Blob of a file ({each.size:,} bytes) is not stored yet; return it from a step, "
                "and use what ctx.step.run gives back"
            )
    return contents


def execution_of(start: Start) -> Execution:
    """Return the execution that a start creates, as its owner sees it."""
    return Execution(
        id=start.id,
        root_id=start.root_id,
        workflow_id=start.workflow_id,
        root_workflow_id=start.root_workflow_id,
        status=Status.QUEUED,
        attempt=start.attempt,
        worker_id=start.worker_id,
        wake_at=None,
        payload=start.payload,
        payload_type=start.payload_type,
        result=None,
        result_type=None,
        error=None,
        blocked_reason=None,
        parent_id=start.parent_id,
        parent_key=start.parent_key,
        awaited=start.awaited,
        session_id=start.session_id,
        user_id=start.user_id,
        deployment_id=start.deployment_id,
        queue_name=start.queue_name,
        concurrency_key=start.concurrency_key,
        batch_id=start.batch_id,
        idempotency_key=start.idempotency_key,
        run_timeout_seconds=start.run_timeout_seconds,
        retry_count=0,
        crashes=0,
        created_at=start.created_at,
        started_at=None,
        completed_at=None,
        cancel_requested_at=None,
        cancel_delivered_at=None,
        code_version=start.code_version,
        tags=start.tags,
        forked_from=start.forked_from,
        state_key=None if start.keyed is None else start.keyed.key,
    )
