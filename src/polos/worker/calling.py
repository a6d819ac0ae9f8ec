"""Calling an author's function: on the loop or in a thread, within a time limit."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from polos.core import failure
from polos.core.retry import RetryPolicy
from polos.errors import StepTimeoutError
from polos.worker.asks import Ask

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

_CO_COROUTINE = inspect.CO_COROUTINE


def is_async(function: Callable[..., Any]) -> bool:
    """Say whether calling `function` gives a coroutine."""
    code = getattr(function, "__code__", None)
    if code is not None:
        return bool(code.co_flags & _CO_COROUTINE)
    if isinstance(function, functools.partial):
        return is_async(function.func)
    if inspect.iscoroutinefunction(function):
        return True
    call = getattr(type(function), "__call__", None)  # noqa: B004 - an object with async __call__
    return not inspect.isclass(function) and inspect.iscoroutinefunction(call)


def allows(policy: RetryPolicy, error: BaseException, failures: int) -> tuple[bool, str]:
    """Say whether a step may run again; a predicate that fails says no, and why."""
    if not isinstance(error, Exception):
        return False, ""
    try:
        return policy.allows(error, failures), ""
    except Exception as fault:  # the user's predicate
        return False, f" (its retry_if raised {type(fault).__name__}: {failure.spelled(fault)})"


async def contained(run: Coroutine[Any, Any, Any]) -> tuple[Any, SystemExit | None]:
    """Return what an author's code returned, or the `sys.exit` that it was left with.

    A task would let that out into the event loop, which everything else in the process runs in.
    """
    try:
        return await run, None
    except SystemExit as error:
        return None, error


def released(outcome: tuple[Any, SystemExit | None]) -> Any:
    """Return what was returned, or raise what was contained, where that does no harm."""
    value, error = outcome
    if error is not None:
        raise error
    return value


async def bounded(
    attempt: Attempt, ask: Ask, function: Callable[[], Any], timeout: float | None
) -> Any:
    """Call a plain function in a thread, or anything within a time limit."""
    if timeout is None:
        return await call(attempt, ask, function)
    limit = asyncio.timeout(None)
    over = attempt.clock.call_later(timeout, lambda: limit.reschedule(attempt.loop.time()))
    try:
        async with limit:
            return await call(attempt, ask, function)
    except TimeoutError:
        if not limit.expired():
            raise  # the function's own
        raise StepTimeoutError(
            f"step {ask.key!r} did not end within {timeout:g} seconds", step_key=ask.key
        ) from None
    finally:
        over.cancel()


class _Late(BaseException):
    """A body got its thread when the worker may have been declared dead: it was not called."""


async def call(attempt: Attempt, ask: Ask, function: Callable[[], Any]) -> Any:
    """Call a function without arguments: an async one here, a plain one in a thread."""
    if is_async(function):
        return await function()

    def in_time() -> Any:
        # The process may have been frozen since it was asked, and the body run elsewhere.
        if attempt.clock.monotonic() > attempt.runner.stale_from:
            raise _Late
        return function()

    while True:
        try:
            value = await attempt.runner.threads.run(in_time)
            break
        except _Late:
            await attempt.go_live(ask)
    if inspect.isawaitable(value):  # a lambda around an async function
        return await value
    return value
