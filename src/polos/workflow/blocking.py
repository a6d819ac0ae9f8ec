"""`ctx.step` for plain `def` workflows: the same operations, blocking the workflow's own thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from polos.errors import AttemptSealed
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
        self._running: set[asyncio.Task[Any]] = set()
        self._interrupted = False

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._steps, name)
        returns_coroutine = name == "run" or inspect.iscoroutinefunction(operation)
        return functools.partial(self._wait, operation) if returns_coroutine else operation

    def interrupt(self) -> None:
        """Raise `CancelledError` where the thread waits, or at its next operation; on the loop."""
        self._interrupted = not self._running
        for task in self._running:
            task.cancel()

    def release(self) -> None:
        """The function is over, or nobody waits for it: end what its threads still wait for."""
        for task in self._running:
            task.cancel()

    def _wait(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        coroutine = operation(*args, **kwargs)
        bridge = self._cross(coroutine)
        submit = functools.partial(asyncio.run_coroutine_threadsafe, bridge, self._loop)
        try:
            return self._context.copy().run(submit).result()
        except concurrent.futures.CancelledError:
            # Not the `Exception` of threads: what `except Exception` lets pass in async code too.
            raise asyncio.CancelledError("the execution is being cancelled") from None
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            bridge.close()
            coroutine.close()
            raise AttemptSealed("the client was closed; the execution goes on elsewhere") from None

    async def _cross(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._interrupted:
            self._interrupted = False
            coroutine.close()
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await coroutine
        finally:
            self._running.discard(task)
