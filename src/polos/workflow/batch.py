"""Several workflows started together."""

from collections.abc import Iterable
from typing import Any, Protocol, cast

from pydantic import BaseModel, ConfigDict, InstanceOf
from typing_extensions import TypeVar

from polos.errors import OutsideWorkflowError, UsageError
from polos.workflow.ambient import current_context
from polos.workflow.runnable import ExecutionHandleLike

HandleT = TypeVar("HandleT", bound=ExecutionHandleLike)


class BatchWorkflowInput(BaseModel):
    """One workflow of a batch, by id, and what to start it with."""

    id: str
    payload: Any = None
    # An instance: pydantic would make an empty model of any dict.
    initial_state: InstanceOf[BaseModel] | dict[str, Any] | None = None
    run_timeout_seconds: int | None = None
    tags: dict[str, str] | None = None


class BatchStepResult(BaseModel):
    """How one workflow of a batch ended: `result` if `success`, else `error`."""

    model_config = ConfigDict(extra="ignore")

    workflow_id: str
    success: bool
    result: Any = None
    error: str | None = None


def checked(workflows: Any) -> list[BatchWorkflowInput]:
    """Return the members of a batch; `UsageError` if they are anything else."""
    if isinstance(workflows, Iterable) and not isinstance(workflows, str):
        members: list[Any] = list(cast("Iterable[Any]", workflows))
        for number, each in enumerate(members):
            if not isinstance(each, BatchWorkflowInput):
                raise UsageError(
                    f"workflows[{number}] of a batch is {each!r}: expected a BatchWorkflowInput, "
                    "as in BatchWorkflowInput(id='…', payload=…)"
                )
        return members
    raise UsageError(f"workflows={workflows!r}: expected a list of BatchWorkflowInput")


class BatchStarter(Protocol[HandleT]):
    async def batch_invoke(
        self,
        workflows: list[BatchWorkflowInput],
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> list[HandleT]: ...


async def batch_invoke(
    client: BatchStarter[HandleT],
    workflows: list[BatchWorkflowInput],
    session_id: str | None = None,
    user_id: str | None = None,
) -> list[HandleT]:
    """Start all `workflows` and return their handles in the same order."""
    if current_context.get() is not None:
        raise OutsideWorkflowError(
            "batch_invoke() cannot be called from within a workflow or agent; use "
            "ctx.step.batch_invoke(step_key, workflows)"
        )
    return await client.batch_invoke(workflows, session_id, user_id)
