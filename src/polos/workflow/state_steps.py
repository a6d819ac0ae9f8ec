"""The part of `ctx.step` that reads the state of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polos.core.model import Kind
from polos.workflow.reading import StateOf, state_of

if TYPE_CHECKING:
    from polos.workflow.port import AttemptPort


class StateSteps:
    """Reads states of executions, keys and children; see `polos.workflow.steps.Steps`."""

    @property
    def _attempt(self) -> AttemptPort:
        raise NotImplementedError

    async def get_state(self, step_key: str, target: Any) -> Any:
        """Return the state of another execution, or of a key, as it is recorded now; then always.

        `target` is an execution's id or handle, or `(workflow, key)` for the state that the last
        execution with the key left (see `state_key`); the workflow may be an id. The state is a
        dict, None if there is none; of an execution that runs it is as of its last step.

        Raises `StepExecutionError` if there is no such execution.
        """
        return await self._attempt.read_state(Kind.GET_STATE, step_key, state_of(step_key, target))

    async def children_state(
        self, step_key: str = "children_state", *, ended: bool = False
    ) -> dict[str, dict[str, Any]]:
        """See `WorkflowContext.children_state`."""
        target = StateOf(ended=ended)
        return await self._attempt.read_state(Kind.CHILDREN_STATE, step_key, target)
