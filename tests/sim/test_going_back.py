"""Dying at every commit of a fork or a reset: all of it happened, or nothing."""

import asyncio
import contextlib
from typing import Any, Literal

import pytest

from polos import PolosClient, WorkflowContext, WorkflowState, workflow
from polos.store.commands import Crashed
from polos.testing import Simulation
from polos.testing.postgres import PostgresDatabase
from tests.postgres import fresh_url
from tests.sim.conftest import Fresh


class Count(WorkflowState):
    n: int = 0
    notes: list[str] = []


def define(ran: list[str]) -> Any:
    def body(key: str) -> str:
        ran.append(key)
        return key

    @workflow(state_schema=Count, index_state=["n"])
    async def counting(ctx: WorkflowContext, payload: None = None) -> dict[str, Any]:
        for key in ("a", "b", "c"):
            await ctx.step.run(key, body, key)
            ctx.state.n += 1
            ctx.state.notes.append(key)
        left, right = ctx.step.run("left", body, "left"), ctx.step.run("right", body, "right")
        await asyncio.gather(left, right)
        return {"n": ctx.state.n, "notes": ctx.state.notes}

    return counting


class Death:
    """Dies at one commit, before or after it."""

    def __init__(self, at: int, where: str) -> None:
        self.at, self.where = at, where
        self.commits = 0
        self.happened = asyncio.Event()

    def __call__(self, moment: str) -> None:
        self.commits += moment == "begin"
        if self.commits == self.at and moment == self.where:
            self.happened.set()
            raise Crashed


async def go_back(client: PolosClient, id: str, way: str) -> None:
    handle = client.get_handle(id)
    if way == "fork":
        fork = await handle.fork(at_step="b", state={"n": 10})
        await fork.result()
    else:
        await handle.reset(to_step="b")
        await handle.result()


async def one(
    way: Literal["fork", "reset"], at: int, where: str, fresh: Fresh | None
) -> tuple[bool, list[str]]:
    """Die once on the way back; returns whether death came, and what is wrong."""
    ran: list[str] = []
    counting = define(ran)
    database = None if fresh is None else await fresh()
    async with Simulation(database=database) as simulation:
        original = await counting.invoke(simulation.client)
        first = await original.result()
        ran.clear()
        death = Death(at, where)
        simulation.on_transaction(death)
        task = asyncio.ensure_future(go_back(simulation.client, original.id, way))
        dying = asyncio.ensure_future(death.happened.wait())
        await asyncio.wait({task, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not death.happened.is_set():
            simulation.on_transaction(None)
            await task
            return False, []
        simulation.crash()
        task.cancel()
        with contextlib.suppress(BaseException):
            await task
        await simulation.restart()
        wrong = await differences(simulation.client, original.id, first, way)
    if "a" in ran or "b" in ran:
        wrong.append(f"recorded steps ran again: {ran}")
    return True, wrong


async def differences(client: PolosClient, id: str, first: Any, way: str) -> list[str]:
    wrong: list[str] = []
    found = await client.list_executions()
    for each in found:
        result = await client.get_handle(each["id"]).result()
        forked = each["id"] != id
        expected = {"n": 12, "notes": ["a", "b", "c"]} if forked else first
        # The state of step b, with n replaced, and what the code adds behind b and c.
        if result != expected:
            wrong.append(f"{each['id']}: {result} is not {expected}")
        state = (await client.get_execution(each["id"]))["state"]
        indexed = await client.list_executions(where={"state.n": state["n"]})
        if each["id"] not in [other["id"] for other in indexed]:
            wrong.append(f"{each['id']} is not found by its state")
        steps = [step["step_key"] for step in await client.get_steps(each["id"])]
        if sorted(steps) != ["a", "b", "c", "left", "right"]:
            wrong.append(f"{each['id']} has the steps {steps}")
    if way == "reset" and len(found) != 1:
        wrong.append("a reset made another execution")
    cut = await client.cut_steps(id)
    if len(cut) not in ({0, 3} if way == "reset" else {0}):
        wrong.append(f"{len(cut)} rows were cut off")
    return wrong


async def sweep(way: Literal["fork", "reset"], fresh: Fresh | None = None) -> int:
    at = 0
    while True:
        at += 1
        for where in ("before", "after"):
            died, wrong = await one(way, at, where, fresh)
            assert wrong == [], (way, at, where)
            if not died:
                return at


@pytest.mark.parametrize("way", ["fork", "reset"])
async def test_a_death_on_the_way_back_leaves_all_or_nothing(way: Any) -> None:
    assert await sweep(way) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("way", ["fork", "reset"])
async def test_a_death_on_the_way_back_leaves_all_or_nothing_on_postgres(way: Any) -> None:
    database = PostgresDatabase(fresh_url())

    async def fresh() -> PostgresDatabase:
        await database.clean()
        return database

    assert await sweep(way, fresh) >= 4
