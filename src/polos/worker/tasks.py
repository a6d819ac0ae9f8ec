"""Which asyncio tasks belong to which attempt: a task factory around the loop's own.

Only so can be told whether the root task of an execution is alone, on which pinning (JOURNAL 15)
and the immediate replay of sequential code (JOURNAL 6) rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from polos.workflow.scope import current_scope


class Owner(Protocol):
    """An attempt, as far as it counts its tasks."""

    def adopt(self, task: asyncio.Future[Any]) -> None:
        """Count a task that workflow code created."""
        ...


current_owner: ContextVar[Owner | None] = ContextVar("polos_current_owner", default=None)

Factory = Callable[..., asyncio.Future[Any]]


class TaskFactory:
    """Creates tasks as the loop did before, and tells the attempt whose code asked for them."""

    def __init__(self, before: Factory | None) -> None:
        self.before = before
        self.users = 0
        """Workers on this loop that need it."""

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Future[Any]:
        """Create a task (see `loop.set_task_factory`)."""
        if self.before is None:
            task: asyncio.Future[Any] = asyncio.Task(coro, loop=loop, **options)
        else:
            task = self.before(loop, coro, **options)
        owner = current_owner.get()
        # A task that a step's body starts for itself is part of that step.
        if owner is not None and current_scope.get() is None:
            owner.adopt(task)
        return task


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Wrap the loop's task factory, once for all workers on the loop."""
    present: Any = loop.get_task_factory()
    if not isinstance(present, TaskFactory):
        present = TaskFactory(present)
        loop.set_task_factory(present)
    present.users += 1


def uninstall(loop: asyncio.AbstractEventLoop) -> None:
    """Put the loop's own task factory back when the last worker leaves."""
    present: Any = loop.get_task_factory()
    if isinstance(present, TaskFactory):
        present.users -= 1
        if present.users == 0:
            loop.set_task_factory(present.before)


def counts(loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether tasks are counted: somebody may have set another factory since."""
    return isinstance(loop.get_task_factory(), TaskFactory)
