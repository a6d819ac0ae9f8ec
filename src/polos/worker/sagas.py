"""Sagas: what an attempt's steps said about how they are undone, and the undoing of it.

The functions live in the code, not in the journal: a replay runs the code to the same end and comes
by them again; what was undone before is recorded.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polos.core import transitions
from polos.core.model import Kind
from polos.core.retry import RetryPolicy
from polos.errors import StepExecutionError, UsageError
from polos.worker import arity, bodies, calling
from polos.worker.asks import Ask
from polos.worker.reconciling import Reconciler
from polos.workflow.ambient import current_context
from polos.workflow.effects import Done, Effect, NotDone

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

log = logging.getLogger("polos.worker")


@dataclass(slots=True, eq=False)
class Undoing:
    """One step that can be undone."""

    ask: Ask
    function: Callable[..., Any]
    undo: Callable[..., Any]
    policy: RetryPolicy
    timeout: float | None
    """Seconds for each try, of the step and of its undoing."""
    effect: Effect
    failed: bool = False
    """Undoing it was tried, and failed."""

    @property
    def place(self) -> tuple[int, int] | None:
        """Where it was recorded; None if it failed, or was not recorded."""
        row = self.ask.answer or self.ask.row
        if row is None or row.turn is None or not row.ok:
            return None
        return (row.turn, row.seq)

    @property
    def is_unknown(self) -> bool:
        """Say whether its body may have run without leaving a record of how it ended."""
        row = self.ask.answer or self.ask.row
        if row is not None and row.turn is not None:
            return False
        return row is not None or bool(self.ask.started_at) or self.ask.future is not None


class Saga:
    """The steps of one attempt that can be undone."""

    __slots__ = ("_attempt", "_context", "_steps", "is_closing")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._steps: dict[Ask, Undoing] = {}
        self._context: Any = None
        self.is_closing = False
        """The code has failed, or was cancelled; a cancellation does not interrupt what follows."""

    def note(
        self,
        ask: Ask,
        function: Callable[..., Any],
        policy: RetryPolicy,
        timeout: float | None,
        effect: Effect,
    ) -> None:
        """Remember how a step is undone, should it succeed."""
        undo = effect.compensate
        assert undo is not None
        if arity.required(undo) > 1:
            raise UsageError(
                f"step {ask.key!r}: compensate is called with the step's result, or without "
                "arguments; bind the others with functools.partial or a lambda"
            )
        self._context = current_context.get()
        ask.info = transitions.TO_UNDO  # for those who end the execution without its code
        self._steps[ask] = Undoing(ask, function, undo, policy, timeout, effect)

    async def foresee(self, ask: Ask, effect: Effect | None) -> None:
        """Record that a body begins that may be what the attempts before it died of.

        Else nobody could name it who ends the execution without its code. With a reconciliation
        its beginning is recorded anyway.
        """
        if effect is None or effect.compensate is None or effect.reconcile is not None:
            return
        attempt = self._attempt
        if ask.row is None and attempt.deaths():
            await attempt.writer.keep(attempt.writer.new_row(ask, attempt.clock.now()))

    def left(self) -> list[str]:
        """Return the keys of the steps whose effect stands, or may stand, and was to be undone."""
        steps = self._steps.values()
        return [s.ask.key for s in steps if s.failed or s.place or s.is_unknown]

    async def close(self) -> None:
        """Undo everything, after the code has left."""
        if not self._steps:
            return
        self.is_closing = True
        await self._settle()
        token = current_context.set(self._context)
        try:
            await self.undo(unknown=True)
        finally:
            current_context.reset(token)

    async def _settle(self) -> None:
        """Let go of the tasks that the code left behind, and wait for what they still record."""
        attempt = self._attempt
        await attempt.dismiss()
        await attempt.writer.rest()
        while not attempt.pump.idle:  # noqa: ASYNC110 - it counts turns of the loop
            await asyncio.sleep(0)

    async def undo(self, *, unknown: bool) -> list[str]:
        """Undo what was recorded, the last first, each as step `compensate.{key}`.

        `unknown`: also those of which their reconciliation knows whether they took place. Returns
        the keys of the steps that could not be undone.
        """
        steps = self._steps.values()
        done = [step for step in steps if step.place is not None and not step.failed]
        done.sort(key=lambda step: step.place or (0, 0), reverse=True)
        if unknown:
            # They began after everything that they could have built on.
            doubtful = [s for s in steps if s.is_unknown and s.effect.reconcile is not None]
            done = [*reversed(doubtful), *done]
        failed: list[str] = []
        for step in done:
            try:
                await self._undo(step)
                del self._steps[step.ask]
            except StepExecutionError as error:
                step.failed = True
                failed.append(step.ask.key)
                log.error(
                    "execution %s: step %r is not compensated: %s",
                    self._attempt.execution_id,
                    step.ask.key,
                    error,
                )
        return failed

    async def _undo(self, step: Undoing) -> None:
        attempt, ask = self._attempt, step.ask
        body = self._found_out(step) if step.place is None else self._call(step, self._result(step))
        key = f"compensate.{ask.key}"
        policy, timeout = step.policy, step.timeout
        await bodies.run(attempt, key, body, (), {}, policy, timeout, kind=Kind.COMPENSATE)

    def _result(self, step: Undoing) -> Any:
        step.ask.answer = step.ask.answer or step.ask.row
        return bodies.result(self._attempt, step.ask, step.function)

    def _call(self, step: Undoing, result: Any) -> Callable[[], Any]:
        arguments = (result,) if arity.wants_one(step.undo) else ()
        return functools.partial(step.undo, *arguments)

    def _found_out(self, step: Undoing) -> Callable[[], Any]:
        """Return a body that undoes a step only if it turns out to have taken place."""
        attempt, check = self._attempt, step.effect.reconcile
        assert check is not None
        reconciler = Reconciler(attempt, step.ask, check, step.policy)

        async def body() -> None:
            verdict = await reconciler.verdict()
            if isinstance(verdict, NotDone):
                return
            if not isinstance(verdict, Done):
                raise bodies.Refusal(verdict.reason or "its outcome is unknown")
            await calling.call(attempt, step.ask, self._call(step, verdict.result))

        return body
