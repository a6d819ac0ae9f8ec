"""`python -m bench.chaos`: disturb real workers and their server by plan, then prove the outcome.

Exit code 0 if all that had to hold holds, 1 if something does not, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos import proof
from bench.chaos.director import Director
from bench.chaos.plan import Job, faults, jobs
from bench.pgserver import Server
from polos import PolosClient
from polos.errors import PolosError, WorkflowNotRegisteredError

SCHEMA = "chaos"
OPEN_MAX = 400
"""So many executions at most are not finished while new ones are started."""
SETTLE_SECONDS = 180.0
"""After the last fault all has to be finished within this time."""
SHOWN_MAX = 40


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--workers", type=int, default=4, help="worker processes (4)")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long to disturb (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the plan (1)")
    parser.add_argument("--version", type=int, choices=(16, 18), default=18, help="of PostgreSQL")
    parser.add_argument("--executions", type=int, help="roots to start (800 a minute)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--keep", help="folder for logs and effects, kept (a temporary one)")
    options = parser.parse_args(given)
    if options.workers < 2 or options.minutes <= 0:
        parser.error("expected --workers of 2 or more and --minutes above 0")
    if options.executions is None:
        options.executions = max(50, int(800 * options.minutes))
    return options


def say(text: str) -> None:
    """Tell people."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Run:
    """One run: who starts, who disturbs, and what came of it."""

    director: Director
    url: str
    plan: list[Job]
    seconds: float
    started: int = 0
    cancelled: int = 0
    answered: int = 0
    _acting: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def start_all(self, client: PolosClient) -> None:
        """Start the executions, evenly over the time, from a process that runs none of them."""
        begun = time.monotonic()
        for job in self.plan:
            due = begun + self.seconds * job.number / len(self.plan)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            while job.number % 50 == 0 and await open_count(client) > OPEN_MAX:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            handle = await self._start(client, job)
            self.started += 1
            if job.cancel_after is not None:
                self._act(self._cancel(client, handle.id, job.cancel_after))
            if job.answer_after is not None:
                self._act(self._answer(client, handle.id, job))
        await asyncio.gather(*self._acting)

    def _act(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    async def _start(self, client: PolosClient, job: Job) -> Any:
        while True:
            with contextlib.suppress(WorkflowNotRegisteredError):  # no worker at this moment
                return await client.invoke(job.kind, job.payload, idempotency_key=str(job.number))
            await asyncio.sleep(0.2)

    async def _cancel(self, client: PolosClient, execution_id: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await client.cancel_execution(execution_id)
        self.cancelled += 1

    async def _answer(self, client: PolosClient, execution_id: str, job: Job) -> None:
        await asyncio.sleep(job.answer_after or 0.0)
        try:
            await client.resume("asker", execution_id, "question", job.payload)
        except PolosError as error:
            self.director.complaints.append(f"asker {execution_id} took no answer: {error}")
        self.answered += 1

    async def settle(self, client: PolosClient) -> int:
        """Wait until nothing is open; returns how many still are when the time is over."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while left := await open_count(client):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.25)
        return left


async def open_count(client: PolosClient) -> int:
    """Count executions that have not ended."""
    node: Any = await client.node()
    statement = "SELECT count(*) FROM {s}.execution WHERE completed_at IS NULL"
    return (await node.store.read(lambda link: link.row(statement)))[0]


async def go(options: argparse.Namespace, server: Server, folder: Path) -> dict[str, Any]:
    """Run, and return the report."""
    url = server.url(schema=SCHEMA)
    director = Director(server, url, folder, options.workers)
    run = Run(director, url, jobs(options.seed, options.executions), options.minutes * 60)
    left = 0
    begun = time.monotonic()
    try:
        async with PolosClient(url) as client, asyncio.TaskGroup() as group:
            until = asyncio.get_running_loop().time() + run.seconds
            group.create_task(director.run(faults(options.seed), until))
            group.create_task(run.start_all(client))
        async with PolosClient(url) as client:
            left = await run.settle(client)
        settled = time.monotonic()
        await director.end()
    finally:
        for worker in director.workers:
            director.slay(worker)
    facts = await proof.read(url, server.url(), SCHEMA, folder)
    found = [*director.complaints, *proof.violations(facts, run.plan), *_complaints(folder)]
    if left:
        found.insert(0, f"{left} executions had not ended {SETTLE_SECONDS:g} s after the faults")
    return {
        "seed": options.seed,
        "minutes": options.minutes,
        "seconds_in_all": round(settled - begun, 1),
        "workers": options.workers,
        "server": options.version,
        **proof.summary(facts),
        "cancellations": run.cancelled,
        "answers": run.answered,
        "faults": dict(director.tally),
        "takeover_seconds": {
            what: _percentiles(proof.takeovers(facts, director.blows, director.outages, what))
            for what in ("kill", "freeze", "hold")
        },
        "violations": found,
    }


def _complaints(folder: Path) -> list[str]:
    lines = (folder / "workers.log").read_text(encoding="utf-8").splitlines()
    marks = (" ERROR ", " CRITICAL ", "Traceback", "Exception ignored", "never retrieved")
    return [f"log: {line}" for line in lines if any(mark in line for mark in marks)]


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {"count": len(seconds)}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {
        "count": len(seconds),
        "p50": round(cuts[49], 2),
        "p99": round(cuts[98], 2),
        "max": round(max(seconds), 2),
    }


def shown(report: dict[str, Any]) -> str:
    """Return a report for people."""
    lines = [f"{name:>18}  {value}" for name, value in report.items() if name != "violations"]
    found = report["violations"]
    lines += [f"VIOLATED  {each}" for each in found[:SHOWN_MAX]]
    if len(found) > SHOWN_MAX:
        lines.append(f"VIOLATED  … and {len(found) - SHOWN_MAX} more")
    lines.append("all that had to hold holds" if not found else f"{len(found)} violations")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    """Run once."""
    options = arguments(given)
    server = Server(options.version, settings={"track_commit_timestamp": "on"})
    try:
        with contextlib.ExitStack() as stack:
            folder = options.keep or stack.enter_context(
                tempfile.TemporaryDirectory(prefix="polos-chaos-")
            )
            Path(folder).mkdir(parents=True, exist_ok=True)
            report = asyncio.run(go(options, server, Path(folder)))
    finally:
        server.stop()
    print(json.dumps(report) if options.json else shown(report))
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
