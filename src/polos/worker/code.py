"""Running a workflow function once, and what becomes of the ways it can end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, cast

from polos.core import delta, failure, transitions
from polos.core.model import StateEntry
from polos.errors import (
    AttemptSealed,
    InvalidStateError,
    NonDeterminismError,
    StateTooLargeError,
)
from polos.worker import bodies, calling, hooks, renewing
from polos.worker.tasks import current_owner
from polos.worker.tracking import Tracker
from polos.workflow import payload as payloads
from polos.workflow.ambient import current_context
from polos.workflow.blocking import BlockingSteps, call_on_loop
from polos.workflow.context import WorkflowContext
from polos.workflow.steps import Steps

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt
    from polos.worker.runner import Runner

RETRY_PAUSE_MAX_SECONDS = 10.0


async def run_code(runner: Runner, attempt: Attempt) -> None:
    """Run user code once, and write how it ended."""
    try:
        error = await _outcome(runner, attempt)
        if error is not None:
            await _end(runner, attempt, error)
    except AttemptSealed:
        return
    finally:
        attempt.stop_tasks()


async def _outcome(runner: Runner, attempt: Attempt) -> BaseException | None:
    """Run user code; returns the error that it was left with, if the end is not written yet."""
    try:
        return await _run(runner, attempt)
    except asyncio.CancelledError as error:
        return error
    except bodies.PASSING:
        raise
    except BaseException as error:  # the workflow function: any error ends the execution
        return error


async def _run(runner: Runner, attempt: Attempt) -> BaseException | None:
    workflow, execution = attempt.workflow, attempt.execution
    if workflow.schema is not None:
        runner.codec.demand_secrecy(workflow.schema.secrets)
        states = attempt.work.states
        if not states or (states[0].version > 0 and not execution.generation):
            # Started by a process without the code, which could not say what the state begins with.
            version = states[0].schema_version if states else workflow.schema.recorded_version
            empty = delta.document({})
            states = [StateEntry(0, None, 0, empty, schema_version=version), *states]
        attempt.tracker = Tracker(workflow.schema, states, attempt.work.loaded)
        attempt.work.loaded = None  # it is the code's from here
    attempt.ending.watch_time()
    if attempt.pump.replay is not None and attempt.pump.replaying:
        attempt.pump.replay.begin()
    else:
        attempt.replayed()
    payload = payloads.load(
        workflow, runner.codec.decode(execution.payload or "null", execution.payload_type)
    )
    context = WorkflowContext.for_attempt(attempt, execution, workflow)
    token = current_context.set(context)
    try:
        if workflow.on_start:
            payload = await hooks.on_start(attempt, context, payload)
        value = await _call(runner, attempt, context, payload)
        if workflow.on_end:
            value = await hooks.on_end(attempt, context, payload, value)
    finally:
        current_context.reset(token)
    await _own(attempt)
    if attempt.pump.replay is not None:
        attempt.pump.replay.ended()
    if attempt.fatal is not None:
        raise attempt.fatal
    if attempt.ending.is_cancelled:
        return asyncio.CancelledError()
    return attempt.ending.end_with(value)


async def _own(attempt: Attempt) -> None:
    # Code may return, or raise, while tasks that it leaves behind still wait.
    attempt.check_sealed()
    if attempt.parked or attempt.parking:
        await attempt.waiting.own()


def _call(
    runner: Runner, attempt: Attempt, context: WorkflowContext, payload: Any
) -> Awaitable[Any]:
    workflow = attempt.workflow
    arguments = (payload,) if workflow.has_payload_param else ()
    call = functools.partial(workflow.func, context, *arguments)
    if workflow.is_async:
        return call()
    # The thread is the root of its code: the tasks that its steps run in are not counted.
    alone = copy_context()
    alone.run(current_owner.set, None)
    steps = BlockingSteps(context.step, runner.loop, alone)
    context.step = cast("Steps", steps)
    context.on_patched = functools.partial(call_on_loop, runner.loop, alone, attempt.patched)
    return _joined(attempt, steps, runner.plain.run(attempt, call))


async def _joined(attempt: Attempt, steps: BlockingSteps, run: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a plain function; a cancellation reaches it at its operations, and it cleans up."""
    thread = asyncio.Task(calling.contained(run), loop=attempt.loop)
    try:
        while True:
            try:
                return calling.released(await asyncio.shield(thread))
            except asyncio.CancelledError:
                if thread.done() or attempt.sealed or not attempt.ending.is_cancelled:
                    raise
                steps.interrupt()
    finally:
        thread.cancel()
        steps.release()


async def _end(runner: Runner, attempt: Attempt, error: BaseException) -> None:
    """Write what becomes of an execution whose code was left with an error, or was cancelled."""
    ending = attempt.ending
    if isinstance(error, asyncio.CancelledError):
        if attempt.sealed or attempt.ended:
            return
        if not ending.is_cancelled:
            if attempt.root is not None and attempt.root.cancelling():
                # Not ours: the event loop is being torn down. It goes on from its last commit.
                ending.hand_back(0, forget=[], retry_count=None)
                return
            error = asyncio.CancelledError("the workflow function was cancelled")
    else:
        with contextlib.suppress(AttemptSealed):
            await _own(attempt)
        if attempt.workflow.schema is not None and attempt.tracker is None:
            await _block(runner, attempt, f"{transitions.MISFIT}: {error}")
            return
    if attempt.sealed or attempt.ended:
        return
    left = _renewed(attempt, error)
    if left is None:
        return
    may_retry = attempt.execution.retry_count < attempt.workflow.max_retries
    if may_retry and attempt.fatal is None and not ending.is_cancelled:
        runner.spawn(_retry(runner, attempt, left))
        return
    await _finish(attempt, left)


def _renewed(attempt: Attempt, error: BaseException) -> BaseException | None:
    """Begin the next run if the code asked for it; returns the error that is left."""
    renewal = renewing.renewal_in(error)
    if renewal is None or attempt.ending.is_cancelled:
        return error
    try:
        renewing.end(attempt, renewal)
    except (StateTooLargeError, InvalidStateError) as unfit:
        return unfit
    return None


async def _finish(attempt: Attempt, error: BaseException) -> None:
    """Undo what is to be undone, and write the end."""
    ending = attempt.ending
    if not isinstance(error, NonDeterminismError):  # mended code may go on: nothing is undone
        try:
            await attempt.saga.close()
        except asyncio.CancelledError:
            attempt.check_sealed()
            ending.hand_back(0, forget=[], retry_count=None)
            return
    if ending.is_cancelled:
        ending.end_cancelled()
    else:
        ending.end_failed(error)


async def _retry(runner: Runner, attempt: Attempt, error: BaseException) -> None:
    execution = attempt.execution
    blamed = failure.blamed(error)
    rows = await runner.backend.journal(execution.root_id, execution.id)
    count = execution.retry_count + 1
    pause = min(2.0 ** (count - 1), RETRY_PAUSE_MAX_SECONDS)
    wake_at = runner.clock.now() + int(pause * 1e6)
    attempt.ending.hand_back(wake_at, forget=transitions.cut(rows, blamed), retry_count=count)


async def _block(runner: Runner, attempt: Attempt, reason: str) -> None:
    attempt.ended = True
    await runner.backend.block(attempt.execution_id, attempt.number, reason)
    runner.forget(attempt)
