"""A workflow as its author holds it: what it is, and the ways to start it from outside.

Does not know how executions are stored or run: it asks the client, through `Starter`.
"""

import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, cast

from pydantic import BaseModel, PydanticUserError
from typing_extensions import TypeVar

from polos.core import ids
from polos.core.ages import Age, parse_optional
from polos.core.events import check_topic
from polos.core.retry import LONGEST_SECONDS
from polos.errors import (
    InvalidStateError,
    OutsideWorkflowError,
    StateSchemaError,
    UsageError,
    WorkflowDefinitionError,
)
from polos.workflow import hints, labels, payload
from polos.workflow.adapter import Adapter
from polos.workflow.ambient import current_context
from polos.workflow.event import BatchEventPayload
from polos.workflow.fingerprint import fingerprint
from polos.workflow.keying import keying
from polos.workflow.queue import Queue, parse_queue
from polos.workflow.schedule import Schedule, parse_schedule
from polos.workflow.signature import Signature, is_async
from polos.workflow.state import StateSchema

ID_BYTES_MAX = 500
LABEL_BYTES_MAX = 2_000
"""Both stand in one entry of an index, which may have 2,704 bytes on PostgreSQL."""
Function = Callable[..., Any]
ResultT = TypeVar("ResultT", default=Any)
HandleT_co = TypeVar("HandleT_co", covariant=True, bound="ExecutionHandleLike")
HandleT = TypeVar("HandleT", bound="ExecutionHandleLike")


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How one execution is to be started; what was not given is the workflow's own."""

    queue_name: str
    queue_concurrency_limit: int | None = None
    concurrency_key: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    initial_state: BaseModel | Mapping[str, Any] | None = None
    run_timeout_seconds: float | None = None
    idempotency_key: str | None = None
    tags: Mapping[str, str] | None = None


class ExecutionHandleLike(Protocol):
    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end; return the result or raise what the execution failed with."""
        ...


class Starter(Protocol[HandleT_co]):
    """What a workflow asks of a client."""

    async def start_workflow(
        self, workflow: "Workflow[Any]", payload: Any, options: StartOptions
    ) -> HandleT_co:
        """Store a new execution. `payload` has been through `payload.prepare`."""
        ...

    def run_blocking(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run `main` on a loop of the client's and return its result."""
        ...


class Workflow(Generic[ResultT]):
    """A durable function: run it with a client, and it survives crashes, restarts and deploys.

    Made by `@workflow`; the constructor alone does not register it. `ResultT` is what the
    function returns.
    """

    def __init__(  # noqa: PLR0917
        self,
        id: str,
        func: Function,
        description: str | None = None,
        workflow_type: str = "workflow",
        queue_name: str | None = None,
        queue_concurrency_limit: int | None = None,
        trigger_on_event: str | None = None,
        batch_size: int = 1,
        batch_timeout_seconds: float | None = None,
        schedule: bool | str | Mapping[str, Any] | None = None,
        on_start: Function | list[Function] | None = None,
        on_end: Function | list[Function] | None = None,
        payload_schema_class: type[BaseModel] | None = None,
        output_schema: type[BaseModel] | None = None,
        state_schema: type[BaseModel] | None = None,
        *,
        max_retries: int = 0,
        max_history: int | None = None,
        run_timeout_seconds: float | None = None,
        retention: Age | None = None,
        version: str | None = None,
        index_state: Sequence[str] | None = None,
        state_key: Callable[[Any], Any] | None = None,
        state_on_failure: str = "keep",
        scope: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = _checked_id(id)
        self.func = func
        self.description = description
        self.workflow_type = workflow_type
        self.queue_name = queue_name
        self.queue_concurrency_limit = queue_concurrency_limit
        self.trigger_on_event = trigger_on_event
        self.batch_size = _at_least("batch_size", batch_size, 1)
        self.batch_timeout_seconds = _positive("batch_timeout_seconds", batch_timeout_seconds)
        self.schedule = schedule
        self.parsed_schedule: Schedule | None = parse_schedule(schedule)
        self.is_schedulable = schedule is not None and schedule is not False
        self._check_sources()
        self.on_start = _hooks(on_start)
        self.on_end = _hooks(on_end)
        self.signature = Signature(func, scope)
        self.is_async = is_async(func)
        self.has_payload_param = self.signature.has_payload
        self.payload_default = self.signature.payload_default
        self._payload_schema_class = payload_schema_class
        self._payload_adapter: Adapter | None = None
        self.output_schema = output_schema
        self.state_schema = state_schema
        self.schema: StateSchema | None = _schema(state_schema)
        self.index_state = labels.index_state(id, index_state, self.schema)
        """Places of its state that executions are found by: `state.customer_id`."""
        self.keying = keying(id, state_key, state_on_failure, has_state=self.schema is not None)
        """How its executions share state by a key; None: each has its own."""
        self.max_retries = _at_least("max_retries", max_retries, 0)
        self.max_history = None if max_history is None else _at_least("max_history", max_history, 1)
        """How many rows its journal may have; None: as many as its worker says."""
        self.run_timeout_seconds = time_limit(run_timeout_seconds)
        self.retention = _age("retention", retention)
        """For how many seconds a finished execution is kept; None: as long as its worker says."""
        self._code_version = _checked_version(version)
        self.__name__: str = getattr(func, "__name__", id)
        self.__qualname__: str = getattr(func, "__qualname__", id)
        self.__module__: str = getattr(func, "__module__", __name__)
        self.__doc__ = func.__doc__

    @property
    def payload_hint(self) -> Any:
        """The type of the payload; None for a function without payload parameter."""
        if not self.has_payload_param:
            return None
        return self._payload_schema_class or self.signature.payload_hint

    @property
    def payload_schema_class(self) -> type[BaseModel] | None:
        """The pydantic model of the payload, or the first one of a union."""
        return self._payload_schema_class or hints.first_model(self.payload_hint)

    @property
    def payload_accepts_none(self) -> bool:
        return self.signature.payload_accepts_none

    @property
    def payload_adapter(self) -> Adapter | None:
        """What turns plain data into the payload's type; None where everything is let through."""
        if self._payload_adapter is not None:
            return self._payload_adapter
        hint = self.payload_hint
        if hint is Any or hint is object:
            return None
        try:
            self._payload_adapter = Adapter(hint)
        except (PydanticUserError, NameError) as error:
            raise WorkflowDefinitionError(
                f"Workflow {self.id!r}: the payload type {hints.name_of(hint)} cannot be read from "
                f"JSON: {error}"
            ) from error
        return self._payload_adapter

    @property
    def code_version(self) -> str:
        """What its executions remember of the code: `version`, or the function's fingerprint."""
        if self._code_version is None:
            self._code_version = fingerprint(self.func)
        return self._code_version

    @property
    def result_hint(self) -> Any | None:
        """The return annotation, or None where there is none."""
        return self.output_schema or self.signature.result_hint

    @property
    def takes_event_batches(self) -> bool:
        """Whether a payload is `{"events": [...]}` and not one flat event."""
        if self.trigger_on_event is None:
            return False
        # A batch of one is one as well, where the code asks for batches.
        hint = self.payload_hint
        asked = isinstance(hint, type) and issubclass(hint, BatchEventPayload)
        return asked or self.batch_size > 1 or self.batch_timeout_seconds is not None

    async def run(  # noqa: PLR0917
        self,
        client: Starter[ExecutionHandleLike],
        payload: Any = None,
        queue: str | Queue | None = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = None,
        initial_state: BaseModel | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        run_timeout_seconds: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ResultT:
        """Start the workflow, wait for its end and return its result. Calling it does the same.

        `payload` is what the function takes as second parameter, or a dict that fits it.
        `timeout` (seconds) bounds only this wait: `WorkflowTimeoutError` is raised and the
        execution goes on. `run_timeout_seconds` ends the execution itself. `initial_state` fills
        `ctx.state`; its defaults fill the rest. `tags` (text by name) are what
        `list_executions(where={"tags.name": …})` finds it by. A second start with the same
        `idempotency_key` waits for the first one's execution.

        Raises `ExecutionFailedError`, `ExecutionCancelledError`, `WorkflowTimeoutError`, and
        `InvalidPayloadError` or `InvalidStateError` before anything is stored. Inside a workflow
        use `ctx.step.invoke_and_wait` instead.
        """
        self._demand_outside("run", "invoke_and_wait")
        handle = await self.invoke(
            client,
            payload,
            queue,
            concurrency_key,
            session_id,
            user_id,
            initial_state,
            run_timeout_seconds,
            idempotency_key=idempotency_key,
            tags=tags,
        )
        return cast("ResultT", await handle.result(timeout))

    __call__ = run

    async def invoke(  # noqa: PLR0917
        self,
        client: Starter[HandleT],
        payload: Any = None,
        queue: str | Queue | None = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: BaseModel | Mapping[str, Any] | None = None,
        run_timeout_seconds: float | None = None,
        *,
        idempotency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> HandleT:
        """Start the workflow and return a handle on its execution, once that is stored.

        The options are those of `run`. Inside a workflow use `ctx.step.invoke` instead.
        """
        self._demand_outside("invoke", "invoke")
        options = self.start_options(
            queue,
            concurrency_key=concurrency_key,
            session_id=session_id,
            user_id=user_id,
            initial_state=initial_state,
            run_timeout_seconds=run_timeout_seconds,
            idempotency_key=idempotency_key,
            tags=tags,
        )
        return await client.start_workflow(self, self.prepare(payload), options)

    def run_sync(  # noqa: PLR0917
        self,
        client: Starter[ExecutionHandleLike],
        payload: Any = None,
        queue: str | Queue | None = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = None,
        initial_state: BaseModel | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        run_timeout_seconds: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ResultT:
        """Do what `run` does, from code without an event loop; blocks until the end."""
        self._demand_outside("run_sync", "invoke_and_wait")
        main = functools.partial(
            self.run,
            client,
            payload,
            queue,
            concurrency_key,
            session_id,
            user_id,
            timeout,
            initial_state,
            idempotency_key=idempotency_key,
            run_timeout_seconds=run_timeout_seconds,
            tags=tags,
        )
        return cast("ResultT", client.run_blocking(main))

    def prepare(self, value: Any) -> Any:
        """Return `value` as the payload's type, or raise `InvalidPayloadError`."""
        return payload.prepare(self, value)

    def load(self, value: Any) -> Any:
        """Return a recorded payload as the type that the function expects."""
        return payload.load(self, value)

    def start_options(
        self,
        queue: str | Queue | None = None,
        *,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: BaseModel | Mapping[str, Any] | None = None,
        run_timeout_seconds: float | None = None,
        idempotency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> StartOptions:
        """Return the options of one start, with what was not given taken from the workflow."""
        if initial_state and self.schema is None:
            raise InvalidStateError(
                f"Workflow {self.id!r} has no state, but initial_state was given; declare it with "
                "@workflow(state_schema=...)"
            )
        chosen = parse_queue(queue, self.id)
        limit = chosen.concurrency_limit if chosen else None
        timeout = time_limit(run_timeout_seconds)
        return StartOptions(
            queue_name=chosen.name if chosen else self.queue_name or self.id,
            queue_concurrency_limit=limit or self.queue_concurrency_limit,
            concurrency_key=label("concurrency_key", concurrency_key),
            session_id=label("session_id", session_id),
            user_id=label("user_id", user_id),
            initial_state=initial_state,
            run_timeout_seconds=self.run_timeout_seconds if timeout is None else timeout,
            idempotency_key=label("idempotency_key", idempotency_key),
            tags=labels.tags(tags),
        )

    def _demand_outside(self, method: str, instead: str) -> None:
        if current_context.get() is not None:
            raise OutsideWorkflowError(
                f"{self.id}.{method}() cannot be called from within a workflow or agent; use "
                f"ctx.step.{instead}(step_key, {self.__name__}, payload), so that the call is "
                "recorded"
            )

    def _check_sources(self) -> None:
        if self.trigger_on_event is not None and (
            not isinstance(cast("Any", self.trigger_on_event), str) or not self.trigger_on_event
        ):
            raise WorkflowDefinitionError(
                f"Workflow {self.id!r}: trigger_on_event is a topic, not {self.trigger_on_event!r}"
            )
        if self.trigger_on_event is not None:
            try:
                check_topic(self.trigger_on_event)
            except UsageError as error:
                raise WorkflowDefinitionError(
                    f"Workflow {self.id!r}: trigger_on_event: {error}"
                ) from None
        if self.schedule and self.trigger_on_event:
            raise WorkflowDefinitionError(
                f"Workflow {self.id!r}: Workflows cannot be both scheduled and event-triggered; "
                "write two that share a function"
            )
        queued = self.queue_name is not None or self.queue_concurrency_limit is not None
        if self.is_schedulable and queued:
            raise WorkflowDefinitionError(
                f"Workflow {self.id!r}: Scheduled workflows cannot specify a queue or concurrency "
                "limit; each has its own queue and runs one at a time. Drop queue="
            )

    def __repr__(self) -> str:
        parts = [f"{self.id!r} = {self.__module__}.{self.__qualname__}"]
        if self.has_payload_param and self.signature.payload_is_resolved:
            parts.append(f"payload={hints.name_of(self.payload_hint)}")
        if self.state_schema:
            parts.append(f"state={self.state_schema.__name__}")
        return f"<{self.workflow_type} {', '.join(parts)}>"


def _checked_id(id: Any) -> str:
    if isinstance(id, str) and len(id.encode(errors="replace")) > ID_BYTES_MAX:
        raise WorkflowDefinitionError(
            f"workflow id {id[:40]!r}… has more than {ID_BYTES_MAX:,} bytes of UTF-8; shorten it"
        )
    if not isinstance(id, str) or not id or not id.isprintable():
        raise WorkflowDefinitionError(
            f"a workflow's id is a non-empty str without control characters, not {id!r}"
        )
    return id


def _checked_version(version: Any) -> str | None:
    if version is None or (isinstance(version, str) and version and version.isprintable()):
        return version
    raise WorkflowDefinitionError(
        f"version is a non-empty str without control characters, not {version!r}"
    )


def _at_least(name: str, value: Any, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise WorkflowDefinitionError(f"{name} is an int of at least {lowest}, not {value!r}")
    return value


def _positive(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise WorkflowDefinitionError(f"{name} is a number of seconds above 0, not {value!r}")
    return value


def _age(name: str, value: Any) -> float | None:
    try:
        return parse_optional(name, value)
    except UsageError as error:
        raise WorkflowDefinitionError(str(error)) from None


def time_limit(value: Any) -> float | None:
    """Return `run_timeout_seconds`, checked."""
    seconds = _positive("run_timeout_seconds", value)
    if seconds is not None and seconds > LONGEST_SECONDS:
        raise WorkflowDefinitionError(
            f"run_timeout_seconds is at most 100 years, not {value!r}; leave it out for no limit"
        )
    return seconds


def label(name: str, value: Any, most: int = LABEL_BYTES_MAX) -> str | None:
    """Return a text that is stored with an execution, checked."""
    if value is None or (isinstance(value, str) and ids.is_storable(value)):
        if value is not None and len(value.encode()) > most:
            raise UsageError(
                f"{name} {value[:40]!r}… has {len(value.encode()):,} bytes; at most {most:,} are "
                "allowed"
            )
        return value
    kind = f"of type {type(value).__name__}"
    if isinstance(value, str):
        kind = "with a NUL or a lone surrogate, which not every database takes"
    raise UsageError(f"{name} is a str (or None), not {value!r} {kind}")


def _hooks(given: Any) -> list[Function]:
    if given is None:
        return []
    is_list = isinstance(given, list | tuple)
    hooks = list(cast("list[Any]", given)) if is_list else [given]
    for hook in hooks:
        # A workflow can be called too, but with a client.
        if not callable(hook) or isinstance(hook, Workflow):
            kind = type(cast("Any", hook)).__name__
            raise WorkflowDefinitionError(
                f"Invalid {'hook' if is_list else 'hooks'} type: {kind}. Expected a function, or a "
                "list of functions"
            )
    return hooks


def _schema(state_schema: Any) -> StateSchema | None:
    if state_schema is None:
        return None
    if not hints.is_model(state_schema):
        raise StateSchemaError(
            f"state_schema is a class derived from WorkflowState (or another pydantic model), not "
            f"{state_schema!r}"
        )
    return StateSchema(state_schema)
