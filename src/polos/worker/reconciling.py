"""Steps whose effect must not double: the intent is durable before the body begins, and whether it
took place is asked before it is tried again.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polos.core import failure, ids, transitions
from polos.core.retry import DURABLE_PAUSE_SECONDS, RetryPolicy
from polos.errors import StoreError
from polos.worker import calling
from polos.worker.arity import wants_one
from polos.worker.asks import Ask
from polos.worker.tracking import StepScope
from polos.workflow.effects import Done, NotDone, Unknown
from polos.workflow.scope import current_scope

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

log = logging.getLogger("polos.worker")

Verdict = Done | NotDone | Unknown


class Reconciler:
    """Asks whether the effect of one step took place: the author's function, with retries."""

    def __init__(
        self, attempt: Attempt, ask: Ask, check: Callable[..., Any], policy: RetryPolicy
    ) -> None:
        self._attempt = attempt
        self._ask = ask
        self._check = check
        self._policy = policy

    async def verdict(self) -> Verdict:
        """Return what the function answers; one that keeps raising does not know."""
        attempt, policy = self._attempt, self._policy
        key = ids.idempotency_key(attempt.identity, self._ask.key)
        call = functools.partial(self._check, *((key,) if wants_one(self._check) else ()))
        failures = 0
        while True:
            # What it changes in the state is not kept: it only looks.
            token = current_scope.set(
                StepScope(attempt, self._ask.key, self._ask.attempts, attempt.tracker)
            )
            try:
                return _verdict(await calling.call(attempt, self._ask, call))
            except Exception as error:  # the author's function: whatever it raises, it cannot tell
                failures += 1
                if failures > policy.max_retries:
                    return Unknown(
                        f"its reconcile raised {type(error).__name__}: {failure.spelled(error)}"
                    )
            finally:
                current_scope.reset(token)
            chance = ids.derived_random(attempt.identity, f"{self._ask.key}/check/{failures}")
            seconds = min(policy.pause(failures, chance), DURABLE_PAUSE_SECONDS)
            self._ask.timer = attempt.clock.call_later(seconds, self._ask.release)
            await attempt.pause(self._ask)


def _verdict(answer: Any) -> Verdict:
    if answer is NotDone:
        return NotDone()
    if isinstance(answer, Done | NotDone | Unknown):
        return answer
    return Unknown(
        f"its reconcile returned {type(answer).__name__}; expected Done(result), NotDone() or "
        "Unknown(reason)"
    )


class Guarded:
    """The body of a step with a reconciliation: awaited in place of the author's function."""

    def __init__(
        self,
        attempt: Attempt,
        ask: Ask,
        body: Callable[..., Any],
        check: Callable[..., Any],
        policy: RetryPolicy,
        timeout: float | None,
    ) -> None:
        self._attempt = attempt
        self._ask = ask
        self._body = body
        self._timeout = timeout
        self._policy = policy
        self._reconciler = Reconciler(attempt, ask, check, policy)
        row = ask.row
        self._begun = row is not None
        self._failures = row.attempts if row is not None and row.due_at is not None else 0

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the author's function unless its effect took place; returns the step's result."""
        if self._begun:
            found = await self._found()
            if found is not None:
                return found.result
        else:
            await self._intend()
        call = functools.partial(self._body, *args, **kwargs)
        try:
            return await calling.bounded(self._attempt, self._ask, call, self._timeout)
        except Exception as error:
            self._failures += 1
            if calling.allows(self._policy, error, self._failures)[0]:
                raise  # it is asked before the next try
            found = await self._found()
            if found is not None:
                return found.result
            raise

    async def _intend(self) -> None:
        attempt = self._attempt
        self._begun = True
        await attempt.writer.keep(attempt.writer.new_row(self._ask, attempt.clock.now()))

    async def _found(self) -> Done | None:
        attempt, ask = self._attempt, self._ask
        if attempt.ending.is_asked:  # who cancels it should not have to wait for an answer
            await attempt.pause(ask)
        verdict = await self._reconciler.verdict()
        if isinstance(verdict, Unknown):
            reason = transitions.unknown_outcome(ask.key, verdict.reason)
            await park(attempt, ask, reason)
        if not isinstance(verdict, Done):
            return None
        scope = current_scope.get()
        if isinstance(scope, StepScope):
            scope.forget()  # what a failed body changed in the state does not count
        return verdict


async def park(attempt: Attempt, ask: Ask, reason: str) -> None:
    """Park the execution with a reason once its other bodies have ended; never returns."""
    log.warning("execution %s waits: %s", attempt.execution_id, reason)
    attempt.bodies.pop(ask, None)
    attempt.blocked_because = reason
    attempt.draining = True
    attempt.runner.drained(attempt)
    ask.settled = False
    while True:
        await attempt.pause(ask)


def leave(attempt: Attempt) -> None:
    """Leave an attempt that has nothing on its way any more: parked with a reason, or sealed."""
    if attempt.blocked_because is None:
        attempt.seal()
    else:
        attempt.runner.spawn(block(attempt))


async def block(attempt: Attempt) -> None:
    """Write that the execution is parked, and leave it."""
    if attempt.ended:
        return
    attempt.ended = True
    runner, reason = attempt.runner, attempt.blocked_because or ""
    try:
        await runner.backend.block(attempt.execution_id, attempt.number, reason)
    except StoreError as error:
        runner.store_failed(attempt, error)
    attempt.seal()
