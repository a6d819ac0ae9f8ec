"""What `polos worker` runs: one worker in this process, or several in processes of their own."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polos import Worker
from polos.cli import loading, opening
from polos.cli.exits import Exit
from polos.cli.supervisor import Supervisor
from polos.client import settings
from polos.core.clock import SystemClock
from polos.errors import UsageError
from polos.workflow.runnable import Workflow

FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"


@dataclass(frozen=True, slots=True)
class Order:
    """The options of `polos worker`."""

    modules: Sequence[str]
    url: str | None
    processes: int
    concurrency: int | None
    only: Sequence[str]
    deployment_id: str | None
    retention: str | None
    event_retention: str | None
    drain_seconds: float
    match_code: bool
    log_level: str
    log_file: str | None
    supervised: bool

    def command(self) -> list[str]:
        """Return the command line of one of its processes."""
        options: dict[str, Any] = {
            "--url": self.url,
            "--concurrency": self.concurrency,
            "--deployment-id": self.deployment_id,
            "--retention": self.retention,
            "--event-retention": self.event_retention,
            "--drain-seconds": self.drain_seconds,
            "--log-level": self.log_level,
            "--log-file": self.log_file,
        }
        line = [sys.executable, "-m", "polos.cli", "worker", "--supervised"]
        for name, value in options.items():
            if value is not None:
                line += [name, str(value)]
        if self.match_code:
            line.append("--match-code")
        for each in self.only:
            line += ["--workflow", each]
        return [*line, "--", *self.modules]


def serve(order: Order) -> Exit:
    """Serve until SIGINT or SIGTERM; returns how it ended."""
    # What is wrong with the options is said once, by this process, before others are started.
    opening.shared(settings.store_url(order.url, None))
    settings.retention(order.retention)
    settings.event_retention(order.event_retention)
    settings.drain_seconds(order.drain_seconds)
    if order.processes > 1 and not order.supervised:
        _log_to_stderr(order.log_level)
        return asyncio.run(_supervise(order))
    workflows = _chosen(loading.load(order.modules), order.only)
    _log_to_stderr(order.log_level)
    return asyncio.run(_work(order, workflows))


async def _supervise(order: Order) -> Exit:
    clock = SystemClock(asyncio.get_running_loop())
    supervisor = Supervisor(order.command(), order.processes, order.drain_seconds, clock)
    return await supervisor.run()


async def _work(order: Order, workflows: Sequence[Workflow[Any]]) -> Exit:
    worker = Worker(
        url=order.url,
        workflows=workflows,
        deployment_id=order.deployment_id,
        max_concurrent_workflows=order.concurrency,
        retention=order.retention,
        event_retention=order.event_retention,
        drain_seconds=order.drain_seconds,
        match_code=order.match_code,
        log_file=order.log_file,
    )
    if order.supervised:
        _stop_with_supervisor(worker)
    await worker.run()
    return Exit.OK


def _stop_with_supervisor(worker: Worker) -> None:
    # Standard input is a pipe that the supervisor holds: it ends when the supervisor is gone.
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()
    stopping: set[asyncio.Task[None]] = set()

    def on_input() -> None:
        if not os.read(stdin, 4096):
            loop.remove_reader(stdin)
            stopping.add(loop.create_task(worker.shutdown()))

    loop.add_reader(stdin, on_input)


def _chosen(known: Sequence[Workflow[Any]], only: Sequence[str]) -> Sequence[Workflow[Any]]:
    by_id = {each.id: each for each in known}
    for each in only:
        if each not in by_id:
            raise UsageError(
                f"--workflow {each!r} is not registered by these modules; they have "
                f"{', '.join(sorted(by_id))}"
            )
    return [by_id[each] for each in only] or list(by_id.values())


def _log_to_stderr(level: str) -> None:
    # Logging that the modules have set up themselves is left as it is.
    logging.basicConfig(level=level.upper(), format=FORMAT, stream=sys.stderr)
    logging.getLogger("polos").setLevel(level.upper())
