"""A coroutine that runs without a task: it begins at once, and needs fewer turns of the loop."""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context
from typing import Any


class Flight:
    """Runs a coroutine up to where it has to wait, and on from there when its future is done.

    What it raises goes to whoever runs it: the caller at first, later the event loop. It is in no
    task, so that it may await futures only: nothing that cancels or bounds the task it is in.
    """

    __slots__ = ("_context", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, None], context: Context) -> None:
        self._coroutine = coroutine
        self._context = context
        self._go()

    def _go(self, _: object = None) -> None:
        try:
            future = self._coroutine.send(None)
        except StopIteration:
            return
        future._asyncio_future_blocking = False  # as a task says: it was awaited as it should be
        future.add_done_callback(self._go, context=self._context)
