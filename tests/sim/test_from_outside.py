"""Another process patches, resets or forks an execution at every moment of its life.

Either it is refused and nothing came of it, or all of it happened: what the code counted before is
as it was recorded, and what it counts behind is counted once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from polos import ConflictError, PolosClient, WorkflowContext, WorkflowState, workflow
from polos.errors import StepNotFoundError, WaitTimeoutError
from polos.store.commands import Crashed
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import ManualClock, Simulation
from polos.testing.postgres import PostgresDatabase
from tests.postgres import fresh_url

TOTAL = 5
PATCHED = 100
KEYS = ["a", "nap", "b", "ask", "c", "rest", "d"]
REFUSED = (ConflictError, StepNotFoundError)


class Count(WorkflowState):
    n: int = 0
    notes: list[str] = []


def define(ran: list[str]) -> Any:
    @workflow(id="counting", state_schema=Count, index_state=["n"])
    async def counting(ctx: WorkflowContext, payload: None = None) -> dict[str, Any]:
        def body(key: str) -> None:
            ran.append(key)
            ctx.state.n += 1
            ctx.state.notes.append(key)

        await ctx.step.run("a", body, "a")
        await ctx.step.wait_for("nap", seconds=1)
        await ctx.step.run("b", body, "b")
        ctx.state.n += 1
        with contextlib.suppress(WaitTimeoutError):
            await ctx.step.suspend("ask", {}, timeout=1)
        await ctx.step.run("c", body, "c")
        await ctx.step.wait_for("rest", seconds=1)
        await ctx.step.run("d", body, "d")
        return {"n": ctx.state.n, "notes": ctx.state.notes}

    return counting


async def patch(client: PolosClient, id: str) -> None:
    await client.patch_state(id, {"n": PATCHED}, who="ann", why="a test")


async def patch_version(client: PolosClient, id: str) -> None:
    version = (await client.get_execution(id))["state_version"]
    await client.patch_state(id, {"n": PATCHED}, version, who="ann")


async def patch_twice(client: PolosClient, id: str) -> None:
    """Two people patch for one version: one of them is refused."""
    version = (await client.get_execution(id))["state_version"]
    tries = [client.patch_state(id, {"n": PATCHED}, version, who="ann") for _ in range(2)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    refused = [each for each in done if isinstance(each, BaseException)]
    assert refused
    if len(refused) == 2:
        raise refused[0]


async def reset(client: PolosClient, id: str) -> None:
    await client.reset(id, to_step="a")


async def fork(client: PolosClient, id: str) -> None:
    handle = await client.fork(id, at_step="a", state={"n": PATCHED})
    assert (await handle.result())["n"] == PATCHED + TOTAL - 1


WAYS: dict[str, Callable[[PolosClient, str], Any]] = {
    each.__name__: each for each in (patch, patch_version, patch_twice, reset, fork)
}


async def check(client: PolosClient, id: str, ran: list[str]) -> None:
    """Compare how an execution ended with what its history says happened to it."""
    result = await client.get_handle(id).result()
    shown = await client.get_execution(id)
    history = await client.state_history(id)
    expected, before = TOTAL, 0
    for entry in history:
        if entry.get("who") is not None:
            assert entry["state"]["n"] == PATCHED
            expected = PATCHED + TOTAL - before
        before = entry["state"]["n"]
    assert result == shown["state"] == {"n": expected, "notes": ["a", "b", "c", "d"]}
    assert shown["status"] == "completed"
    steps = [each["step_key"] for each in await client.get_steps(id)]
    assert [key for key in steps if key in KEYS] == KEYS
    assert ran.count("a") == 1
    found = await client.list_executions(where={"state.n": expected})
    assert id in [each["id"] for each in found]


class Moment:
    """Comes at one transaction of a process."""

    def __init__(self, at: int, where: str = "after") -> None:
        self.at, self.where = at, where
        self.count = 0
        self.came = asyncio.Event()

    def __call__(self, moment: str) -> None:
        self.count += moment == "begin"
        if (self.count, moment) == (self.at, self.where):
            self.came.set()


async def first_of(*tasks: asyncio.Future[Any]) -> None:
    """Wait for one of several."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def one(way: str, at: int, turns: int, database: Any) -> bool | None:
    """Let another process act some turns after a transaction.

    Returns whether it was let, or None if there is no such transaction.
    """
    ran: list[str] = []
    counting = define(ran)
    clock = ManualClock()
    moment = Moment(at)
    async with (
        Simulation(database=database, clock=clock) as first,
        Simulation(database=database, clock=clock) as second,
    ):
        first.on_transaction(moment)
        handle = await counting.invoke(first.client)
        ended = asyncio.ensure_future(handle.result())
        came = asyncio.ensure_future(moment.came.wait())
        await first_of(ended, came)
        came.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        done: bool | None = True
        try:
            await WAYS[way](second.client, handle.id)
        except REFUSED:
            done = False
        await ended
        if way.startswith("patch"):
            named = [e for e in await second.client.state_history(handle.id) if "who" in e]
            assert len(named) == done
        await check(second.client, handle.id, ran)
        first.on_transaction(None)
    return done if moment.came.is_set() else None


async def every_moment(way: str, later: Iterable[int], fresh: Callable[[], Any]) -> set[bool]:
    """Act behind every transaction, so many turns later; returns whether it was let."""
    outcomes: set[bool] = set()
    for at in range(1, 200):
        for turns in later:
            database = fresh()
            if isinstance(database, PostgresDatabase):
                await database.clean()
            done = await one(way, at, turns, database)
            if done is None:
                return outcomes
            outcomes.add(done)
    raise AssertionError("it never ended")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
async def test_another_process_acts_at_every_moment(way: str) -> None:
    outcomes = await every_moment(way, [0, 1, 3], MemoryDatabase)
    assert outcomes == {True, False} if way != "fork" else True in outcomes


@pytest.mark.parametrize("way", WAYS)
async def test_another_process_acts_at_some_moments(way: str) -> None:
    assert True in await every_moment(way, [0], MemoryDatabase)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["patch", "reset"])
async def test_another_process_acts_at_some_moments_on_postgres(way: str) -> None:
    database = PostgresDatabase(fresh_url())
    assert True in await every_moment(way, [0, 5], lambda: database)


async def die(who: str, at: int, where: str, database: Any) -> bool:
    """Patch as soon as it can be, and let one of the two processes die at a commit."""
    counting = define([])
    clock = ManualClock()
    dead, moved = asyncio.Event(), asyncio.Event()
    commits = 0

    def gate(moment: str) -> None:
        moved.set()

    def deadly(moment: str) -> None:
        nonlocal commits
        moved.set()
        commits += moment == "begin"
        if (commits, moment) == (at, where):
            dead.set()
            raise Crashed

    async def patches(client: PolosClient, id: str) -> None:
        while True:
            with contextlib.suppress(ConflictError):
                return await patch(client, id)
            await moved.wait()
            moved.clear()

    async with (
        Simulation(database=database, clock=clock) as owner,
        Simulation(database=database, clock=clock) as patcher,
    ):
        handle = await counting.invoke(owner.client)
        mortal, other = (owner, patcher) if who == "owner" else (patcher, owner)
        other.on_transaction(gate)
        mortal.on_transaction(deadly)
        task = asyncio.ensure_future(patches(patcher.client, handle.id))
        ended = asyncio.ensure_future(other.client.get_handle(handle.id).result())
        fatal = asyncio.ensure_future(dead.wait())
        await first_of(ended, fatal)
        died = dead.is_set()
        if died:
            mortal.crash()
        await ended
        task.cancel()
        fatal.cancel()
        await asyncio.gather(task, fatal, return_exceptions=True)
        for each in (mortal, other):
            each.on_transaction(None)
        if died:
            await mortal.restart()
        await check(mortal.client, handle.id, ["a"])  # a step that was lost runs again
    return died


async def every_death(who: str, fresh: Callable[[], Any]) -> int:
    for at in range(1, 200):
        for where in ("before", "after"):
            database = fresh()
            if isinstance(database, PostgresDatabase):
                await database.clean()
            if not await die(who, at, where, database):
                return at
    raise AssertionError("it never ended")


@pytest.mark.slow
@pytest.mark.parametrize("who", ["owner", "patcher"])
async def test_a_patch_and_a_death_leave_all_or_nothing(who: str) -> None:
    assert await every_death(who, MemoryDatabase) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("who", ["owner", "patcher"])
async def test_a_patch_and_a_death_leave_all_or_nothing_on_postgres(who: str) -> None:
    database = PostgresDatabase(fresh_url())
    assert await every_death(who, lambda: database) >= 2
