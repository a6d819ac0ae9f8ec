"""`ctx.step`: the durable operations of a workflow. Each is recorded once and never repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload

from pydantic import BaseModel

from polos.core import ids
from polos.core.model import Kind
from polos.core.retry import DEFAULT, LONGEST_SECONDS
from polos.errors import StepExecutionError, UsageError
from polos.workflow.asking import Asking, check_timeout
from polos.workflow.batch import BatchStepResult, BatchWorkflowInput, checked
from polos.workflow.effects import effect
from polos.workflow.event_steps import EventSteps
from polos.workflow.options import retry_policy, seconds_of
from polos.workflow.port import Child
from polos.workflow.queue import Queue
from polos.workflow.runnable import Workflow
from polos.workflow.scope import current_scope
from polos.workflow.spans import Span, span
from polos.workflow.state_steps import StateSteps

if TYPE_CHECKING:
    from polos.workflow.port import AttemptPort

T = TypeVar("T")
State = BaseModel | Mapping[str, Any]

_USUAL = (
    DEFAULT.max_retries,
    DEFAULT.base_delay,
    DEFAULT.max_delay,
    DEFAULT.jitter,
    DEFAULT.retry_if,
    DEFAULT.non_retryable,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Owner(Protocol):
    """The context that a `Steps` belongs to."""

    execution_id: str
    identity: str

    @property
    def attempt(self) -> AttemptPort | None:
        """The attempt that runs here; None if the context was built by hand."""
        ...


class Steps(Asking, EventSteps, StateSteps):
    """The operations that a workflow function awaits.

    Every one takes a `step_key` first: a name of your choice. A key used again is numbered by
    occurrence (`poll`, `poll#2`, …), so a loop may reuse it as long as its order is the same on
    every run; put the item into the key where it is not.
    """

    def __init__(self, context: Owner) -> None:
        self._context = context

    @property
    def _attempt(self) -> AttemptPort:
        attempt = self._context.attempt
        if attempt is None:
            raise UsageError(
                "this context was built by hand and runs no execution; ctx.step works inside a "
                "workflow that was started with a client (see polos.testing for tests)"
            )
        return attempt

    # -- bodies -------------------------------------------------------------------------------

    @overload
    def run(
        self,
        step_key: str,
        func: Callable[..., Awaitable[T]],
        *args: Any,
        max_retries: int = ...,
        base_delay: float = ...,
        max_delay: float = ...,
        timeout: float | None = ...,
        jitter: float = ...,
        retry_if: Callable[[Exception], bool] | None = ...,
        non_retryable: tuple[type[BaseException], ...] = ...,
        compensate: Callable[..., Any] | None = ...,
        reconcile: Callable[..., Any] | None = ...,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def run(
        self,
        step_key: str,
        func: Callable[..., T],
        *args: Any,
        max_retries: int = ...,
        base_delay: float = ...,
        max_delay: float = ...,
        timeout: float | None = ...,
        jitter: float = ...,
        retry_if: Callable[[Exception], bool] | None = ...,
        non_retryable: tuple[type[BaseException], ...] = ...,
        compensate: Callable[..., Any] | None = ...,
        reconcile: Callable[..., Any] | None = ...,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, T]: ...

    def run(
        self,
        step_key: str,
        func: Callable[..., Any],
        *args: Any,
        max_retries: int = DEFAULT.max_retries,
        base_delay: float = DEFAULT.base_delay,
        max_delay: float = DEFAULT.max_delay,
        timeout: float | None = None,
        jitter: float = 0.0,
        retry_if: Callable[[Exception], bool] | None = None,
        non_retryable: tuple[type[BaseException], ...] = (),
        compensate: Callable[..., Any] | None = None,
        reconcile: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Run `func(*args, **kwargs)` and record its result; a recorded step never runs again.

        An async function is awaited on the event loop; a plain one runs in a thread, with the
        caller's context variables. If it raises an `Exception` it is tried again up to
        `max_retries` times, after `min(base_delay * 2**n, max_delay)` seconds (plus up to
        `jitter` times that); `retry_if(error)` and `non_retryable` types can say no. `timeout`
        (seconds) bounds each attempt. A pause of more than 5 s is a durable timer.

        `compensate(result)`, or `compensate()`, undoes the step: if the execution fails, is
        cancelled or runs out of time, what was recorded is undone in reverse order, each as a
        recorded step `compensate.{step_key}` with the retries and `timeout` of this one.

        With `reconcile` the intent is recorded before the body begins. After a crash, and before a
        retry, `reconcile(idempotency_key)` is asked first: `Done(result)` is recorded as the step's
        result, after `NotDone()` the body runs, `Unknown(reason)` parks the execution until `retry`
        lets it be asked again.

        Raises `StepExecutionError` when it is out of attempts, `StepTimeoutError` if the last one
        took too long, `StateTooLargeError` if the state is over its limit. The result is what was
        recorded: JSON types, models, dataclasses and the like come back as they were.
        """
        if not callable(func):
            raise UsageError(
                f"step {step_key!r}: expected a function and its arguments, not {func!r}; pass "
                "the function itself, without calling it"
            )
        given = (max_retries, base_delay, max_delay, jitter, retry_if, non_retryable)
        policy = DEFAULT if given == _USUAL else retry_policy(step_key, *given)
        if timeout is not None:
            check_timeout(step_key, timeout)
        if compensate is None and reconcile is None:
            return self._attempt.run(step_key, func, args, kwargs, policy, timeout)
        said = effect(step_key, compensate, reconcile)
        return self._attempt.run(step_key, func, args, kwargs, policy, timeout, said)

    async def transaction(
        self, step_key: str, func: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Run `func(connection, *args, **kwargs)` in the transaction that records its result.

        Its writes and the record are committed together, or neither is: nothing is written twice,
        whenever the process dies. The connection leads to the database that holds the execution.
        On SQLite it is apsw's and `func` a plain function (an async one that awaits nothing will
        do), on PostgreSQL asyncpg's and `func` an async one. If it raises, what it wrote is undone
        and the step fails; it is not tried again. Keep it short, and do nothing in it but use the
        connection: on SQLite whatever else this process writes waits for it, and it may be called
        again if the database refused the transaction.

        Raises `StepExecutionError` if the function raised.
        """
        if not callable(func):
            raise UsageError(
                f"step {step_key!r}: expected a function of a connection, not {func!r}; pass the "
                "function itself, without calling it"
            )
        return await self._attempt.effects.transaction(step_key, func, args, kwargs)

    async def compensate(self) -> list[str]:
        """Undo now what `compensate=` says of the steps that were recorded so far, the last first.

        Returns the keys of the steps that could not be undone. What was undone is not undone again
        when the execution fails later.
        """
        return await self._attempt.effects.compensate()

    async def stream(
        self,
        step_key: str,
        func: Callable[..., Any],
        *args: Any,
        collect: Callable[[list[Any]], Any] | None = None,
        max_retries: int = DEFAULT.max_retries,
        base_delay: float = DEFAULT.base_delay,
        max_delay: float = DEFAULT.max_delay,
        timeout: float | None = None,
        jitter: float = 0.0,
        retry_if: Callable[[Exception], bool] | None = None,
        non_retryable: tuple[type[BaseException], ...] = (),
        **kwargs: Any,
    ) -> Any:
        """Run a generator function and stream out what it yields; its chunks are the result.

        `func(*args, **kwargs)` is an async generator, or a plain one, which runs in a thread; a
        function that returns an (async) iterator will do. Each chunk is JSON, or a model of it, and
        is seen by readers (`client.stream`) at once. The result is the list of the chunks, or
        `collect(chunks)`; it is recorded as that of `run` is, whose other parameters and errors it
        has. A recorded step is neither run nor streamed again. If its body starts again, after a
        failure or a crash, a `reset` tells readers that its earlier chunks are void.
        """
        if not callable(func):
            raise UsageError(
                f"step {step_key!r}: expected a generator function and its arguments, not "
                f"{func!r}; pass the function itself, without calling it"
            )
        if collect is not None and not callable(collect):
            raise UsageError(f"step {step_key!r}: collect is a function of the list of chunks")
        given = (max_retries, base_delay, max_delay, jitter, retry_if, non_retryable)
        policy = DEFAULT if given == _USUAL else retry_policy(step_key, *given)
        if timeout is not None:
            check_timeout(step_key, timeout)
        streams = self._attempt.streams
        return await streams.run(step_key, func, args, kwargs, collect, policy, timeout)

    def idempotency_key(self, step_key: str | None = None) -> str:
        """Return a key that is the same in every attempt of this step: pass it to the outside.

        Inside a body `step_key` may be left out, and its own repeated key is numbered for you.
        """
        scope = current_scope.get()
        inside = scope is not None and scope.owner is self._context.attempt
        if (
            scope is not None
            and inside
            and (step_key is None or scope.key.partition("#")[0] == step_key)
        ):
            step_key = scope.key
        if step_key is None:
            raise UsageError("idempotency_key() needs the step's key outside of a step's body")
        return ids.idempotency_key(self._context.identity, step_key)

    # -- values -------------------------------------------------------------------------------

    async def uuid(self, step_key: str) -> str:
        """Return a UUID that is the same on every replay."""
        return await self._attempt.value(Kind.UUID, step_key)

    async def now(self, step_key: str) -> int:
        """Return the time of the first run, in milliseconds since the epoch."""
        return await self._attempt.value(Kind.NOW, step_key)

    async def random(self, step_key: str) -> float:
        """Return a number in [0, 1) that is the same on every replay."""
        return await self._attempt.value(Kind.RANDOM, step_key)

    # -- waits --------------------------------------------------------------------------------

    async def wait_for(
        self,
        step_key: str,
        seconds: float | None = None,
        minutes: float | None = None,
        hours: float | None = None,
        days: float | None = None,
        weeks: float | None = None,
    ) -> None:
        """Wait for the sum of the given times; survives restarts and costs nothing meanwhile.

        A sum of zero or less, or of more than 100 years, fails the step with a
        `StepExecutionError`.
        """
        total = seconds_of(step_key, seconds, minutes, hours, days, weeks)
        due = int(total * 1e6) if 0 < total <= LONGEST_SECONDS else None
        fault = "Wait duration must be positive"
        if total > LONGEST_SECONDS:
            fault = "Wait duration must be at most 100 years"
        await self._attempt.wait_until(Kind.WAIT_FOR, step_key, due, fault)

    async def wait_until(self, step_key: str, timestamp: datetime) -> None:
        """Wait until a moment; one without time zone is UTC.

        A moment in the past, or more than 100 years away, fails the step with a
        `StepExecutionError`.
        """
        if not isinstance(cast("Any", timestamp), datetime):
            raise UsageError(f"step {step_key!r}: expected a datetime, not {timestamp!r}")
        if timestamp.tzinfo is None:
            timestamp = timestamp.replace(tzinfo=UTC)
        moment = (timestamp - _EPOCH) // _MICROSECOND
        now = self._attempt.now()
        due = moment if now < moment <= now + LONGEST_SECONDS * 1e6 else None
        if moment > now:
            fault = f"Wait date {timestamp.isoformat()} is more than 100 years away"
        else:
            fault = f"Wait date {timestamp.isoformat()} is in the past"
        await self._attempt.wait_until(Kind.WAIT_UNTIL, step_key, due, fault)

    # -- children -----------------------------------------------------------------------------

    async def invoke(
        self,
        step_key: str,
        workflow: str | Workflow[Any],
        payload: Any = None,
        initial_state: State | None = None,
        queue: str | Queue | None = None,
        concurrency_key: str | None = None,
        run_timeout_seconds: float | None = None,
        *,
        tags: Mapping[str, str] | None = None,
    ) -> Any:
        """Start a child workflow and go on; returns its `ExecutionHandle`."""
        child = self._child(
            step_key,
            workflow,
            payload,
            initial_state,
            queue,
            concurrency_key,
            run_timeout_seconds,
            tags,
        )
        facts = await self._attempt.invoke(Kind.INVOKE, step_key, [child])
        return self._attempt.handle(facts[0])

    async def invoke_and_wait(
        self,
        step_key: str,
        workflow: str | Workflow[Any],
        payload: Any = None,
        initial_state: State | None = None,
        queue: str | Queue | None = None,
        concurrency_key: str | None = None,
        run_timeout_seconds: float | None = None,
        *,
        tags: Mapping[str, str] | None = None,
    ) -> Any:
        """Start a child workflow and wait for its result.

        Raises `StepExecutionError` with the child's error if it failed or was cancelled.
        """
        child = self._child(
            step_key,
            workflow,
            payload,
            initial_state,
            queue,
            concurrency_key,
            run_timeout_seconds,
            tags,
        )
        return await self._attempt.invoke_and_wait(Kind.INVOKE_AND_WAIT, step_key, [child])

    async def batch_invoke(self, step_key: str, workflows: list[BatchWorkflowInput]) -> list[Any]:
        """Start many children in one commit; returns their handles, in order."""
        children = [self._batch_child(step_key, each) for each in checked(workflows)]
        if not children:
            return []
        facts = await self._attempt.invoke(Kind.BATCH_INVOKE, step_key, children)
        return [self._attempt.handle(each) for each in facts]

    async def batch_invoke_and_wait(
        self, step_key: str, workflows: list[BatchWorkflowInput]
    ) -> list[BatchStepResult]:
        """Start many children and wait for all; failures come back as `success=False`, in order."""
        attempt = self._attempt
        children = [self._batch_child(step_key, each) for each in checked(workflows)]
        if not children:
            return []
        ends = await attempt.invoke_and_wait(Kind.BATCH_INVOKE_AND_WAIT, step_key, children)
        return [
            BatchStepResult(
                workflow_id=end["workflow_id"],
                success=end["success"],
                result=attempt.decode(end["result"], end["type"]) if end["success"] else None,
                error=end.get("error"),
            )
            for end in cast("list[dict[str, Any]]", ends)
        ]

    def _batch_child(self, step_key: str, each: BatchWorkflowInput) -> Child:
        return self._child(
            step_key,
            each.id,
            each.payload,
            each.initial_state,
            None,
            None,
            each.run_timeout_seconds,
            each.tags,
        )

    def _child(  # noqa: PLR0917
        self,
        step_key: str,
        workflow: str | Workflow[Any],
        payload: Any,
        initial_state: State | None,
        queue: str | Queue | None,
        concurrency_key: str | None,
        run_timeout_seconds: float | None,
        tags: Mapping[str, str] | None,
    ) -> Child:
        named = isinstance(workflow, str)
        found: Any = self._attempt.workflow_named(workflow) if named else workflow
        if named and found is None:
            raise StepExecutionError(f"Workflow {workflow} not found", step_key=step_key)
        if not isinstance(found, Workflow):
            raise UsageError(
                f"step {step_key!r} starts {found!r}: expected a workflow, or the id of one"
            )
        options = found.start_options(
            queue,
            concurrency_key=concurrency_key,
            run_timeout_seconds=run_timeout_seconds,
            tags=tags,
        )
        return Child(
            cast("Workflow[Any]", found),
            payload,
            initial_state,
            options.queue_name,
            options.concurrency_key,
            options.run_timeout_seconds,
            options.tags,
        )

    # -- tracing ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def trace(
        self, name: str, attributes: Mapping[str, Any] | None = None
    ) -> Generator[Span, None, None]:
        """Measure a block as a span of this execution; an error inside marks it and goes on.

        Spans go to OpenTelemetry if the application has set it up, else nowhere.
        """
        with span(name, attributes, self._context.execution_id) as opened:
            yield opened
