"""Runs from code without an event loop, also of several threads at once: they share one loop.

The thread that comes first runs the loop, and the others hand their work to it. It ends with the
last of them, and takes the client's node with it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from polos.errors import UsageError

Main = Callable[[], Coroutine[Any, Any, Any]]


class _Session:
    """One loop, from the first thread that needs it to the last."""

    def __init__(self) -> None:
        self.loop: concurrent.futures.Future[asyncio.AbstractEventLoop] = (
            concurrent.futures.Future()
        )
        self.idle: asyncio.Future[None] | None = None
        self.users = 0


class BlockingRuns:
    """The blocking runs of one client; `close_node` is called on the loop at its end."""

    def __init__(self, close_node: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._close_node = close_node
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        """Held while a session runs: the next one waits until the node is closed."""
        self._session: _Session | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None

    def run(self, main: Main, open_on: asyncio.AbstractEventLoop | None) -> Any:
        """Run a coroutine function to its end; `open_on` is the loop that the client is open on."""
        foreign = open_on is not None and open_on is not self._own_loop
        if open_on is not None and foreign and open_on.is_running():
            return asyncio.run_coroutine_threadsafe(main(), open_on).result()
        with self._lock:
            session = self._session
            leads = session is None
            if session is None:
                session = self._session = _Session()
            session.users += 1
        try:
            if not leads:
                loop = session.loop.result()
                return asyncio.run_coroutine_threadsafe(main(), loop).result()
            with self._turn:
                return asyncio.run(self._lead(session, main))
        finally:
            if not leads:
                self._leave(session)

    async def _lead(self, session: _Session, main: Main) -> Any:
        self._own_loop = loop = asyncio.get_running_loop()
        session.idle = idle = loop.create_future()
        session.loop.set_result(loop)
        ends = False
        try:
            return await main()
        except asyncio.CancelledError:  # Ctrl-C: nobody is waited for
            ends = True
            raise
        finally:
            self._leave(session, ends=ends)
            if not ends:
                await idle
            await self._close_node()

    def _leave(self, session: _Session, *, ends: bool = False) -> None:
        with self._lock:
            session.users -= 1
            if session.users and not ends:
                return
            if self._session is session:
                self._session = None
            idle, session.idle = session.idle, None
        if idle is not None and not ends:
            idle.get_loop().call_soon_threadsafe(_settle, idle)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def refuse_inside_a_loop() -> None:
    """Raise UsageError where blocking would stop the event loop of this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError("run_sync blocks; inside an event loop use `await workflow(client, …)`")
