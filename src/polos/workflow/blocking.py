"""`ctx.step` for plain `def` workflows: the same operations, blocking the workflow's own thread."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar

from polos.workflow.steps import Steps

Result = TypeVar("Result")


def call_on_loop(
    loop: asyncio.AbstractEventLoop, context: Context, function: Callable[[Any], Result], value: Any
) -> Result:
    """Call a function of one argument on the event loop, and wait for what it returns."""

    async def call() -> Result:
        return function(value)

    submit = functools.partial(asyncio.run_coroutine_threadsafe, call(), loop)
    return context.copy().run(submit).result()


class BlockingSteps:
    """Calls the operations of `Steps` on the event loop, and waits for their answer.

    Made by the worker for the thread that runs a plain workflow function; `context` is the one
    that its operations run in, which is the same for all of them. A call from the event loop's own
    thread would wait for itself and is refused by `asyncio`.
    """

    def __init__(self, steps: Steps, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._steps = steps
        self._loop = loop
        self._context = context

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._steps, name)
        returns_coroutine = name == "run" or inspect.iscoroutinefunction(operation)
        return functools.partial(self._wait, operation) if returns_coroutine else operation

    def _wait(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        coroutine = operation(*args, **kwargs)
        submit = functools.partial(asyncio.run_coroutine_threadsafe, coroutine, self._loop)
        return self._context.copy().run(submit).result()
