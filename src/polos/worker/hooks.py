"""`on_start` and `on_end`: plain functions around a workflow, each run as a recorded step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polos.core import retry
from polos.workflow.context import WorkflowContext
from polos.workflow.hook import HookContext

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt


async def run_hooks(
    attempt: Attempt, context: WorkflowContext, name: str, payload: Any, output: Any
) -> None:
    """Run the hooks `on_start` or `on_end` in order, as steps `on_start.{function}.{n}`.

    A hook is called as `hook(ctx, hook_context)`, or with fewer arguments if it takes fewer. If it
    raises, it is retried as any step, and fails the execution in the end.
    """
    hooks: list[Callable[..., Any]] = getattr(attempt.workflow, name)
    for number, hook in enumerate(hooks):
        label = getattr(hook, "__name__", "hook")
        given = (
            context,
            HookContext(
                workflow_id=context.workflow_id,
                session_id=context.session_id,
                user_id=context.user_id,
                current_payload=payload,
                current_output=output,
            ),
        )
        call = functools.partial(hook, *given[: _takes(hook)])
        key = f"{name}.{label}.{number}"
        await attempt.run(key, call, (), {}, retry.DEFAULT, None)


def _takes(hook: Callable[..., Any]) -> int:
    parameters = inspect.signature(hook).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return min(2, sum(1 for p in parameters if p.kind in positional))
