"""What a hook is told, and what it may answer: go on, go on with something else, or fail."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Self, TypeVar, cast, overload

from pydantic import BaseModel, ConfigDict, ValidationError

HookFunction = TypeVar("HookFunction", bound=Callable[..., Any])


class HookAction(StrEnum):
    """What the execution does after a hook."""

    CONTINUE = "continue"
    FAIL = "fail"


class HookContext(BaseModel):
    """The second argument of a hook: whose it is, and what is there at its point.

    Payload and output are copies: a hook that wants another one returns it.
    """

    workflow_id: str
    session_id: str | None = None
    user_id: str | None = None
    agent_config: Any = None
    steps: list[Any] = []
    current_tool: str | None = None
    current_payload: Any = None
    """The payload as the workflow function gets it."""
    current_output: Any = None
    """The result, for `on_end`; None before."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Return the context that `data` (a dict, or one already) describes."""
        if isinstance(data, cls):
            return data
        return _from_dict(cls, data)


class HookResult(BaseModel):
    """What a hook may return; None stands for `HookResult.continue_with()`.

    With `modified_payload` (or `modified_output`, for `on_end`) the execution goes on with another
    one: a dict replaces fields of a model, a dict or a dataclass, anything else the whole. It is
    validated like the first one. None leaves it as it is.
    """

    model_config = ConfigDict(extra="forbid")

    action: HookAction = HookAction.CONTINUE
    modified_payload: Any = None
    modified_output: Any = None
    error_message: str | None = None
    """Of a failure: what the execution fails with."""

    @classmethod
    def continue_with(cls, **modifications: Any) -> Self:
        """Return a result that lets the execution go on, with what is given replaced."""
        return cls(**modifications)

    @classmethod
    def fail(cls, message: str) -> Self:
        """Return a result that fails the execution with `message`."""
        return cls(action=HookAction.FAIL, error_message=message)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Return the result that `data` (a dict, or one already) describes."""
        if isinstance(data, cls):
            return data
        return _from_dict(cls, data)


ModelT = TypeVar("ModelT", bound=BaseModel)


def _from_dict(cls: type[ModelT], data: Any) -> ModelT:
    if not isinstance(data, Mapping):
        raise TypeError(f"Cannot create {cls.__name__} from {type(data).__name__}; pass a dict")
    try:
        return cls.model_validate(dict(cast("Mapping[str, Any]", data)))
    except ValidationError as error:
        raise TypeError(f"Cannot create {cls.__name__} from this dict: {error}") from error


@overload
def hook(function: HookFunction) -> HookFunction: ...


@overload
def hook(function: None = None) -> Callable[[HookFunction], HookFunction]: ...


def hook(function: Any = None) -> Any:
    """Mark a function `(ctx, hook_context)`, async or plain, as a hook; returns it as it is.

    ```python
    @hook
    def only_adults(ctx: WorkflowContext, hook_context: HookContext) -> HookResult:
        if hook_context.current_payload.age < 18:
            return HookResult.fail("too young")
        return HookResult.continue_with()
    ```
    Raises TypeError unless it takes exactly two parameters. Without the decorator a hook may also
    take fewer.
    """
    return _checked if function is None else _checked(function)


def _checked(function: HookFunction) -> HookFunction:
    if not callable(cast("Any", function)):
        raise TypeError(f"@hook marks a function, not {function!r}")
    count = len(inspect.signature(function).parameters)
    if count != 2:
        name = getattr(function, "__name__", repr(function))
        raise TypeError(
            f"Hook {name!r} must have exactly 2 parameters: the workflow context and the hook "
            f"context; it has {count}"
        )
    return function
