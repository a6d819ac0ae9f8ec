"""`ctx.step.stream`: a step whose body is a generator, each of its chunks streamed out."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from polos.core.model import Kind
from polos.core.retry import RetryPolicy
from polos.errors import UsageError
from polos.worker import bodies, calling
from polos.workflow.scope import current_scope

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt


async def run(  # noqa: PLR0917 - what `ctx.step.stream` takes
    attempt: Attempt,
    key: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    collect: Callable[[list[Any]], Any] | None,
    policy: RetryPolicy,
    timeout: float | None,
) -> Any:
    """Run a generator once over all attempts; returns the list of its chunks, or what was made."""

    async def body(*args: Any, **kwargs: Any) -> Any:
        chunks = await _drain(attempt, key, functools.partial(function, *args, **kwargs))
        if collect is None:
            return chunks
        made = collect(chunks)
        return await made if inspect.isawaitable(made) else made

    body.__name__ = getattr(function, "__name__", None) or type(function).__name__
    fatal = (*policy.non_retryable, UsageError)
    policy = dataclasses.replace(policy, non_retryable=fatal)
    return await bodies.run(attempt, key, body, args, kwargs, policy, timeout, kind=Kind.STREAM)


async def _drain(attempt: Attempt, key: str, call: Callable[[], Any]) -> list[Any]:
    """Stream out what a generator yields, and return it."""
    scope = current_scope.get()
    assert scope is not None
    attempt.streams.begin(scope)
    chunks: list[Any] = []
    ask = next(each for each in attempt.bodies if each.key == scope.key)
    if inspect.isasyncgenfunction(call):
        source = call()
    elif calling.is_async(call):
        source = await call()
    else:
        in_thread = functools.partial(_iterate, attempt, key, call, chunks)
        source = await calling.call(attempt, ask, in_thread)
    if isinstance(source, Iterator):
        in_thread = functools.partial(_take_all, attempt, cast("Iterator[Any]", source), chunks)
        await calling.call(attempt, ask, in_thread)
    elif hasattr(source, "__aiter__"):
        await _follow(attempt, source, chunks)
    elif source is not chunks:
        raise _no_generator(key, source)
    return chunks


async def _follow(attempt: Attempt, source: Any, chunks: list[Any]) -> None:
    iterator: AsyncIterator[Any] = aiter(source)
    try:
        async for chunk in iterator:
            chunks.append(chunk)
            await attempt.streams.emit(chunk)
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


def _iterate(attempt: Attempt, key: str, call: Callable[[], Any], chunks: list[Any]) -> Any:
    """Call a plain function; what it returns is taken here, unless that is for the event loop."""
    source = call()
    if isinstance(source, Iterator):
        _take_all(attempt, cast("Iterator[Any]", source), chunks)
        return chunks
    if inspect.isawaitable(source) or hasattr(source, "__aiter__"):
        return source
    raise _no_generator(key, source)


def _take_all(attempt: Attempt, source: Iterator[Any], chunks: list[Any]) -> None:
    try:
        for chunk in source:
            chunks.append(chunk)
            attempt.streams.emit(chunk)
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


def _no_generator(key: str, source: Any) -> UsageError:
    return UsageError(
        f"step {key!r}: expected a generator function, whose chunks are streamed; it returned "
        f"{type(source).__name__}"
    )
