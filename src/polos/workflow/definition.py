"""`@workflow`: makes a function a registered `Workflow`."""

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import FrameType
from typing import Any, Literal, Protocol, TypeVar, cast, overload

from pydantic import BaseModel

from polos.core.ages import Age
from polos.errors import WorkflowDefinitionError
from polos.workflow import registry
from polos.workflow.queue import Queue, parse_queue
from polos.workflow.runnable import (
    ExecutionHandleLike,
    Function,
    Starter,
    StartOptions,
    Workflow,
)

__all__ = ["ExecutionHandleLike", "StartOptions", "Starter", "Workflow", "workflow"]

ResultT = TypeVar("ResultT")


class Decorator(Protocol):
    """`@workflow(...)`, still without its function."""

    @overload
    def __call__(self, func: Callable[..., Coroutine[Any, Any, ResultT]]) -> Workflow[ResultT]: ...
    @overload
    def __call__(self, func: Callable[..., ResultT]) -> Workflow[ResultT]: ...


@overload
def workflow(id: Callable[..., Coroutine[Any, Any, ResultT]]) -> Workflow[ResultT]: ...
@overload
def workflow(id: Callable[..., ResultT]) -> Workflow[ResultT]: ...
@overload
def workflow(
    id: str | None = None,
    description: str | None = None,
    queue: str | Queue | Mapping[str, Any] | None = None,
    trigger_on_event: str | None = None,
    batch_size: int = 1,
    batch_timeout_seconds: float | None = None,
    schedule: bool | str | Mapping[str, Any] | None = None,
    on_start: Function | list[Function] | None = None,
    on_end: Function | list[Function] | None = None,
    state_schema: type[BaseModel] | None = None,
    *,
    max_retries: int = 0,
    max_history: int | None = None,
    run_timeout_seconds: float | None = None,
    retention: Age | None = None,
    version: str | None = None,
    index_state: Sequence[str] | None = None,
    state_key: Callable[[Any], Any] | None = None,
    state_on_failure: Literal["keep", "rollback"] = "keep",
) -> Decorator: ...
def workflow(  # noqa: PLR0917
    id: Any = None,
    description: str | None = None,
    queue: str | Queue | Mapping[str, Any] | None = None,
    trigger_on_event: str | None = None,
    batch_size: int = 1,
    batch_timeout_seconds: float | None = None,
    schedule: bool | str | Mapping[str, Any] | None = None,
    on_start: Function | list[Function] | None = None,
    on_end: Function | list[Function] | None = None,
    state_schema: type[BaseModel] | None = None,
    *,
    max_retries: int = 0,
    max_history: int | None = None,
    run_timeout_seconds: float | None = None,
    retention: Age | None = None,
    version: str | None = None,
    index_state: Sequence[str] | None = None,
    state_key: Callable[[Any], Any] | None = None,
    state_on_failure: Literal["keep", "rollback"] = "keep",
) -> Any:
    """Make a function `(ctx)` or `(ctx, payload)` a workflow and register it under its id.

    ```python
    @workflow(state_schema=Progress)
    async def import_files(ctx: WorkflowContext, input: Files) -> Report: ...
    ```

    The payload's annotation is its schema: a model, a dataclass, a TypedDict, a msgspec struct,
    `dict`, a plain type, or a union of them. Usable bare, with and without arguments:

    * `id` defaults to the function's name; the last definition of an id wins. `queue`: a name, a
      `Queue` or `{"name": ..., "concurrency_limit": ...}`; else its own.
    * `trigger_on_event`: the topic whose events start it, one by one; or up to `batch_size` of
      them together, `batch_timeout_seconds` after the first at the latest.
    * `schedule`: a cron expression in UTC, `{"cron", "timezone", "key"}`, or True: created later.
    * `on_start`, `on_end`: functions that are called before and after, in this order (`hook`).
    * `state_schema`: a `WorkflowState` class; `ctx.state` is recorded with every step.
    * `max_retries`: how often a failed execution starts again; `max_history` (rows of journal),
      `run_timeout_seconds`: after which it is ended.
    * `retention`: how long a finished execution is kept (`"30d"`); else as its worker says.
    * `index_state`: fields of the state by which `list_executions(where=…)` finds executions.
    * `state_key`: a function of the payload. Executions with one key run one by one, each on the
      state that the last one left: a failed one its last ("keep"), or none ("rollback").
    * `version`: what its executions remember as `code_version`; else a fingerprint of the function.
    """

    options = dict(locals())  # all of them, by name

    def decorate(func: Function) -> Workflow[Any]:
        return _defined(func, inspect.currentframe(), options)

    if callable(id):
        return _defined(cast("Function", id), inspect.currentframe(), options | {"id": None})
    return decorate


def _defined(func: Function, frame: FrameType | None, options: Mapping[str, Any]) -> Workflow[Any]:
    given = dict(options)
    workflow_id = _id_for(func, given.pop("id"))
    queued = _queue_options(parse_queue(given.pop("queue"), workflow_id))
    return _registered(workflow_id, func, **queued, **given, scope=_locals_around(frame))


def _id_for(func: Any, given: str | None) -> str:
    if isinstance(func, Workflow):
        raise WorkflowDefinitionError(f"{func!r} is a workflow already; remove one @workflow")
    if not callable(func) or isinstance(func, type):
        raise WorkflowDefinitionError(
            f"@workflow makes a function a workflow, not {func!r}; an id is given as "
            '@workflow(id="...")'
        )
    return given if given is not None else _name_of(cast("Function", func))


def _queue_options(chosen: Queue | None) -> dict[str, Any]:
    if chosen is None:
        return {}
    return {"queue_name": chosen.name, "queue_concurrency_limit": chosen.concurrency_limit}


def _registered(*arguments: Any, **options: Any) -> Workflow[Any]:
    defined = Workflow[Any](*arguments, **options)
    defined.signature.check()
    registry.default.register(defined, stacklevel=4)
    return defined


def _name_of(func: Function) -> str:
    name = getattr(func, "__name__", None)
    if name is None:
        raise WorkflowDefinitionError(f"{func!r} has no name; use @workflow(id=...)")
    return name


def _locals_around(frame: FrameType | None) -> dict[str, Any]:
    """Return the local names of the function that defines the workflow, if it is one.

    Annotations may be strings that name classes which only live there.
    """
    around = frame.f_back if frame else None
    if around is None or around.f_locals is around.f_globals:
        return {}
    return dict(around.f_locals)
