"""`ctx.step.suspend` and `ctx.step.resume`, as an author calls them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError

from polos.core import forms, ids
from polos.core.retry import LONGEST_SECONDS
from polos.errors import StepExecutionError, UsageError

if TYPE_CHECKING:
    from polos.workflow.port import AttemptPort


NO_DATA: dict[str, Any] = {}
"""An answer without data: what its reader looks for in it is not there."""


class Asking:
    """The operations of `Steps` that ask people and other workflows, and answer them."""

    @property
    def _attempt(self) -> AttemptPort:
        raise NotImplementedError

    async def suspend(
        self,
        step_key: str,
        data: Any = None,
        timeout: float | None = None,
        *,
        form: Mapping[str, Any] | type[BaseModel] | None = None,
    ) -> dict[str, Any]:
        """Wait until somebody answers: `client.resume`, `ctx.step.resume` or `polos resume`.

        `data` (a dict, a model, any JSON value) is what they are told. With a form, as
        `data["_form"]` or as `form`, only an answer that fits it is accepted, with its defaults
        filled in. A model class as the form asks for its fields, and the answer is a model then.

        Returns the event that resumed it: a dict with the answer under `data`, and `id`,
        `sequence_id`, `topic`, `event_type`, `created_at`. Raises `WaitTimeoutError` if no answer
        came within `timeout` seconds, `StepExecutionError` if the form is none.
        """
        if timeout is not None:
            check_timeout(step_key, timeout)
            timeout = min(timeout, LONGEST_SECONDS)
        model = form if isinstance(form, type) else None
        if form is not None:
            data = _with_form(step_key, data, form)
        answer: dict[str, Any] = await self._attempt.suspensions.suspend(step_key, data, timeout)
        if model is not None:
            answer["data"] = _as_model(step_key, model, answer["data"])
        return answer

    async def resume(
        self,
        step_key: str,
        suspend_step_key: str,
        suspend_execution_id: str,
        suspend_workflow_id: str | None = None,
        data: Any = NO_DATA,
    ) -> None:
        """Answer a suspension of another execution; done once, whatever happens meanwhile.

        The execution is the suspended one, or the root of its tree; the workflow, if given, is
        compared with that execution's. An answer that comes before the suspension is kept for it.
        Raises `StepExecutionError` if somebody answered before, if the answer does not fit the
        form, or if there is nothing to answer.
        """
        check_target(suspend_workflow_id, suspend_execution_id, suspend_step_key)
        answer = {
            "key": suspend_step_key,
            "execution_id": suspend_execution_id,
            "workflow_id": suspend_workflow_id,
            "data": data,
        }
        await self._attempt.suspensions.resume(step_key, answer)


def check_target(workflow_id: Any, execution_id: Any, step_key: Any) -> None:
    """Raise `UsageError` unless these name a suspension."""
    for name, value in (
        ("suspend_execution_id", execution_id),
        ("suspend_step_key", step_key),
        ("suspend_workflow_id", workflow_id),
    ):
        may_lack = name == "suspend_workflow_id" and value is None
        if not may_lack and not (isinstance(value, str) and value and ids.is_storable(value)):
            raise UsageError(f"{name}={value!r}: expected a non-empty text")


def _with_form(step_key: str, data: Any, form: Any) -> dict[str, Any]:
    if isinstance(data, BaseModel):
        data = data.model_dump(mode="json")
    if data is not None and not isinstance(data, Mapping):
        raise UsageError(
            f"step {step_key!r}: with form= the data is a dict or a model, not {data!r}"
        )
    if isinstance(form, type):
        if not issubclass(form, BaseModel):
            raise UsageError(
                f"step {step_key!r}: form= is a dict or a pydantic model, not {form!r}"
            )
        form = forms.of_schema(form.model_json_schema())
    return {**cast("Mapping[str, Any]", data or {}), forms.FORM: form}


def _as_model(step_key: str, model: type[BaseModel], data: Any) -> BaseModel:
    try:
        return model.model_validate(data)
    except ValidationError as error:  # what no form can say, such as a validator of the model
        raise StepExecutionError(
            f"Step {step_key!r} got an answer that is no {model.__name__}: {error}",
            step_key=step_key,
            error_type="ValidationError",
        ) from error


def check_timeout(step_key: str, timeout: Any) -> None:
    """Raise `UsageError` unless this is a time limit in seconds, or None."""
    if timeout is not None and not (is_number(timeout) and 0 < timeout < math.inf):
        raise UsageError(
            f"step {step_key!r}: timeout is a finite number of seconds above 0, not {timeout!r}"
        )


def is_number(value: Any) -> bool:
    """Say whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
