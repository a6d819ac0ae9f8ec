"""Whose state a workflow reads with `ctx.step.get_state` and `ctx.children_state`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from polos.core import ids
from polos.errors import UsageError
from polos.workflow.keying import key_text


@dataclass(slots=True, frozen=True)
class StateOf:
    """Whose state is to be read: an execution's, a key's, or without either that of children."""

    execution_id: str | None = None
    workflow_id: str | None = None
    key: str = ""
    ended: bool = False
    """Whether children that have ended count as well."""


def state_of(step_key: str, target: object) -> StateOf:
    """Return whose state `ctx.step.get_state` is to read."""
    given = cast("Any", target)
    if isinstance(given, tuple) and len(cast("tuple[Any, ...]", given)) == 2:
        workflow, key = cast("tuple[Any, Any]", given)
        workflow_id = getattr(workflow, "id", workflow)
        if isinstance(workflow_id, str):
            return StateOf(workflow_id=workflow_id, key=key_text(key))
    execution_id: Any = getattr(target, "id", target)
    if isinstance(execution_id, str) and ids.is_storable(execution_id):
        return StateOf(execution_id=execution_id)
    raise UsageError(
        f"step {step_key!r}: expected an execution's id or handle, or (workflow, key), not "
        f"{target!r}"
    )
