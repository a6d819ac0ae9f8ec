"""`on_start` and `on_end`: functions around a workflow, each run once as a recorded step."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import BaseModel, ValidationError

from polos.core import retry
from polos.errors import StepExecutionError
from polos.worker import bodies, calling
from polos.worker.arity import takes
from polos.workflow import hints
from polos.workflow.adapter import Adapter
from polos.workflow.context import WorkflowContext
from polos.workflow.hook import HookAction, HookContext, HookResult

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

When = Literal["on_start", "on_end"]


async def on_start(attempt: Attempt, context: WorkflowContext, payload: Any) -> Any:
    """Run the hooks `on_start` in order; returns the payload that they leave."""
    workflow = attempt.workflow
    for number, hook in enumerate(workflow.on_start):
        result = await _run(attempt, context, ("on_start", number, hook), payload, None)
        if result.modified_payload is not None:
            payload = workflow.load(
                _modified(f"on_start.{_name(hook)}", payload, result.modified_payload)
            )
    return payload


async def on_end(attempt: Attempt, context: WorkflowContext, payload: Any, output: Any) -> Any:
    """Run the hooks `on_end` in order; returns the output that they leave."""
    for number, hook in enumerate(attempt.workflow.on_end):
        result = await _run(attempt, context, ("on_end", number, hook), payload, output)
        if result.modified_output is not None:
            output = _modified(f"on_end.{_name(hook)}", output, result.modified_output)
    return output


async def _run(
    attempt: Attempt,
    context: WorkflowContext,
    place: tuple[When, int, Callable[..., Any]],
    payload: Any,
    output: Any,
) -> HookResult:
    """Run a hook as step `{when}.{function}.{n}`.

    It is called as `hook(ctx, hook_context)`, or with fewer arguments if it takes fewer. If it
    raises, it is retried as any step; if it says so, or fails in the end, the execution fails.
    """
    when, number, hook = place
    given = (
        context,
        HookContext(
            workflow_id=context.workflow_id,
            session_id=context.session_id,
            user_id=context.user_id,
            current_payload=_copied(payload),
            current_output=_copied(output),
        ),
    )
    call = functools.partial(hook, *given[: takes(hook, 2)])
    answering = _answering_async if calling.is_async(hook) else _answering
    body = functools.partial(answering, call, f"{when} hook {_name(hook)!r}")
    record = await attempt.run(f"{when}.{_name(hook)}.{number}", body, (), {}, retry.DEFAULT, None)
    # What a hook returned meant nothing before there were results.
    known = isinstance(record, dict) and "action" in record
    return HookResult.from_dict(cast("Any", record)) if known else HookResult()


def _answering(call: Callable[[], Any], name: str) -> Any:
    answer = call()
    if inspect.isawaitable(answer):  # a lambda around an async function
        return _answering_async(lambda: answer, name)
    return _record(answer, name)


async def _answering_async(call: Callable[[], Any], name: str) -> Any:
    return _record(await call(), name)


def _record(answer: Any, name: str) -> dict[str, Any] | None:
    """Return what is recorded of a hook's answer; one that fails the execution is raised."""
    if answer is None:
        return None
    if not isinstance(answer, HookResult):
        raise bodies.Refusal(
            f"{name} returned {type(answer).__name__}; return HookResult.continue_with(...), "
            "HookResult.fail(message) or nothing"
        )
    if answer.action is HookAction.FAIL:
        raise bodies.Refusal(answer.error_message or f"{name} failed the execution")
    record: dict[str, Any] = {"action": str(answer.action)}
    for field in ("modified_payload", "modified_output"):
        value = getattr(answer, field)
        if value is not None:
            record[field] = value
    return record


def _copied(value: Any) -> Any:
    # What a hook changes in place would be missing on replay, when it does not run.
    try:
        return copy.deepcopy(value)
    except (TypeError, RecursionError, copy.Error):
        return value


def _modified(step_key: str, current: Any, modification: Any) -> Any:
    """Return `current` with the fields that a hook gave, or what it gave instead."""
    fields = _fields(current)
    if fields is None or not isinstance(modification, Mapping):
        return modification
    merged = {**fields, **cast("Mapping[str, Any]", modification)}
    if isinstance(current, Mapping):
        return merged
    try:
        return Adapter(type(current)).validate(merged)
    except ValidationError as error:
        raise StepExecutionError(
            f"{step_key}: the modification does not fit {type(current).__name__}: {error}"
        ) from error


def _fields(value: Any) -> dict[str, Any] | None:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    if isinstance(value, BaseModel):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return _struct_fields(value) if hints.is_struct(type(value)) else None


def _struct_fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _name(hook: Callable[..., Any]) -> str:
    return getattr(hook, "__name__", "hook")
