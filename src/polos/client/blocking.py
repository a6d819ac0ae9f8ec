"""Runs from code without an event loop, also of several threads at once: they share one loop.

The thread that comes first runs the loop, and the others hand their work to it. It ends with the
last of them, and takes the client's node with it.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from polos.errors import UsageError

Main = Callable[[], Coroutine[Any, Any, Any]]
ItemT = TypeVar("ItemT")

AHEAD_MAX = 1000
"""Items that are read ahead of the code that takes them."""
LEAVE_SECONDS = 10.0
"""How long a process that ends waits for its readers to let go of the store."""


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


@dataclass(slots=True)
class _End:
    error: BaseException | None


class _Feed:
    """Reads an async iterator in a thread of its own, for code without an event loop."""

    def __init__(self, run: Callable[[Main], Any], source: AsyncIterator[Any]) -> None:
        self._run = run
        self._source = source
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room = asyncio.Semaphore(AHEAD_MAX)
        self._reading: asyncio.Task[None] | None = None
        # A daemon: an iterator that was left without a word must not keep the process.
        self._thread = threading.Thread(target=self._work, name="polos-reader", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        atexit.register(self._leave)
        self._thread.start()

    def _leave(self) -> None:
        self.stop()
        self._thread.join(LEAVE_SECONDS)

    def _work(self) -> None:
        """Read until the end, the first error or `stop`; the last item says so."""
        try:
            self._run(self._main)
        finally:
            self.items.put(_End(sys.exception()))  # unless the end is there already
            atexit.unregister(self._leave)

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._stopped:
                return
            self._loop, self._reading = loop, loop.create_task(self._read())
        # Whoever stops cancels the reading only: this may run for others, too.
        await asyncio.wait([self._reading])
        error = None if self._reading.cancelled() else self._reading.exception()
        self.items.put(_End(error))

    async def _read(self) -> None:
        try:
            async for item in self._source:
                await self._room.acquire()
                self.items.put(item)
        finally:
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()

    def taken(self) -> None:
        """There is room for one more."""
        self._call(self._room.release)

    def stop(self) -> None:
        """Read no more."""
        with self._lock:
            self._stopped = True
            reading = self._reading
        if reading is not None:
            self._call(reading.cancel)

    def _call(self, function: Callable[[], Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the reading with it
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)


def iterate(
    run: Callable[[Main], Any], source: Callable[[], AsyncIterator[ItemT]]
) -> Iterator[ItemT]:
    """Yield what an async iterator has, blocking; `run` is `run_blocking` of its client."""
    refuse_inside_a_loop("a `for` loop over it", "`async for`")
    return _taken(_Feed(run, source()))


def _taken(feed: _Feed) -> Iterator[Any]:
    feed.start()
    try:
        while not isinstance(item := feed.items.get(), _End):
            feed.taken()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        feed.stop()


def refuse_inside_a_loop(
    what: str = "run_sync", instead: str = "`await workflow(client, …)`"
) -> None:
    """Raise UsageError where blocking would stop the event loop of this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(f"{what} blocks; inside an event loop use {instead}")
