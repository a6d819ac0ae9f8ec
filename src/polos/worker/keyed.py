"""Executions with a state key, as a worker meets them: those that come without, and children."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polos.core.keyed import Keyed
from polos.core.model import Execution, StateEntry, Work
from polos.errors import InvalidPayloadError, StepExecutionError
from polos.workflow import payload as payloads
from polos.workflow.port import Child

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt
    from polos.worker.runner import Runner
    from polos.workflow.runnable import Workflow

PAUSE_SECONDS = 0.02
"""Between two looks whether those that were started earlier have taken their places."""
PATIENCE_SECONDS = 30.0
"""So long an execution lets those be before it that nobody takes."""


def comes_late(runner: Runner, workflow: Workflow[Any], work: Work) -> bool:
    """Say whether an execution has yet to take its place among those with its state key.

    It was started by a process that does not have the code, and so could not tell the key. Then it
    takes its place, and runs if nobody is before it.
    """
    execution = work.execution
    late = (
        workflow.keying is not None
        and execution.state_key is None
        and execution.forked_from is None
        and not work.rows
        and not execution.generation
    )
    if late:
        runner.spawn(_enter(runner, workflow, work))
    return late


async def _enter(runner: Runner, workflow: Workflow[Any], work: Work) -> None:
    execution = work.execution
    assert workflow.keying is not None
    given = runner.codec.decode(execution.payload or "null", execution.payload_type)
    try:
        key = workflow.keying.key_of(payloads.load(workflow, given))
    except InvalidPayloadError as error:
        await runner.backend.block(execution.id, execution.attempt, str(error))
        return
    keyed = Keyed(key, workflow.keying.rollback)
    states = await _in_turn(runner, execution, keyed)
    if states is not None and not runner.closing:
        execution.state_key = key
        runner.run(workflow, Work(execution, [], states, work.inbox))


async def _in_turn(runner: Runner, execution: Execution, keyed: Keyed) -> list[StateEntry] | None:
    """Let an execution take its place behind all that were started earlier; its states, or None.

    Whose key nobody knows yet may have the same. This worker takes one after the other, the oldest
    first, which looks again for those that others have claimed. What nobody takes does not hold it
    up for ever.
    """
    backend, clock = runner.backend, runner.clock
    given = (execution.workflow_id, execution.id, execution.deployment_id)
    line = runner.entrances.setdefault(execution.workflow_id, {})
    line[execution.id] = again = asyncio.Event()
    began = clock.monotonic()
    try:
        while not runner.closing:
            if min(line) == execution.id:
                waited = clock.monotonic() - began
                if waited > PATIENCE_SECONDS or not await backend.is_preceded(*given):
                    return await backend.enter_key(execution.id, execution.attempt, keyed)
                clock.call_later(PAUSE_SECONDS, again.set)
            await again.wait()
            again.clear()
        return None
    finally:
        del line[execution.id]
        if line:
            line[min(line)].set()


async def check_children(attempt: Attempt, step_key: str, children: Sequence[Child]) -> None:
    """Raise `StepExecutionError` if a child that is to be awaited would wait for who waits for it.

    It would if the execution, or one that waits for it, has the child's state key: then each of the
    two waits for the end of the other.
    """
    wanted = {
        (child.workflow.id, child.workflow.keying.key_of(child.workflow.prepare(child.payload)))
        for child in children
        if child.workflow.keying is not None
    }
    record: Execution | None = attempt.execution if wanted else None
    while record is not None:
        key = (record.workflow_id, record.state_key or "")
        if key in wanted:
            raise StepExecutionError(
                f"Step {step_key!r} cannot wait for {key[0]!r} with the state key {key[1]!r}: "
                f"execution {record.id} has that key and waits for the step, so both would wait "
                "for ever; start the child with ctx.step.invoke, or give it another key",
                step_key=step_key,
            )
        parent = record.parent_id if record.awaited else None
        record = None if parent is None else await attempt.backend.require(parent)


def check_given(step_key: str, child: Child) -> None:
    """Raise `StepExecutionError` if a child comes with an initial state that its key may not take.

    It could only be refused when it is written, with all that its parent writes.
    """
    if child.workflow.keying is not None and child.initial_state is not None:
        raise StepExecutionError(
            f"Step {step_key!r} cannot give {child.workflow.id!r} an initial_state: it begins with "
            "the state of its key; pass what it needs in the payload",
            step_key=step_key,
        )
