"""Serving: a client that takes queued work until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from typing import Any, Self

from polos.client import settings
from polos.client.client import Client
from polos.codecs import PayloadCodec
from polos.core.ages import Age
from polos.errors import UsageError
from polos.workflow.runnable import Workflow

log = logging.getLogger("polos.worker")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LogFile:
    """Sends the log of Polos to a file while it serves; other logging is left alone."""

    def __init__(self, path: str | None) -> None:
        self._handler = None if path is None else logging.FileHandler(path, delay=True)

    def attach(self) -> None:
        """Begin to write."""
        if self._handler is not None:
            form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
            self._handler.setFormatter(logging.Formatter(form))
            logging.getLogger("polos").addHandler(self._handler)

    def detach(self) -> None:
        """Stop writing."""
        if self._handler is not None:
            logging.getLogger("polos").removeHandler(self._handler)
            self._handler.close()


async def until_signal(stopped: asyncio.Event) -> None:
    """Wait until `stopped` is set, by SIGINT, SIGTERM or the program."""
    loop = asyncio.get_running_loop()
    added: list[signal.Signals] = []
    for each in SIGNALS:
        # Outside of the main thread there are no signal handlers: only the program stops us.
        with contextlib.suppress(ValueError, NotImplementedError, RuntimeError):
            loop.add_signal_handler(each, stopped.set)
            added.append(each)
    try:
        await stopped.wait()
    finally:
        for each in added:
            loop.remove_signal_handler(each)


class Worker:
    """Takes queued executions of its workflows from a store and runs them.

    `client` names the store, or `url` does. `workflows` limits what it takes (default: all that
    this process has registered). `await run()` serves until SIGINT, SIGTERM or `shutdown()`;
    running steps then have `drain_seconds` (default 10) to end, and the rest is handed back.
    With `deployment_id`, which goes for its client too, it also takes the executions of that
    deployment; with `match_code` only what was started by the code that it has itself.
    `retention` (`"30d"`, a timedelta, seconds; default `POLOS_RETENTION`, else for ever) says how
    long finished executions are kept, of workflows that do not say so themselves; `event_retention`
    (default `POLOS_EVENT_RETENTION`, else 7 days) the same of events of ordinary topics. `codec`
    encrypts values at rest, and goes for its client too.
    `agents`, `tools` and `channels` come with later releases.
    """

    client_class: type[Client]

    def __init__(  # noqa: PLR0917 - the reference's order
        self,
        client: Client | None = None,
        deployment_id: str | None = None,
        agents: Sequence[Any] | None = None,
        tools: Sequence[Any] | None = None,
        workflows: Sequence[Workflow[Any]] | None = None,
        max_concurrent_workflows: int | None = None,
        mode: str = "push",
        worker_server_url: str | None = None,
        log_file: str | None = None,
        channels: Sequence[Any] | None = None,
        *,
        url: str | None = None,
        retention: Age | None = None,
        event_retention: Age | None = None,
        drain_seconds: float | None = None,
        match_code: bool = False,
        codec: PayloadCodec | None = None,
    ) -> None:
        if mode not in {"push", "pull"}:
            raise UsageError(f"mode={mode!r}: expected 'push' or 'pull'")
        del worker_server_url  # embedded workers fetch their work themselves
        self.channels = list(channels or [])
        self.client = client or self.client_class(url, deployment_id=deployment_id, codec=codec)
        self.client.codec = codec or self.client.codec
        # One process, one deployment: what its client starts must be its to take up again.
        self.client.deployment_id = deployment_id or self.client.deployment_id
        self.client.match_code = match_code or self.client.match_code
        self.workflows = [*(workflows or []), *(agents or []), *(tools or [])]
        self.max_concurrent_workflows = settings.max_concurrent_workflows(max_concurrent_workflows)
        self.retention = settings.retention(retention)
        self.event_retention = settings.event_retention(event_retention)
        self.drain_seconds = settings.drain_seconds(drain_seconds)
        if client is None:  # from the first moment on it claims nothing that it shall not run
            self.client.takes_queue = True
            self.client.only = [each.id for each in self.workflows] or None
            self.client.concurrency = self.max_concurrent_workflows
        self._log_file = LogFile(log_file)
        self._stopped = asyncio.Event()
        self._done = asyncio.Event()
        self._running = False

    @property
    def deployment_id(self) -> str | None:
        """The deployment of this process."""
        return self.client.deployment_id

    async def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `shutdown()`; then let running steps end."""
        self._log_file.attach()
        self._running = True
        try:
            node = await self.client.node()
            node.pruning.default = self.retention
            node.pruning.event_seconds = self.event_retention
            node.runner.drain_seconds = self.drain_seconds
            offering = node.runner.offering
            offering.deployment_id = self.client.deployment_id
            offering.match_code = self.client.match_code
            only = [each.id for each in self.workflows] or None
            await node.runner.serve(only, self.max_concurrent_workflows)
            log.info(
                "worker %s started (pid %s, up to %s executions at once) on %s; workflows: %s",
                node.engine.worker_id,
                os.getpid(),
                self.max_concurrent_workflows,
                settings.without_password(self.client.url),
                ", ".join(sorted(node.runner.offering.workflows)),
            )
            await until_signal(self._stopped)
            log.info("stopping; running steps may take up to %g s to end", self.drain_seconds)
        finally:
            await self.client.close()
            self._log_file.detach()
            self._running = False
            self._done.set()

    async def shutdown(self) -> None:
        """Stop serving and wait until everything is handed back."""
        self._stopped.set()
        if self._running:
            await self._done.wait()


class Serving(Client):
    """See `polos.Polos`."""

    takes_queue = True

    def __init__(  # noqa: PLR0917 - the reference's order
        self,
        project_id: str | None = None,
        api_url: str | None = None,
        api_key: str | None = None,
        deployment_id: str | None = None,
        port: int = 8000,
        max_concurrent_workflows: int | None = None,
        channels: Sequence[Any] | None = None,
        log_file: str | None = None,
        *,
        url: str | None = None,
        retention: Age | None = None,
        event_retention: Age | None = None,
        drain_seconds: float | None = None,
        match_code: bool = False,
        codec: PayloadCodec | None = None,
    ) -> None:
        if url is None and isinstance(project_id, str) and "://" in project_id:
            url, project_id = project_id, None  # as it is given to a PolosClient
        super().__init__(
            url,
            codec=codec,
            api_url=api_url,
            api_key=api_key,
            project_id=project_id,
            deployment_id=deployment_id or "default",
        )
        self.match_code = match_code
        self.port = port
        self.channels = list(channels or [])
        self.max_concurrent_workflows = settings.max_concurrent_workflows(max_concurrent_workflows)
        self.retention = settings.retention(retention)
        self.event_retention = settings.event_retention(event_retention)
        self.drain_seconds = settings.drain_seconds(drain_seconds)
        self._log_file = LogFile(log_file)
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        """Open the store and begin to take work."""
        self._log_file.attach()
        node = await self.node()
        node.pruning.default = self.retention
        node.pruning.event_seconds = self.event_retention
        node.runner.drain_seconds = self.drain_seconds
        await node.runner.serve(None, self.max_concurrent_workflows)

    async def stop(self) -> None:
        """Let running steps end, hand everything back and close."""
        self._stopped.set()
        await self.close()
        self._log_file.detach()

    async def serve(self) -> None:
        """Start, and block until SIGINT, SIGTERM or `stop()`."""
        await self.start()
        try:
            await until_signal(self._stopped)
        finally:
            await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()
