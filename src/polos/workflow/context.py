"""`WorkflowContext`: what a workflow function is given: who it is, its state, its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel

from polos.core.model import Execution
from polos.errors import UsageError
from polos.workflow.emission import Emission
from polos.workflow.scope import current_scope
from polos.workflow.state import StateSchema
from polos.workflow.steps import Steps

if TYPE_CHECKING:
    from polos.workflow.port import AttemptPort
    from polos.workflow.runnable import Workflow


class WorkflowContext:
    """The first argument of every workflow function.

    Attributes: `workflow_id`, `execution_id`, `deployment_id`, `session_id`, `user_id`,
    `parent_execution_id`, `root_execution_id`, `root_workflow_id`, `retry_count` (retries of the
    whole execution), `created_at`, `workflow_type`, `code_version` (what started the execution),
    `generation` (how often it has continued as new);
    `state` (an instance of the workflow's `state_schema`, None without one) and `step` (the durable
    operations).
    """

    def __init__(  # noqa: PLR0917 - the reference's order
        self,
        workflow_id: str,
        execution_id: str,
        deployment_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        parent_execution_id: str | None = None,
        root_execution_id: str | None = None,
        root_workflow_id: str | None = None,
        retry_count: int = 0,
        created_at: datetime | None = None,
        workflow_type: str = "workflow",
        otel_traceparent: str | None = None,
        otel_span_id: str | None = None,
        state_schema: type[BaseModel] | None = None,
        initial_state: BaseModel | Mapping[str, Any] | None = None,
        cancel_event: Any = None,
        channels: list[Any] | None = None,
        channel_context: Any = None,
    ) -> None:
        self.workflow_id = workflow_id
        self.execution_id = execution_id
        self.deployment_id = deployment_id
        self.session_id = session_id
        self.user_id = user_id
        self.parent_execution_id = parent_execution_id
        self.root_execution_id = root_execution_id or execution_id
        self.root_workflow_id = root_workflow_id or workflow_id
        self.retry_count = retry_count
        self.created_at = created_at
        self.workflow_type = workflow_type
        self.otel_traceparent = otel_traceparent
        self.otel_span_id = otel_span_id
        self.code_version: str | None = None
        self.generation = 0
        self.identity = execution_id
        """What idempotency keys are derived from: each generation has its own."""
        self.cancel_event = cancel_event
        self.channels = channels or []
        self.channel_context = channel_context
        self._attempt: AttemptPort | None = None
        self.on_patched: Callable[[str], bool] | None = None
        """How the attempt is asked; a context built by hand runs the newest code."""
        self._state: Any = None
        if state_schema is not None:
            self._state = StateSchema(state_schema).initial(initial_state)
        self.step = Steps(self)

    @classmethod
    def for_attempt(
        cls, attempt: AttemptPort, execution: Execution, workflow: Workflow[Any]
    ) -> WorkflowContext:
        """Return the context of an attempt of an execution."""
        context = cls(
            execution.workflow_id,
            execution.id,
            execution.deployment_id,
            execution.session_id,
            execution.user_id,
            execution.parent_id,
            execution.root_id,
            execution.root_workflow_id,
            execution.retry_count,
            datetime.fromtimestamp(execution.created_at / 1e6, UTC),
            workflow.workflow_type,
        )
        context.code_version = execution.code_version
        context.generation = execution.generation
        context.identity = attempt.identity
        context._attempt = attempt
        context.on_patched = attempt.patched
        return context

    @property
    def attempt(self) -> AttemptPort | None:
        """The attempt behind this context; None if it was built by hand."""
        return self._attempt

    @property
    def state(self) -> Any:
        """The workflow's state; inside a step's body a private copy (recorded if it succeeds)."""
        attempt = self._attempt
        if attempt is None:
            return self._state
        scope = current_scope.get()
        if scope is not None and scope.owner is attempt:
            return scope.state()
        return attempt.state

    @state.setter
    def state(self, value: Any) -> None:
        attempt = self._attempt
        if attempt is None:
            self._state = value
            return
        scope = current_scope.get()
        if scope is not None and scope.owner is attempt:
            scope.replace(value)
        else:
            attempt.state = value

    def emit(self, data: Any) -> Emission:
        """Stream a chunk out to whoever reads this execution: `client.stream(execution_id)`.

        ```python
        ctx.emit({"percent": 40})
        ```
        `data` is JSON, or a model of it; it is taken as it is now. Works in workflow code, in the
        bodies of steps and in threads. Nothing needs to be awaited: the chunk is seen within
        milliseconds, and never later than the record of the next step. `await ctx.emit(data)` waits
        only while very much is on its way to the store, so that a fast producer fills no memory;
        `await ctx.emit(data).durable()` waits until readers can see it.

        Around steps the n-th chunk of the code is streamed once, however often the code runs again:
        it must make the same number of them on every run, as it must ask for the same steps. In a
        body a chunk belongs to its step: if the body starts again, a `reset` tells readers that its
        earlier chunks are void. Raises `EncodeError` for data that are no JSON.
        """
        if self._attempt is None:
            raise UsageError(
                "this context was built by hand and runs no execution; ctx.emit works inside a "
                "workflow that was started with a client (see polos.testing for tests)"
            )
        return self._attempt.streams.emit(data)

    @property
    def history_length(self) -> int:
        """How many rows of the journal this run has behind it; see `continue_as_new`."""
        return 0 if self._attempt is None else self._attempt.handed

    def continue_as_new(
        self, payload: Any = None, state: Any = None, *, drop_compensations: bool = False
    ) -> NoReturn:
        """End this run, and go on with the next one: same execution, new payload, empty journal.

        ```python
        if ctx.history_length > 10_000:
            ctx.continue_as_new({"page": page})
        ```
        It raises what the code must let pass (no `Exception`); with `return` in front of it a type
        checker sees that. `ctx.state` is kept, or replaced by `state` (a model or dict, validated).
        Handles and a parent keep waiting for the same execution, whose `generation` is one more.
        Steps have new idempotency keys. Children that are still open go on, but nobody hears of
        their ends; timers and suspensions are gone.

        How steps of this run are undone is not known to the next one. While a step with
        `compensate` could still be undone, the call is refused: undo what must be undone with
        `await ctx.step.compensate()`, or say with `drop_compensations=True` that its effects stand.

        Raises `InvalidPayloadError` or `InvalidStateError` if they do not fit, `UsageError` if
        steps could still be undone; the run goes on.
        """
        attempt = self._attempt
        if attempt is None:
            raise UsageError(
                "this context was built by hand and runs no execution: nothing can continue as new"
            )
        scope = current_scope.get()
        if scope is not None and scope.owner is attempt:
            raise UsageError(
                f"ctx.continue_as_new was used inside the body of step {scope.key!r}: call it from "
                "the workflow function instead"
            )
        attempt.effects.renew(payload, state, drop_compensations=drop_compensations)

    def patched(self, patch_id: str) -> bool:
        """Say whether this execution runs the code behind a change; not awaited.

        ```python
        if ctx.patched("check stock first"):  # an id of your choice for this change
            await ctx.step.run("stock", check_stock, order)
        ```
        True for executions that come to this point with the new code for the first time, False for
        those that an older version of the code has taken past it. The answer is recorded: every
        call with the same id gives the same. When the last execution that may answer False has
        ended, the call and the old code can go. Not inside the body of a step.
        """
        scope = current_scope.get()
        if scope is not None and scope.owner is self._attempt:
            raise UsageError(
                f"ctx.patched was used inside the body of step {scope.key!r}, which is recorded as "
                "a whole: call it from the workflow function instead"
            )
        return self.on_patched is None or self.on_patched(patch_id)

    def children_state(self, step_key: str = "children_state", *, ended: bool = False) -> Any:
        """Return what the children of this execution are at: await it.

        A dict by child id of `workflow_id`, `step_key` (which started it), `status` and `state` as
        of the child's last step, in the order of their starts. Without `ended` only children that
        have not ended. Recorded under `step_key`, so that a replay sees the same.
        """
        return self.step.children_state(step_key, ended=ended)

    def to_dict(self) -> dict[str, Any]:
        """Return the identifying facts as plain data."""
        return {
            "workflow_id": self.workflow_id,
            "execution_id": self.execution_id,
            "deployment_id": self.deployment_id,
            "parent_execution_id": self.parent_execution_id,
            "root_execution_id": self.root_execution_id,
            "retry_count": self.retry_count,
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "session_id": self.session_id,
            "user_id": self.user_id,
        }

    def __repr__(self) -> str:
        return f"<WorkflowContext {self.workflow_id!r} {self.execution_id}>"
