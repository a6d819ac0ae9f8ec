"""`ctx.step.run`: the body of a step with its retries, its timeout and its private state."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from polos.core import failure, ids
from polos.core.codec import Encoded
from polos.core.content import Content
from polos.core.model import Kind, Row
from polos.core.retry import DURABLE_PAUSE_SECONDS, RetryPolicy
from polos.errors import (
    AttemptSealed,
    EncodeError,
    InvalidStateError,
    StateTooLargeError,
    StepTimeoutError,
)
from polos.worker.asks import Ask, call_of
from polos.worker.tracking import StepScope
from polos.workflow.scope import current_scope

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

_CO_COROUTINE = inspect.CO_COROUTINE
PASSING = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, AttemptSealed)
"""What user code is left with that is no error of its own. `sys.exit` is one: a step, or an
execution, must not end the process that others run in."""
_SCALARS = (type(None), bool, int, float, str)


def is_async(function: Callable[..., Any]) -> bool:
    """Say whether calling `function` gives a coroutine."""
    code = getattr(function, "__code__", None)
    if code is not None:
        return bool(code.co_flags & _CO_COROUTINE)
    if isinstance(function, functools.partial):
        return is_async(function.func)
    if inspect.iscoroutinefunction(function):
        return True
    call = getattr(type(function), "__call__", None)  # noqa: B004 - an object with async __call__
    return not inspect.isclass(function) and inspect.iscoroutinefunction(call)


async def run(  # noqa: C901, PLR0912 - the hot path in one piece
    attempt: Attempt,
    key: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    policy: RetryPolicy,
    timeout: float | None,
) -> Any:
    """Run a step once over all attempts of the execution; returns or raises what it recorded.

    The hot path: it awaits nothing but the body and, unless the commit was made on the spot, the
    future of the answer.
    """
    ask = attempt.ask(Kind.RUN, key, call_of(function, args, kwargs))
    try:
        row = ask.row
        if row is not None and await attempt.recorded(ask):
            return result(attempt, ask, function)
        clock = attempt.clock
        moment = clock.monotonic()
        if attempt.is_held(moment):
            await attempt.go_live(ask)
        failures = 0 if row is None else await _take_up(attempt, ask, row)
        if attempt.tracker is not None:
            attempt.look(ask, moment)
        if attempt.execution.crashes:
            ask.attempts = max(ask.attempts, 1 + attempt.deaths())
        ask.started_at = ask.started_at or clock.now()
        while True:
            scope = StepScope(attempt, ask.key, attempt.tracker)
            attempt.bodies[ask] = clock.monotonic() if failures else moment
            token = current_scope.set(scope)
            try:
                if timeout is None and is_async(function):
                    value = await function(*args, **kwargs)
                else:
                    call = functools.partial(function, *args, **kwargs)
                    value = await _bounded(attempt, ask, call, timeout)
                keeping = _record_value(attempt, ask, value, scope)
                if keeping is not None:
                    await keeping
                break
            except BaseException as error:  # the user's function: any error is a failed attempt
                attempt.check_unwinding(error)
                if isinstance(error, PASSING):
                    raise
                failures += 1
                pause = _failed(attempt, ask, policy, failures, error)
                if pause is None:
                    break
            finally:
                current_scope.reset(token)
                attempt.bodies.pop(ask, None)
            await _pause(attempt, ask, pause)
            ask.attempts += 1
        if attempt.draining:
            attempt.runner.drained(attempt)
        if not ask.settled:
            await attempt.pause(ask)
        return result(attempt, ask, function)
    finally:
        attempt.close(ask)


def result(attempt: Attempt, ask: Ask, function: Callable[..., Any] | None = None) -> Any:
    """Return or raise what the row that answers the ask recorded."""
    row = ask.answer
    assert row is not None
    if not row.ok:
        raise failure.to_exception(failure.load(row.body or "{}"))
    hint = None if function is None else attempt.runner.results.of(function)
    # The record of such a value is read as the very same, unless the annotation makes more of it.
    simple = row.type is None and type(ask.value) in _SCALARS and ask.value is not None
    if simple and (hint is None or (type(hint) is type and hint in _SCALARS)):
        return ask.value
    return attempt.codec.decode(row.body or "null", row.type, hint)


async def _take_up(attempt: Attempt, ask: Ask, row: Row) -> int:
    """Go on with a step whose row is open: it was running, or pausing before a retry.

    Returns how many attempts are known to have failed.
    """
    ask.seq = row.seq
    ask.started_at = row.started_at
    ask.attempts = row.attempts + 1
    if row.due_at is None:
        return 0
    ask.due = row.due_at
    await _sleep_durably(attempt, ask, None)
    return row.attempts


def _failed(
    attempt: Attempt, ask: Ask, policy: RetryPolicy, failures: int, error: BaseException
) -> float | None:
    """Return the pause before the next try, or record the failure and return None."""
    if isinstance(error, EncodeError | StateTooLargeError | InvalidStateError):
        failed = failure.of_step(error, ask.key, f"Step {ask.key!r} failed: {error}")
    else:
        allowed, doubt = _allows(policy, error, failures)
        if allowed:
            chance = ids.derived_random(attempt.execution_id, f"{ask.key}/{failures}")
            return policy.pause(failures, chance)
        text = f"Step execution failed after {policy.max_retries} retries: "
        failed = failure.of_step(error, ask.key, f"{text}{failure.spelled(error)}{doubt}")
    now = attempt.clock.now()
    row = attempt.writer.new_row(ask, now)
    row.ok, row.body, row.completed_at = False, failure.dump(failed), now
    attempt.writer.record(ask, row)
    return None


def _allows(policy: RetryPolicy, error: BaseException, failures: int) -> tuple[bool, str]:
    """Say whether a step may run again; a predicate that fails says no, and why."""
    if not isinstance(error, Exception):
        return False, ""
    try:
        return policy.allows(error, failures), ""
    except Exception as fault:  # the user's predicate
        return False, f" (its retry_if raised {type(fault).__name__}: {failure.spelled(fault)})"


def _record_value(
    attempt: Attempt, ask: Ask, value: Any, scope: StepScope
) -> Coroutine[Any, Any, None] | None:
    """Record what a body returned; blobs that have to be stored first are to be awaited."""
    own = scope.change()
    encoded = attempt.codec.encode(value)
    contents = attempt.codec.take_contents()
    if contents:
        return _keep_and_record(attempt, ask, encoded, own, contents)
    if encoded.type is None and type(value) in _SCALARS:
        ask.value = value
    _record(attempt, ask, encoded, own)
    return None


async def _keep_and_record(
    attempt: Attempt, ask: Ask, encoded: Encoded, own: list[Any] | None, contents: list[Content]
) -> None:
    await attempt.backend.keep_blobs(contents)
    _record(attempt, ask, encoded, own, [each for each in contents if each.in_memory])


def _record(
    attempt: Attempt,
    ask: Ask,
    encoded: Encoded,
    own: list[Any] | None,
    contents: Sequence[Content] = (),
) -> None:
    now = attempt.clock.now()
    row = attempt.writer.new_row(ask, now)
    row.ok, row.body, row.type, row.completed_at = True, encoded.body, encoded.type, now
    if own is not None:
        row.change = json.dumps(own)
    if contents:
        row.contents = contents
    attempt.writer.record(ask, row, own)


async def _bounded(
    attempt: Attempt, ask: Ask, call: Callable[[], Any], timeout: float | None
) -> Any:
    """Call a plain function in a thread, or anything within a time limit."""
    if timeout is None:
        return await _call(attempt, ask, call)
    limit = asyncio.timeout(None)
    over = attempt.clock.call_later(timeout, lambda: limit.reschedule(attempt.loop.time()))
    try:
        async with limit:
            return await _call(attempt, ask, call)
    except TimeoutError:
        if not limit.expired():
            raise  # the function's own
        raise StepTimeoutError(
            f"step {ask.key!r} did not end within {timeout:g} seconds", step_key=ask.key
        ) from None
    finally:
        over.cancel()


class _Late(BaseException):
    """A body got its thread when the worker may have been declared dead: it was not called."""


async def _call(attempt: Attempt, ask: Ask, call: Callable[[], Any]) -> Any:
    if is_async(call):
        return await call()

    def in_time() -> Any:
        # The process may have been frozen since it was asked, and the body run elsewhere.
        if attempt.clock.monotonic() > attempt.runner.stale_from:
            raise _Late
        return call()

    while True:
        try:
            value = await attempt.runner.threads.run(in_time)
            break
        except _Late:
            await attempt.go_live(ask)
    if inspect.isawaitable(value):  # a lambda around an async function
        return await value
    return value


async def _pause(attempt: Attempt, ask: Ask, seconds: float) -> None:
    if seconds > DURABLE_PAUSE_SECONDS:
        now = attempt.clock.now()
        ask.due = now + int(seconds * 1e6)
        row = attempt.writer.new_row(ask, now)
        row.due_at = ask.due
        await _sleep_durably(attempt, ask, row)
        return
    ask.timer = attempt.clock.call_later(seconds, ask.release)
    await attempt.pause(ask)
    if attempt.is_held(attempt.clock.monotonic()):
        await attempt.go_live(ask)


async def _sleep_durably(attempt: Attempt, ask: Ask, row: Row | None) -> None:
    await attempt.waiting.sleep(ask, row)
    ask.due = None
    await attempt.go_live(ask)
