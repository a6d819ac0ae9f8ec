"""`ctx.step.transaction`: a function whose writes commit with the record of its step.

The change that is handed to the store is not formed yet. The store fences it, calls the function on
a connection of the same transaction, and then has the change formed: what the execution gathered
meanwhile is in it, behind it nothing of the execution is written until it is durable.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from polos.core import failure
from polos.core.codec import Encoded
from polos.core.content import Content
from polos.core.model import Kind, Row
from polos.core.retry import RetryPolicy
from polos.errors import UsageError
from polos.worker import bodies, calling
from polos.worker.asks import Ask, call_of
from polos.worker.starting import in_memory
from polos.worker.tracking import StepScope
from polos.workflow.scope import current_scope

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt
    from polos.worker.writer import Batch

_ONCE = RetryPolicy(max_retries=0)


async def run(
    attempt: Attempt,
    key: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a function inside a transaction, once over all attempts."""
    if attempt.backend.async_transactions and not calling.is_async(function):
        raise UsageError(
            f"step {key!r}: on PostgreSQL a transaction is an async def function, because its "
            "connection is asyncpg's; a plain def works on SQLite"
        )
    ask = attempt.ask(Kind.TRANSACTION, key, call_of(function, args, kwargs))
    try:
        if await attempt.recorded(ask):
            return bodies.result(attempt, ask, function)
        await attempt.go_live(ask)
        attempt.look(ask)
        while attempt.writer.in_flight:  # what was handed over before is durable before
            await attempt.writer.rest()
            await attempt.go_live(ask)
        ask.attempts = 1 + attempt.deaths()
        ask.started_at = attempt.clock.now()
        work = Transaction(attempt, ask, function, args, kwargs)
        work.batch = attempt.writer.transact(work)
        await attempt.settled(ask)
        return bodies.result(attempt, ask, function)
    finally:
        attempt.close(ask)


class Transaction:
    """What a change does inside its own transaction: see `polos.core.work.Task`."""

    def __init__(
        self,
        attempt: Attempt,
        ask: Ask,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._attempt = attempt
        self._ask = ask
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._scope = StepScope(attempt, ask.key, ask.attempts, attempt.tracker)
        self.context = copy_context()
        self.context.run(current_scope.set, self._scope)
        self.batch: Batch | None = None
        self.is_formed = False
        self._prepared: tuple[list[Any] | None, Encoded, Sequence[Content]] | None = None

    def call(self, connection: Any) -> Any:
        """Call the function on the thread that owns the connection."""
        self._scope.forget()
        value = self.context.run(self._function, connection, *self._args, **self._kwargs)
        if inspect.iscoroutine(value):
            value = self.context.run(self._drive, value)
        return value

    def _drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        coroutine.close()
        raise bodies.Refusal(
            f"step {self._ask.key!r}: on SQLite a transaction cannot await anything: its "
            "connection is not asynchronous; use a plain def, and await outside of it"
        )

    async def call_async(self, connection: Any) -> Any:
        """Call the function on the event loop."""
        self._scope.forget()
        coroutine = self._function(connection, *self._args, **self._kwargs)
        run = calling.contained(coroutine)
        task = asyncio.Task(run, loop=self._attempt.loop, context=self.context)
        return calling.released(await task)

    def prepare(self, value: Any) -> None:
        """Encode the result and what the function changed in the state; raises if it cannot."""
        codec = self._attempt.codec
        own, encoded = self._scope.change(), codec.encode(value)
        self._prepared = own, encoded, in_memory(codec.take_contents())

    def accept(self) -> None:
        """Record the result, and form the change."""
        attempt, ask = self._attempt, self._ask
        assert self._prepared is not None
        own, encoded, contents = self._prepared
        now = attempt.clock.now()
        row = attempt.writer.new_row(ask, now)
        row.ok, row.body, row.type, row.completed_at = True, encoded.body, encoded.type, now
        if own is not None:
            row.change = json.dumps(own)
        if contents:
            row.contents = contents
        self._form(row, own)

    def reject(self, error: BaseException) -> None:
        """Record that the function failed, and form the change."""
        attempt, ask = self._attempt, self._ask
        now = attempt.clock.now()
        row = attempt.writer.new_row(ask, now)
        row.ok, row.body, row.completed_at = False, self._failure(error), now
        self._form(row, None)

    def _failure(self, error: BaseException) -> str:
        return failure.dump(bodies.failure_of(self._ask, _ONCE, error))

    def _form(self, row: Row, own: list[Any] | None) -> None:
        attempt, batch = self._attempt, self.batch
        assert batch is not None
        row.pinned = attempt.is_pinned(self._ask)
        attempt.writer.add(batch, row, own)
        batch.turn.append((self._ask, row))
        self.is_formed = True
        attempt.writer.form(batch)
