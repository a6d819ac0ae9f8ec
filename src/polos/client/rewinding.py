"""Going back: forks of executions, and resets in place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from polos.client import views
from polos.client.node import Node
from polos.core import delta, ids, rewind, where
from polos.core.model import Execution, Row, Start, StateEntry
from polos.errors import ConflictError, InvalidStateError, UsageError
from polos.workflow import payload as payloads
from polos.workflow import state_patch

if TYPE_CHECKING:
    from pydantic import BaseModel

    from polos.client.handle import ExecutionHandle

READS_MAX = 10
"""So often a journal is read again that changes while it is copied."""


class Rewinding:
    """The part of a client that goes back."""

    async def node(self) -> Node:
        """Return what runs behind this client."""
        raise NotImplementedError

    def _handle(self, record: Execution) -> ExecutionHandle:
        raise NotImplementedError

    async def fork(
        self,
        execution_id: str,
        *,
        at_step: str,
        state: BaseModel | Mapping[str, Any] | None = None,
        payload: Any = None,
    ) -> ExecutionHandle:
        """Start a new execution that goes on behind a recorded step of another one.

        It has a copy of the journal up to and including `at_step` (in concurrent code: of all that
        had been handed over by then), so that these steps are not run again; the rest runs anew.
        `state` replaces fields of the state that was recorded with the step, validated; `payload`
        replaces the payload. The original is untouched, whatever its status; children that it
        started are not copied, their results are. Its tags, session, user and queue are taken
        over. `get_execution(fork)["forked_from"]` names execution and step.

        Raises `StepNotFoundError`, `ConflictError` if the step is still open, and
        `InvalidStateError` or `InvalidPayloadError`.
        """
        node = await self.node()
        await node.runner.ensure()
        record = await node.engine.require(execution_id)
        cut, entries = await _copied(node, record, at_step)
        now = node.engine.clock.now()
        start = _start(node, record, at_step, now)
        if payload is not None:
            _set_payload(node, start, payload)
            await node.engine.keep_blobs(start.contents)
            start.contents = [each for each in start.contents if each.in_memory]
        rows = cut.kept
        if state is not None:
            fields, schema_version = _replaced(node, record, entries, state)
            version = max((each.version for each in entries), default=-1) + 1
            body = delta.document(fields)
            entries.append(StateEntry(version, at_step, now, body, schema_version=schema_version))
            last = rewind.last_of(rows)
            rows = [
                replace(each, state_version=version, pinned=True) if each is last else each
                for each in rows
            ]
        await _find_by(node, start, record, entries)
        await node.engine.rewinding.start_with(start, rows, entries)
        return self._handle(await node.engine.require(start.id))

    async def reset(
        self, execution_id: str, *, to_step: str, dry_run: bool = False
    ) -> dict[str, Any]:
        """Let an execution go on, in place, behind one of its recorded steps.

        For one that has ended, in whatever way, or that waits; `ConflictError` while it runs. The
        rows behind the step are cut off, and kept as history (`cut_steps`); the state goes back to
        what the step recorded, as a new entry of its history; open children that were started
        behind it are asked to end. The rest runs anew, under a new attempt.

        Returns a dict: `execution_id`, `to_step`, `cut` (the number of this reset), `steps` (the
        keys that were cut off), `effects` (those of them that act on the outside, and may do so
        again, and what was undone: dicts like those of `get_steps`) and `children` (ids by what
        became of them). `dry_run` returns it and changes nothing.
        """
        node = await self.node()
        if not isinstance(to_step, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"to_step={to_step!r}: expected the key of a step")
        if not dry_run:
            await node.runner.ensure()
        done = await node.engine.rewinding.reset(execution_id, to_step, dry_run=dry_run)
        record = await node.engine.require(execution_id)
        gone = views.steps(done.cut.gone, record)
        kinds = {str(each) for each in rewind.EFFECTS}
        return {
            "execution_id": execution_id,
            "to_step": to_step,
            "cut": done.number,
            "steps": [each["step_key"] for each in gone],
            "effects": [each for each in gone if each["kind"] in kinds],
            "children": done.children,
        }

    async def cut_steps(self, execution_id: str) -> list[dict[str, Any]]:
        """Return the steps that resets cut off, the first reset first.

        Dicts like those of `get_steps`, with `cut` (1, 2, … the reset) and `cut_at`.
        """
        node = await self.node()
        record = await node.engine.require(execution_id)
        by_cut: dict[tuple[int, int], list[Row]] = {}
        for number, at, row in await node.engine.rewinding.cut_steps(record):
            by_cut.setdefault((number, at), []).append(row)
        return [
            {**each, "cut": number, "cut_at": views.moment(at)}
            for (number, at), rows in by_cut.items()
            for each in views.steps(rows, record)
        ]


async def _copied(
    node: Node, record: Execution, at_step: str
) -> tuple[rewind.Cut, list[StateEntry]]:
    """Read what a fork begins with; once more if the original was reset or retried meanwhile."""
    if not isinstance(at_step, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"at_step={at_step!r}: expected the key of a step")
    cut = rewind.cut_behind(record, await node.engine.steps(record), at_step)
    for _ in range(READS_MAX):
        entries: list[StateEntry] = await node.engine.states.between(record, -1, cut.state_version)
        again = rewind.cut_behind(record, await node.engine.steps(record), at_step)
        if again.kept == cut.kept:
            return cut, entries
        cut = again
    raise ConflictError(f"execution {record.id!r} changes all the time; fork it a moment later")


def _start(node: Node, record: Execution, at_step: str, now: int) -> Start:
    workflow = node.registry.get(record.workflow_id)
    execution_id = ids.new_id(now)
    start = Start(
        execution_id,
        execution_id,
        record.workflow_id,
        record.workflow_id,
        record.payload,
        record.payload_type,
        now,
        worker_id=record.worker_id if workflow is None else node.engine.worker_id,
    )
    start.session_id = record.session_id
    start.user_id = record.user_id
    start.deployment_id = record.deployment_id
    start.queue_name = record.queue_name
    start.concurrency_key = record.concurrency_key
    start.code_version = record.code_version if workflow is None else workflow.code_version
    start.generation = record.generation
    start.forked_from = json.dumps({"execution_id": record.id, "step_key": at_step})
    if record.run_timeout_seconds is not None:
        start.run_timeout_seconds = record.run_timeout_seconds
    return start


def _set_payload(node: Node, start: Start, payload: Any) -> None:
    workflow = node.registry.get(start.workflow_id)
    value = payload if workflow is None else payloads.prepare(workflow, payload)
    encoded = node.codec.encode(value, what="payload")
    start.contents = node.codec.take_contents()
    start.payload, start.payload_type = encoded.body, encoded.type


def _replaced(
    node: Node, record: Execution, entries: list[StateEntry], state: Any
) -> tuple[delta.Fields, int | None]:
    """Return the record of the replaced state, and the version of the schema that it has."""
    workflow = node.registry.get(record.workflow_id)
    fields = delta.replay(each.body for each in entries)
    recorded_version = entries[-1].schema_version if entries else None
    if workflow is not None and workflow.schema is not None:
        schema = workflow.schema
        fields = schema.upgraded(fields, recorded_version)
        return state_patch.replaced(schema, fields, state), schema.recorded_version
    if workflow is not None or not entries:
        raise InvalidStateError(
            f"workflow {record.workflow_id!r} has no state, but state was given; declare it with "
            "@workflow(state_schema=...)"
        )
    return state_patch.replaced_unseen(fields, state, record.workflow_id), recorded_version


async def _find_by(node: Node, start: Start, record: Execution, entries: list[StateEntry]) -> None:
    places: list[str] = await node.engine.asking.declared(start.workflow_id)
    if places and entries:
        fields = delta.replay(each.body for each in entries)
        start.index = where.entries(start.workflow_id, places, fields)
    where.tag(start, json.loads(record.tags or "{}"))
