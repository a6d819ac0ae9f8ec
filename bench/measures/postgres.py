"""PostgreSQL: steps, start to result, from process to process, taking over, idling."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from itertools import count as counter
from pathlib import Path
from typing import Any

from bench.pgraw import (
    AGAINST_RATE,
    AGAINST_TIME,
    RawTable,
    end,
    raw_table,
    server_cpu_seconds,
    until,
    workers,
)
from bench.pgserver import Server
from bench.pgtools import LOGGED, pgbench, statements
from bench.raw import BODY
from bench.report import Pair
from bench.session import Session, p99, stopwatch
from bench.workflows import Plan, expected, require, state_steps, steps
from polos import PolosClient, Workflow

Once = Callable[[PolosClient, RawTable], Awaitable[Pair]]
_schemas = counter()
TURNS = 5


def measure(session: Session) -> None:
    """Measure all on one server from the wheel, with fsync on."""
    server = Server(fsync=True)
    try:
        bench = Bench(session, server)
        bench.one()
        bench.many("1000x10", steps)
        bench.many("1000x10_state", state_steps)
        bench.start_to_result()
        bench.hand_over()
        bench.scaling()
        bench.takeover()
        bench.pgbench()
    finally:
        server.stop()
    idle(session)


class Bench:
    """The measures on one server."""

    def __init__(self, session: Session, server: Server) -> None:
        self.session = session
        self.server = server

    def url(self) -> str:
        """Return the URL of an empty schema."""
        return self.server.url(schema=f"bench{next(_schemas)}")

    def pairs(self, once: Once) -> list[Pair]:
        """Measure once per run, in a new schema, with a raw table beside it."""

        async def one() -> Pair:
            async with raw_table(self.server) as raw, PolosClient(self.url()) as client:
                return await once(client, raw)

        return [self.session.run(one()) for _ in range(self.session.runs)]

    def one(self) -> None:
        """One execution, one step after the other, in turns with raw inserts."""
        plan = Plan(steps=self.session.size(400, 30))
        turns = self.session.size(TURNS, 1)

        async def once(client: PolosClient, raw: RawTable) -> Pair:
            await steps(client, Plan(steps=30))
            limit = seconds = 0.0
            for _ in range(turns):
                limit += await raw.seconds(plan.steps)
                with stopwatch() as took:
                    require(await steps(client, plan), expected(plan))
                seconds += took.seconds
            return turns * plan.steps / seconds, turns * plan.steps / limit

        self.session.report("one", "steps/s", self.pairs(once), AGAINST_RATE)

    def many(self, name: str, work: Workflow[int]) -> None:
        """Many executions at once in one process, starts and endings included."""
        plans = [Plan(steps=10) for _ in range(self.session.size(1000, 20))]
        cpu: list[Pair] = []

        async def once(client: PolosClient, raw: RawTable) -> Pair:
            await asyncio.gather(*(work(client, plan) for plan in plans[:50]))
            limit = len(plans) / await raw.seconds(len(plans))
            with stopwatch() as took:
                results = await asyncio.gather(*(work(client, plan) for plan in plans))
            require(results, [expected(plan) for plan in plans])
            cpu.append((took.cpu_seconds / (10 * len(plans)) * 1e6, None))
            return 10 * len(plans) / took.seconds, limit

        self.session.report(name, "steps/s", self.pairs(once), AGAINST_RATE)
        self.session.report(f"{name}_cpu", "CPU us/step", cpu)

    def start_to_result(self) -> None:
        """From the start of an execution of one step to its result, a raw insert before each."""
        size = self.session.size(500, 20)
        slow: list[Pair] = []

        async def once(client: PolosClient, raw: RawTable) -> Pair:
            took: list[float] = []
            limits: list[float] = []
            for n in range(size + 20):
                limit = await raw.seconds(1) * 1e3
                with stopwatch() as watch:
                    require(await steps(client, Plan(steps=1)), 0)
                if n >= 20:
                    took.append(watch.seconds * 1e3)
                    limits.append(limit)
            slow.append((p99(took), statistics.median(limits)))
            return statistics.median(took), statistics.median(limits)

        self.session.report("start_to_result_p50", "ms", self.pairs(once), AGAINST_TIME)
        self.session.report("start_to_result_p99", "ms", slow, AGAINST_TIME)

    def hand_over(self) -> None:
        """From a start in this process to a running body in an idle other one."""
        size = self.session.size(200, 10)
        slow: list[Pair] = []

        async def once(client: PolosClient, raw: RawTable) -> Pair:
            del raw
            took: list[float] = []
            with workers(client.url, 1):
                for n in range(size):
                    await asyncio.sleep(0.03)  # so that bells are not gathered
                    begun = time.monotonic_ns()
                    handle = await client.invoke("bench_moment")
                    ran = await handle.result(timeout=30)
                    if n >= 5:
                        took.append((ran - begun) / 1e6)
            slow.append((p99(took), None))
            return statistics.median(took), None

        self.session.report("start_elsewhere_p50", "ms", self.pairs(once))
        self.session.report("start_elsewhere_p99", "ms", slow)

    def scaling(self) -> None:
        """The same queue, filled before, by one worker process and by two."""
        size = self.session.size(2000, 20)
        for number in (1, 2):
            cpu: list[Pair] = []
            server: list[Pair] = []

            async def once(
                client: PolosClient,
                raw: RawTable,
                number: int = number,
                cpu: list[Pair] = cpu,
                server: list[Pair] = server,
            ) -> Pair:
                del raw
                await fill(client, "bench_queued", Plan(steps=10), size)
                before = server_cpu_seconds(self.server)
                with workers(client.url, number) as processes:
                    seconds = await emptied(client, size)
                    of_server = server_cpu_seconds(self.server) - before
                    of_workers = sum(end(process) for process in processes)
                cpu.append((of_workers / (size * 10) * 1e6, None))
                server.append((of_server / (size * 10) * 1e6, None))
                return size * 10 / seconds, None

            self.session.report(f"workers_{number}", "steps/s", self.pairs(once))
            self.session.report(f"workers_{number}_cpu", "CPU us/step, interpreter too", cpu)
            self.session.report(f"workers_{number}_server_cpu", "CPU us/step", server)

    def takeover(self) -> None:
        """From SIGKILL to the first body of the same execution in another process."""
        took: list[float] = []

        async def once(client: PolosClient, raw: RawTable) -> Pair:
            del raw
            path = Path(self.session.folder) / f"held{next(_schemas)}"
            with workers(client.url, 1) as first:
                await client.invoke("bench_held", str(path))
                await until(lambda: _lines(path) == 1)
                with workers(client.url, 1):
                    await asyncio.sleep(2.0)  # it has seen the others
                    begun = time.monotonic_ns()
                    first[0].kill()
                    await until(lambda: _lines(path) == 2)
            ran = int(path.read_text(encoding="utf-8").split()[1])
            took.append((ran - begun) / 1e9)
            return took[-1], None

        for _ in range(self.session.size(3, 1)):
            self.pairs(once)
        self.session.report("takeover_p50", "s", [(statistics.median(took), None)])
        worst = p99(took) if len(took) > 1 else took[0]
        self.session.report("takeover_p99", "s", [(worst, None)])

    def pgbench(self) -> None:
        """Single-row inserts of PostgreSQL's own tool, a raw insert of ours beside each."""
        seconds = self.session.size(5, 1)
        for clients in (1, 4):
            for protocol in ("prepared", "simple"):

                async def once(clients: int = clients, protocol: str = protocol) -> Pair:
                    async with raw_table(self.server) as raw:
                        limit = 500 / await raw.seconds(500)
                        rate = await asyncio.to_thread(
                            pgbench,
                            self.server,
                            BODY,
                            clients=clients,
                            protocol=protocol,
                            seconds=seconds,
                        )
                    return rate, limit

                runs = [self.session.run(once()) for _ in range(self.session.runs)]
                self.session.report(
                    f"pgbench_{clients}_{protocol}", "inserts/s", runs, AGAINST_RATE
                )


async def fill(client: PolosClient, workflow_id: str, payload: Plan, count: int) -> None:
    """Queue executions of a workflow that this process does not have, worker or not."""
    engine = (await _node(client)).engine
    body = payload.model_dump_json()
    starts = [engine.remote_start(workflow_id, body, None, None) for _ in range(count)]
    await asyncio.gather(*(engine.start(start) for start in starts))


async def emptied(client: PolosClient, count: int) -> float:
    """Wait for the ends of executions; returns seconds from the first beginning to the last end."""
    store = (await _node(client)).store
    statement = (
        "SELECT count(*), max(completed_at) - min(started_at) FROM {s}.execution "
        "WHERE status = 'completed'"
    )
    while True:
        done, taken = await store.read(lambda link: link.row(statement))
        if done == count:
            return taken / 1e6
        await asyncio.sleep(0.25)


async def _node(client: PolosClient) -> Any:
    return await client.node()


def idle(session: Session) -> None:
    """Measure what a worker sends that has nothing to do, by the log of a server of its own.

    The server counts transactions too, but those of its own upkeep with them.
    """
    server = Server(fsync=True, settings=LOGGED)
    seconds = session.size(30, 3)

    async def once() -> Pair:
        with workers(server.url(schema=f"idle{next(_schemas)}"), 1):
            await asyncio.sleep(3.0)
            before, begun = statements(server), time.perf_counter()
            await asyncio.sleep(seconds)
            sent = statements(server) - before
        return sent / (time.perf_counter() - begun), None

    try:
        runs = [session.run(once()) for _ in range(session.runs)]
    finally:
        server.stop()
    session.report("idle", "queries/s", runs)


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


__all__: list[Any] = ["measure"]
