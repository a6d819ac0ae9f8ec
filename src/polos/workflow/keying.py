"""Which key the state of an execution belongs to, and what a failure leaves of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, cast
from uuid import UUID

from polos.core import ids
from polos.errors import InvalidPayloadError, UsageError, WorkflowDefinitionError

KEY_BYTES_MAX = 256
ON_FAILURE = ("keep", "rollback")


class Keying:
    """`state_key=` and `state_on_failure=` of a workflow."""

    def __init__(self, workflow_id: str, function: Callable[[Any], Any], on_failure: str) -> None:
        self._workflow_id = workflow_id
        self._function = function
        self.rollback = on_failure == "rollback"

    def key_of(self, payload: Any) -> str:
        """Return the key for a payload; `InvalidPayloadError` if the function gives none."""
        try:
            value = self._function(payload)
        except Exception as error:
            raise InvalidPayloadError(
                f"workflow {self._workflow_id!r}: state_key raised {type(error).__name__}: {error} "
                f"for the payload {_shown(payload)}"
            ) from error
        try:
            return key_text(value)
        except UsageError as error:
            raise InvalidPayloadError(
                f"workflow {self._workflow_id!r}: state_key of the payload {_shown(payload)}: "
                f"{error}"
            ) from error


def keying(workflow_id: str, function: Any, on_failure: Any, *, has_state: bool) -> Keying | None:
    """Return how a workflow finds its keys, checked; None if it has none."""
    if on_failure not in ON_FAILURE:
        raise WorkflowDefinitionError(
            f"Workflow {workflow_id!r}: state_on_failure is 'keep' or 'rollback', not "
            f"{on_failure!r}"
        )
    if function is None:
        if on_failure != "keep":
            raise WorkflowDefinitionError(
                f"Workflow {workflow_id!r}: state_on_failure is about keyed state; give state_key "
                "as well"
            )
        return None
    if not callable(function):
        raise WorkflowDefinitionError(
            f"Workflow {workflow_id!r}: state_key is a function of the payload, not {function!r}"
        )
    if not has_state:
        raise WorkflowDefinitionError(
            f"Workflow {workflow_id!r}: state_key needs a state_schema: the state that is kept by "
            "key"
        )
    return Keying(workflow_id, cast("Callable[[Any], Any]", function), on_failure)


def key_text(value: Any) -> str:
    """Return a key, a str, int or UUID, as text of 1 to 256 bytes; else `UsageError`."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise UsageError(f"a state key is a str, an int or a UUID, not {value!r}")
    text = str(value)
    if not text or not ids.is_storable(text) or len(text.encode()) > KEY_BYTES_MAX:
        raise UsageError(
            f"a state key has 1 to {KEY_BYTES_MAX} bytes of UTF-8 without NUL, not {_shown(text)}"
        )
    return text


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
