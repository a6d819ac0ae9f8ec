"""`ctx.step.run`: the body of a step with its retries, its timeout and its private state."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from polos.core import failure, ids
from polos.core.codec import Encoded
from polos.core.content import Content
from polos.core.model import Failure, Kind, Row
from polos.core.retry import DURABLE_PAUSE_SECONDS, RetryPolicy
from polos.errors import (
    AttemptSealed,
    EncodeError,
    InvalidStateError,
    StateTooLargeError,
)
from polos.worker import reconciling
from polos.worker.asks import Ask, call_of
from polos.worker.calling import allows, bounded, is_async
from polos.worker.tracking import StepScope
from polos.workflow.effects import Effect
from polos.workflow.scope import current_scope

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

PASSING = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, AttemptSealed)
"""What user code is left with that is no error of its own. `sys.exit` is one: a step, or an
execution, must not end the process that others run in."""
_SCALARS = (type(None), bool, int, float, str)


class Refusal(Exception):
    """A failure whose text is recorded as it is, and that is not tried again."""


FINAL = (Refusal, EncodeError, StateTooLargeError, InvalidStateError)
"""What another try would not change."""


async def run(  # noqa: C901, PLR0912, PLR0915 - the hot path in one piece
    attempt: Attempt,
    key: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    policy: RetryPolicy,
    timeout: float | None,
    *,
    effect: Effect | None = None,
    kind: Kind = Kind.RUN,
) -> Any:
    """Run a step once over all attempts of the execution; returns or raises what it recorded.

    The hot path: it awaits nothing but the body and, unless the commit was made on the spot, the
    future of the answer.
    """
    ask = attempt.ask(kind, key, call_of(function, args, kwargs))
    try:
        row, body = ask.row, function
        if effect is not None:
            body, timeout = _guard(attempt, ask, function, policy, timeout, effect)
        if row is not None and await attempt.recorded(ask):
            return result(attempt, ask, function)
        clock = attempt.clock
        moment = clock.monotonic()
        if attempt.is_held(moment):
            await attempt.go_live(ask)
        failures = 0 if row is None else await _take_up(attempt, ask, row)
        if attempt.tracker is not None:
            attempt.look(ask, moment)
        ask.started_at = ask.started_at or clock.now()
        if attempt.execution.crashes:
            ask.attempts = max(ask.attempts, 1 + attempt.deaths())
            await attempt.saga.foresee(ask, effect)
        while True:
            scope = StepScope(attempt, ask.key, ask.attempts, attempt.tracker)
            attempt.bodies[ask] = clock.monotonic() if failures else moment
            token = current_scope.set(scope)
            try:
                if timeout is None and is_async(body):
                    value = await body(*args, **kwargs)
                else:
                    call = functools.partial(body, *args, **kwargs)
                    value = await bounded(attempt, ask, call, timeout)
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


def _guard(
    attempt: Attempt,
    ask: Ask,
    function: Callable[..., Any],
    policy: RetryPolicy,
    timeout: float | None,
    effect: Effect,
) -> tuple[Callable[..., Any], float | None]:
    """Note how a step is undone; returns what is run as its body, and within which time."""
    if effect.compensate is not None:
        attempt.saga.note(ask, function, policy, timeout, effect)
    if effect.reconcile is None:
        return function, timeout
    return (
        reconciling.Guarded(attempt, ask, function, effect.reconcile, policy, timeout),
        None,  # the limit is the function's, without what is asked before it and behind it
    )


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
    doubt = ""
    if not isinstance(error, FINAL):
        allowed, doubt = allows(policy, error, failures)
        if allowed:
            attempt.streams.reset(ask.key, ask.attempts)
            chance = ids.derived_random(attempt.identity, f"{ask.key}/{failures}")
            return policy.pause(failures, chance)
    failed = failure_of(ask, policy, error, doubt)
    now = attempt.clock.now()
    row = attempt.writer.new_row(ask, now)
    row.ok, row.body, row.completed_at = False, failure.dump(failed), now
    if attempt.streams.used:
        attempt.streams.end(ask.key)
    attempt.writer.record(ask, row)
    return None


def failure_of(ask: Ask, policy: RetryPolicy, error: BaseException, doubt: str = "") -> Failure:
    """Return the failure that a step is recorded with after its last try."""
    if isinstance(error, Refusal):
        return Failure("StepExecutionError", str(error), None, ask.key)
    text = f"Step execution failed after {policy.max_retries} retries: "
    if isinstance(error, FINAL):
        text = f"Step {ask.key!r} failed: "
    return failure.of_step(error, ask.key, f"{text}{failure.spelled(error)}{doubt}")


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
    if attempt.streams.used:
        attempt.streams.end(ask.key)
    attempt.writer.record(ask, row, own)


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
