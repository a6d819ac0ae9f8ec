"""A coroutine that runs without a task: it begins at once, and needs fewer turns of the loop."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from contextvars import Context
from typing import Any


class Flight:
    """Runs a coroutine up to where it has to wait, and on from there when its future is done.

    What it raises goes to whoever runs it: the caller at first, later the event loop. It is in no
    task, so that it may await futures only: nothing that cancels or bounds the task it is in.

    `ready` is what the event loop runs next, if it can be seen. Where that was empty, and the end
    of the coroutine lets one thing go on, that goes on at once: the loop would first ask the
    system for news, and come to the same thing.
    """

    __slots__ = ("_context", "_coroutine", "_ready")

    def __init__(self, coroutine: Coroutine[Any, Any, None], ready: Sequence[Any]) -> None:
        self._coroutine = coroutine
        # Of its own: nothing that goes on at once can be in it already.
        self._context = Context()
        self._ready: Any = ready
        self._step()

    def _step(self) -> bool:
        """Go on as far as it goes; True at the end."""
        try:
            future = self._coroutine.send(None)
        except StopIteration:
            return True
        future._asyncio_future_blocking = False  # as a task says: it was awaited as it should be
        future.add_done_callback(self._go_on, context=self._context)
        return False

    def _go_on(self, _: object) -> None:
        idle = not self._ready
        if self._step() and idle and len(self._ready) == 1:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()
