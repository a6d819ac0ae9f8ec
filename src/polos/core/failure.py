"""An exception as data, and back: the only converter between the two."""

from __future__ import annotations

import json
from typing import cast

from polos.core.model import Failure
from polos.errors import (
    StateTooLargeError,
    StepExecutionError,
    StepTimeoutError,
    WaitTimeoutError,
)

_RAISED: dict[str, type[StepExecutionError]] = {
    cls.__name__: cls
    for cls in (StepExecutionError, StepTimeoutError, WaitTimeoutError, StateTooLargeError)
}


def dump(failure: Failure) -> str:
    """Return the JSON text of a failure: its error as users read it, and what it raises."""
    body: dict[str, object] = {"type": failure.type, "message": failure.message}
    if failure.cause is not None:
        body["cause"] = failure.cause
    if failure.step_key is not None:
        body["step_key"] = failure.step_key
    if failure.details:
        body["details"] = failure.details
    return json.dumps(body, separators=(",", ":"))


def load(body: str) -> Failure:
    """Read what `dump` wrote."""
    data = json.loads(body)
    return Failure(
        data["type"],
        data["message"],
        data.get("cause"),
        data.get("step_key"),
        data.get("details", {}),
    )


def text(body: str | None) -> str | None:
    """Return the message of a stored failure, as `error` shows it."""
    return None if body is None else str(json.loads(body)["message"])


GROUP_SHOWN_MAX = 5


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [leaf for each in group.exceptions for leaf in _leaves(each)]


def blamed(error: BaseException) -> list[str]:
    """Return the keys of the failed steps behind an error that left the code.

    One that a task group raised may have several; one that was raised from, or in the handling of,
    a step's failure has that step's.
    """
    keys: list[str] = []
    for leaf in _leaves(error):
        cause: BaseException | None = leaf
        seen: set[int] = set()
        while cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            if isinstance(cause, StepExecutionError) and cause.step_key is not None:
                keys.append(cause.step_key)
                break
            if isinstance(cause, BaseExceptionGroup) and cause is not leaf:
                keys += blamed(cast("BaseExceptionGroup[BaseException]", cause))
                break
            hidden = cause.__suppress_context__
            cause = cause.__cause__ or (None if hidden else cause.__context__)
    return list(dict.fromkeys(keys))


def spelled(error: BaseException) -> str:
    """Return the message of an error; one that cannot tell it does not hide that there was one."""
    try:
        text = f"SystemExit: {error}" if type(error) is SystemExit else str(error)
    except Exception as fault:
        return f"{type(error).__name__} (its message cannot be read: {type(fault).__name__})"
    leaves = _leaves(error)
    if leaves != [error]:
        text = f"{text}: {'; '.join(spelled(each) for each in leaves[:GROUP_SHOWN_MAX])}"
    return text


def of_step(error: BaseException, step_key: str, message: str) -> Failure:
    """Return the failure that step `step_key` is recorded with after `error`."""
    raised = type(error).__name__ if type(error).__name__ in _RAISED else "StepExecutionError"
    details: dict[str, object] = {}
    if isinstance(error, StateTooLargeError):
        details = {"field": error.field, "size": error.size, "limit": error.limit}
    cause = type(error).__name__
    if isinstance(error, StepExecutionError) and error.error_type is not None:
        cause = error.error_type
    return Failure(raised, message, cause, step_key, details)


def of_execution(error: BaseException) -> Failure:
    """Return the failure that an execution ends with when `error` leaves its code.

    `step_key` names the failed step behind it, if any: `retry` goes on from there. If there are
    several, `details` has them all.
    """
    keys = blamed(error)
    details: dict[str, object] = {"step_keys": keys} if len(keys) > 1 else {}
    text = spelled(error) or type(error).__name__
    return Failure(type(error).__name__, text, None, keys[0] if keys else None, details)


def to_blame(failure: Failure) -> list[str]:
    """Return the keys of the failed steps behind the failure of an execution."""
    several = failure.details.get("step_keys")
    if isinstance(several, list):
        return [str(each) for each in cast("list[object]", several)]
    return [] if failure.step_key is None else [failure.step_key]


def not_compensated(body: str | None) -> list[str]:
    """Return the keys of the steps that were to be undone and are not, of a stored failure."""
    left = None if body is None else load(body).details.get("not_compensated")
    return [str(each) for each in cast("list[object]", left)] if isinstance(left, list) else []


def to_exception(failure: Failure) -> StepExecutionError:
    """Return the error that a failed step raises in workflow code, live and on every replay."""
    cls = _RAISED.get(failure.type, StepExecutionError)
    if cls is StateTooLargeError:
        details = failure.details
        return StateTooLargeError(
            failure.message,
            step_key=failure.step_key,
            error_type=failure.cause,
            field=str(details.get("field")),
            size=int(str(details.get("size", 0))),
            limit=int(str(details.get("limit", 0))),
        )
    return cls(failure.message, step_key=failure.step_key, error_type=failure.cause)
