"""The composition root: joins store, engine and worker behind a client; sees every part."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

from polos.client import settings
from polos.client.client import Client
from polos.client.handle import ExecutionHandle
from polos.client.retention import Pruning
from polos.client.serving import Serving
from polos.client.serving import Worker as PlainWorker
from polos.core import delta
from polos.core.clock import Clock, SystemClock
from polos.core.codec import Codec
from polos.engine.engine import Engine
from polos.errors import StoreError, UsageError
from polos.store.lined import LinedStore
from polos.store.lining import Lining
from polos.store.protocol import Store
from polos.store.sqlite.connection import Location
from polos.store.sqlite.store import SqliteStore
from polos.worker.runner import Runner
from polos.workflow import registry as registries
from polos.workflow.registry import Registry

EMBEDDED_CONCURRENCY = 1000


class LiveNode:
    """An opened store with its engine and worker."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        client: Client,
        *,
        guard: bool = True,
        retention: float | None = None,
        event_retention: float = settings.EVENT_SECONDS,
        **options: Any,
    ) -> None:
        self.store = store
        self.codec = Codec(keeps_secrets=client.codec is not None)
        self.registry = registry
        self.read_only = store.read_only
        lining = Lining(client.codec, settings.spill_bytes())
        self.engine = Engine(cast("Store", LinedStore(store, lining)), clock)
        self._client = reference = weakref.ref(client)
        self._audience = client.audience
        options.setdefault("deployment_id", client.deployment_id)
        options.setdefault("match_code", client.match_code)
        self.codec.reader = self.engine
        self.runner = Runner(
            self.engine,
            registry,
            self.codec,
            handle=lambda facts: _child_handle(reference(), facts),
            **options,
        )
        self.pruning = Pruning(self.engine, self.runner, registry, retention, event_retention)
        self._guard = guard
        self._pid = os.getpid()
        self._undo: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Open the store; if there is anything to run, enter as a worker and look around."""
        await self.engine.open()
        self._audience.attach(self.engine.topics)
        try:
            if not self.read_only:
                await self.runner.ensure()
        except BaseException:
            await self.close()  # nobody holds this node: another try opens another one
            raise
        if not self.read_only:
            self.pruning.begin()
            client = self._client()
            if self._guard and client is not None:
                self._guard_exit(client)

    def _guard_exit(self, client: Client) -> None:
        # A client that is never closed hands its executions back when the process ends.
        atexit.register(self.leave_now)
        self._undo.append(lambda: atexit.unregister(self.leave_now))
        weakref.finalize(client, _leave_if_abandoned, self)
        if threading.current_thread() is threading.main_thread():
            self._guard_sigterm()

    def _guard_sigterm(self) -> None:
        # Only where nobody handles SIGTERM: hand back, then die of it as before.
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return

        def on_sigterm(number: int, frame: FrameType | None) -> None:
            self.leave_now()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGTERM, on_sigterm)

        def undo() -> None:
            main = threading.current_thread() is threading.main_thread()
            if main and signal.getsignal(signal.SIGTERM) is on_sigterm:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

        self._undo.append(undo)

    def leave_now(self) -> None:
        """Hand everything back at the end of the process, without an event loop."""
        if os.getpid() != self._pid:
            return
        try:
            self.engine.unregister_now()
        except StoreError:  # the lock dies with the process: others find out by themselves
            return

    @staticmethod
    def plain(fields: delta.Fields) -> dict[str, Any]:
        """Return recorded state as plain data."""
        return json.loads(delta.document(fields))

    async def close(self) -> None:
        """Drain, hand back, close."""
        self.pruning.close()
        self._audience.detach()
        try:
            await self.runner.close()
        finally:
            for undo in self._undo:
                undo()
            await self.engine.close()


def _leave_if_abandoned(node: LiveNode) -> None:
    # Nobody holds the client any more; as long as its loop lives, so does what runs on it.
    if node.runner.loop.is_closed():
        node.leave_now()


def _child_handle(client: Client | None, facts: dict[str, Any]) -> ExecutionHandle:
    if client is None:
        raise UsageError("the client of this workflow is gone")
    return ExecutionHandle(client, **facts)


def make_store(url: str) -> Store:
    """Return the store of a URL, not opened yet."""
    scheme = url.partition(":")[0].lower()
    if scheme == "sqlite":
        return SqliteStore(Location(url))
    if scheme in {"postgresql", "postgres"}:
        return _make_postgres_store(url)
    if scheme in {"http", "https"}:
        raise UsageError(
            f"{scheme}:// is not supported by this release; use sqlite:///path/to/file.db or "
            "postgresql://user@host/database"
        )
    raise UsageError(
        f"{url!r}: expected a URL such as sqlite:///path/to/file.db or "
        "postgresql://user@host/database"
    )


def _make_postgres_store(url: str) -> Store:
    try:
        from polos.store.postgres.location import Location as PostgresLocation
        from polos.store.postgres.store import PostgresStore
    except ImportError as error:
        raise UsageError(
            "PostgreSQL needs the extra: pip install 'polos[postgres]' (asyncpg is not installed)"
        ) from error
    return PostgresStore(PostgresLocation(url, settings.direct_url()))


async def open_node(client: Client) -> LiveNode:
    """Open what is behind a client, on the running event loop."""
    loop = asyncio.get_running_loop()
    node = LiveNode(
        make_store(client.url),
        SystemClock(loop),
        registries.default,
        client,
        takes_queue=client.takes_queue,
        concurrency=client.concurrency or EMBEDDED_CONCURRENCY,
        only=client.only,
        history_max=settings.max_history(),
        retention=settings.retention(None),
        event_retention=settings.event_retention(None),
        approval_url=settings.approval_url(client.api_url),
    )
    await node.open()
    return node


class PolosClient(Client):
    """Starts workflows, and reads and steers their executions.

    ```python
    client = PolosClient()  # ./.polos/polos.db, no server
    result = await my_workflow(client, payload)
    ```
    `codec` (`polos.codecs.EncryptionCodec`, else by POLOS_ENCRYPTION_KEY) encrypts values at rest.
    `url` is `sqlite:///path/to/file.db`, else `POLOS_URL`, else `POLOS_API_URL`, else
    `./.polos/polos.db`. Making one does no I/O; it opens at the first awaited call or at
    `async with`. What this process starts runs in this process, as long as it lives; what it left
    unfinished goes on when a process that registers the workflow opens the same store.
    """

    _open_node = staticmethod(open_node)


class Polos(Serving):
    """A client and a worker in one: `async with Polos() as polos: …`.

    It is a `PolosClient` that also takes queued work of every workflow of this process, up to
    `max_concurrent_workflows` at once (default `POLOS_MAX_CONCURRENT_WORKFLOWS` or 100). With
    `match_code` it takes only what was started by the code that it has itself. `retention`,
    `event_retention` and `drain_seconds` are those of `Worker`. The store is `url=`, or the first
    argument if that is a URL, as for a `PolosClient`.
    """

    _open_node = staticmethod(open_node)


class Worker(PlainWorker):
    __doc__ = PlainWorker.__doc__
    client_class = PolosClient
