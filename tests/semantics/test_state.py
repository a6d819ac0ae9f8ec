"""DESIGN §2, State 1 to 4, through the public API; each test is named after its item."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from pydantic import Field

from polos import (
    BatchWorkflowInput,
    ExecutionFailedError,
    PolosClient,
    StateTooLargeError,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.errors import InvalidStateError
from polos.testing import JournalFile, Simulation, replay
from tests.sim.helpers import by_hand, pass_time, turns, until


class Tally(WorkflowState):
    count: int = 0
    notes: list[str] = []
    mark: float = 0.0
    text: str = ""


async def noop() -> None:
    pass


# -- 1: recorded with every step --------------------------------------------------------------


async def test_state_1_recorded_with_every_step_in_its_own_commit() -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        for n in range(3):
            ctx.state.count += 1
            await ctx.step.run(f"s{n}", noop)
            seen.append((await handle.state() or {})["count"])

    seen: list[int] = []
    commits: list[tuple[int, int]] = []
    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        assert simulation.database is not None
        connection = simulation.database.connection

        def gate(moment: str) -> None:
            if moment == "after":
                (steps,) = next(iter(connection.execute("SELECT count(*) FROM step")))
                (states,) = next(iter(connection.execute("SELECT count(*) FROM state")))
                commits.append((steps, states))

        simulation.on_transaction(gate)
        await handle.result()
        simulation.on_transaction(None)
    assert seen == [1, 2, 3]
    # One state entry with each step (the first is the start), in its commit, none alone.
    assert all(states == steps + 1 for steps, states in commits)


@pytest.mark.parametrize("how", ["waits", "completes", "fails", "is cancelled"])
async def test_state_1_recorded_when_the_execution(how: str) -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("s", noop)
        ctx.state.notes.append(how)
        if how == "waits":
            await ctx.step.wait_for("w", days=1)
        elif how == "fails":
            raise ValueError("no")
        elif how == "is cancelled":
            try:
                await asyncio.Event().wait()
            finally:
                ctx.state.count = 5

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await turns()
        if how == "is cancelled":
            await handle.cancel()
            await turns()
        state = await handle.state() or {}
    assert state["notes"] == [how]
    assert state["count"] == (5 if how == "is cancelled" else 0)


async def test_state_1_readers_see_it_live_while_a_body_runs() -> None:
    go = asyncio.Event()

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        ctx.state.count = 1
        await ctx.step.run("slow", go.wait)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await turns()
        assert (await handle.state() or {})["count"] == 0
        await pass_time(simulation, 0.2)
        assert (await handle.state() or {})["count"] == 1
        go.set()
        await handle.result()
        assert (await handle.state() or {})["count"] == 1


async def test_state_1_never_half_of_it() -> None:
    """Two fields that are changed together are read together."""

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        for n in range(1, 20):
            ctx.state.count = n
            await asyncio.sleep(0)
            ctx.state.mark = float(n)
            await ctx.step.run("s", noop)

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        task = asyncio.ensure_future(handle.result())
        while not task.done():
            state = await handle.state() or {}
            assert state["count"] == state["mark"]
            await asyncio.sleep(0)


# -- 2: what comes back -----------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["after a step", "in the first body", "in a later body"])
async def test_state_2_state_set_by_chance_comes_back_as_recorded(moment: str) -> None:
    seen: list[float] = []
    held: list[str] = []

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> float:
        async def look(key: str, hold: bool) -> None:
            seen.append(ctx.state.mark)
            if hold and not held:
                held.append(key)
                await asyncio.Event().wait()

        if moment == "in a later body":
            await ctx.step.run("first", noop)
        ctx.state.mark = random.random()
        await ctx.step.run("a", look, "a", moment != "after a step")
        await ctx.step.run("b", look, "b", True)
        return ctx.state.mark

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 1)
        assert held == ["b" if moment == "after a step" else "a"]
        recorded = await handle.state() or {}
        assert recorded["mark"] == seen[0]
        simulation.crash()
        await simulation.restart()
        await pass_time(simulation, 1)
        assert await simulation.client.get_handle(handle.id).result() == recorded["mark"]
    assert set(seen) == {recorded["mark"]}


async def test_state_2_what_a_body_changed_comes_back() -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> Any:
        async def change() -> None:
            ctx.state.mark = random.random()
            ctx.state.notes.append(str(ctx.state.mark))

        await ctx.step.run("s", change)
        await ctx.step.wait_for("w", days=1)
        return ctx.state.mark

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 1)
        recorded = await handle.state() or {}
        simulation.crash()
        await simulation.restart()
        await pass_time(simulation, 90_000, step=3000)
        assert await simulation.client.get_handle(handle.id).result() == recorded["mark"]
        assert await simulation.client.get_handle(handle.id).state() == recorded


async def test_state_2_a_failed_body_changes_nothing() -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        async def fail() -> None:
            ctx.state.count += 1
            raise ValueError("no")

        async def slow() -> None:
            ctx.state.count += 1
            await asyncio.Event().wait()

        for call in (
            ctx.step.run("a", fail),
            ctx.step.run("b", slow, timeout=1, max_retries=0),
        ):
            with pytest.raises(StepExecutionError):
                await call
        return ctx.state.count

    async with Simulation() as simulation:
        assert await code(simulation.client) == 0


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
async def test_state_2_a_change_is_counted_once_whatever_it_holds(strange: float) -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        async def body() -> None:
            ctx.state.mark = strange
            ctx.state.count += 1

        await ctx.step.run("a", body)
        ctx.state.mark = 1.0
        await ctx.step.run("b", noop)
        return ctx.state.count

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == 1
        assert await handle.state() == {"count": 1, "notes": [], "mark": 1.0, "text": ""}


async def test_state_2_branches_lose_no_increment_and_count_none_twice() -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        async def branch(n: int) -> None:
            async def body() -> None:
                before = ctx.state.count
                for _ in range(n):
                    await asyncio.sleep(0)
                ctx.state.count = before + 1
                ctx.state.notes.append(str(n))

            for _ in range(3):
                await ctx.step.run(f"b{n}", body)
                ctx.state.count += 1

        await asyncio.gather(*(branch(n) for n in range(10)))
        return ctx.state.count

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == 60
        state = await handle.state() or {}
        journal = await JournalFile.of(simulation.client, handle.id)
    assert state["count"] == 60
    assert sorted(state["notes"]) == sorted([str(n) for n in range(10)] * 3)
    again = await replay(journal)
    assert (again.result, again.state) == (60, state)


async def test_state_2_two_clients_on_one_loop_do_not_disturb_each_other(tmp_path: Any) -> None:
    """One that closes takes nothing from the other: rows of branches are not pinned."""

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        async def slow(n: int) -> None:
            await turns(n)

        await asyncio.gather(ctx.step.run("a", slow, 3), ctx.step.run("b", slow, 1))

    async with PolosClient(f"sqlite:///{tmp_path}/b.db") as stays:
        async with PolosClient(f"sqlite:///{tmp_path}/a.db") as goes:
            await code(goes)
        handle = await code.invoke(stays)
        await handle.result()
        journal = await JournalFile.of(stays, handle.id)
    assert [row["pinned"] for row in journal.rows] == [False, False]


# -- 3: at most a megabyte --------------------------------------------------------------------


async def test_state_3_too_large_at_the_start_stores_nothing() -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        pass

    async with Simulation() as simulation:
        with pytest.raises(StateTooLargeError) as caught:
            await code.invoke(simulation.client, initial_state={"text": "x" * 1_048_576})
        assert await simulation.client.list_executions() == []
    error = caught.value
    assert (error.field, error.limit) == ("text", 1_048_576)
    assert error.size > error.limit
    assert isinstance(error, ValueError)
    assert isinstance(error, StepExecutionError)


async def test_state_3_exactly_a_megabyte_is_allowed() -> None:
    rest = len(json.dumps(Tally().model_dump(), separators=(",", ":")))

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        ctx.state.text = "x" * (1_048_576 - rest)
        await ctx.step.run("fits", noop)
        ctx.state.text += "x"
        with pytest.raises(StateTooLargeError) as caught:
            await ctx.step.run("does not", noop)
        assert caught.value.size == 1_048_577
        ctx.state.text = ""

    async with Simulation() as simulation:
        await code(simulation.client)


async def test_state_3_checked_before_a_body_and_the_code_may_go_on() -> None:
    ran: list[str] = []

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> str:
        async def body() -> None:
            ran.append("body")

        ctx.state.text = "x" * 2_000_000
        try:
            await ctx.step.run("s", body)
        except StateTooLargeError as error:
            ctx.state.text = "smaller"
            await ctx.step.run("t", body)
            return str(error)
        return ""

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        text = await handle.result()
        steps = await simulation.client.get_steps(handle.id)
        assert (await handle.state() or {})["text"] == "smaller"
    assert "'text'" in text
    assert ran == ["body"]
    assert [step["step_key"] for step in steps] == ["t"]


async def test_state_3_a_body_that_makes_it_too_large_fails_without_retry() -> None:
    ran: list[str] = []
    caught: list[list[Any]] = []

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> str:
        async def body() -> None:
            ran.append("body")
            ctx.state.text = "x" * 2_000_000

        try:
            await ctx.step.run("s", body)
        except StateTooLargeError as error:
            caught.append([str(error), error.field, error.size, error.limit, error.step_key])
        return ctx.state.text

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == ""
        steps = await simulation.client.get_steps(handle.id)
        journal = await JournalFile.of(simulation.client, handle.id)
    assert ran == ["body"]
    assert [(step["step_key"], step["status"]) for step in steps] == [("s", "failed")]
    await replay(journal)
    assert caught[0] == caught[1]
    assert caught[0][1] == "text"
    assert caught[0][4] == "s"


async def test_state_3_at_the_end_it_fails_and_the_last_good_state_stays() -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        ctx.state.count = 1
        await ctx.step.run("s", noop)
        ctx.state.count = 2
        ctx.state.text = "x" * 2_000_000

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        with pytest.raises(ExecutionFailedError, match="'text'"):
            await handle.result()
        state = await handle.state() or {}
    assert (state["count"], state["text"]) == (1, "")


async def test_state_3_a_commit_that_finds_it_too_large_keeps_its_outcome() -> None:
    go = asyncio.Event()

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> str:
        async def grow() -> None:
            ctx.state.text = "x" * 2_000_000
            go.set()
            await asyncio.Event().wait()

        other = asyncio.create_task(grow())
        await ctx.step.run("s", go.wait)
        other.cancel()
        ctx.state.text = "small"
        return ctx.state.text

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == "small"
        steps = await simulation.client.get_steps(handle.id)
    assert [step["status"] for step in steps] == ["completed"]


# -- 4: initial state -------------------------------------------------------------------------


@pytest.mark.parametrize("as_dict", [True, False])
async def test_state_4_initial_state_is_accepted_by_every_way_of_starting(as_dict: bool) -> None:
    given: Any = {"count": 7} if as_dict else Tally(count=7)

    @workflow(state_schema=Tally)
    async def leaf(ctx: WorkflowContext) -> int:
        assert ctx.state.notes == []
        ctx.state.notes.append("mine alone")
        return ctx.state.count

    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        batch = [BatchWorkflowInput(id="leaf", initial_state=given)]
        handle = await ctx.step.invoke("a", leaf, initial_state=given)
        (other,) = await ctx.step.batch_invoke("b", batch)
        one = await ctx.step.invoke_and_wait("c", leaf, initial_state=given)
        (two,) = await ctx.step.batch_invoke_and_wait("d", batch)
        return [one, two.result, handle.id, other.id]

    async with Simulation() as simulation:
        client = simulation.client
        assert await leaf(client, initial_state=given) == 7
        assert await leaf.run(client, initial_state=given) == 7
        assert await (await leaf.invoke(client, initial_state=given)).result() == 7
        assert await (await client.invoke("leaf", initial_state=given)).result() == 7
        batch = [BatchWorkflowInput(id="leaf", initial_state=given)]
        assert [await h.result() for h in await client.batch_invoke(batch)] == [7]
        one, two, *ids = await parent(client)
        assert [one, two] == [7, 7]
        assert [await client.get_handle(each).result() for each in ids] == [7, 7]
    if not as_dict:
        assert given == Tally(count=7)


async def test_state_4_validated_before_anything_is_stored() -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        pass

    @workflow
    async def plain(ctx: WorkflowContext) -> None:
        pass

    async with Simulation() as simulation:
        with pytest.raises(InvalidStateError, match="count"):
            await code.invoke(simulation.client, initial_state={"count": "many"})
        with pytest.raises(InvalidStateError):
            await plain.invoke(simulation.client, initial_state={"count": 1})
        with pytest.raises(InvalidStateError):
            await simulation.client.batch_invoke(
                [
                    BatchWorkflowInput(id="code"),
                    BatchWorkflowInput(id="code", initial_state={"count": "many"}),
                ]
            )
        assert await simulation.client.list_executions() == []


class Bounded(WorkflowState):
    good: int = 0
    marks: list[Annotated[int, Field(le=5)]] = []
    free: Any = None


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


UNFIT: dict[str, Callable[[Bounded], Any]] = {
    "a broken bound": lambda state: state.marks.append(99),
    "too many digits": lambda state: setattr(state, "free", 10**5000),
    "too deep": lambda state: setattr(state, "free", _nested(250)),
}


@pytest.mark.parametrize("change", UNFIT)
@pytest.mark.parametrize("how", ["asks", "ends", "raises", "renews", "is beside a step"])
async def test_state_what_does_not_fit_is_never_recorded(how: str, change: str) -> None:
    """It is put there in place, past the validation of assignments."""

    @workflow(state_schema=Bounded)
    async def code(ctx: WorkflowContext) -> None:
        ctx.state.good = 1
        await ctx.step.run("first", noop)
        beside = asyncio.ensure_future(ctx.step.run("beside", turns, 50))
        await asyncio.sleep(0)
        UNFIT[change](ctx.state)
        if how == "is beside a step":
            await beside
        if how == "raises":
            raise ValueError("no such luck")
        if how == "renews":
            ctx.continue_as_new(None)
        if how != "ends":
            await ctx.step.run("last", noop)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        with pytest.raises(ExecutionFailedError, match="luck" if how == "raises" else "does not"):
            await handle.result()
        assert await handle.state() == {"good": 1, "marks": [], "free": None}
        assert [each["state"]["good"] for each in await handle.state_history()] == [0, 1]


@pytest.mark.parametrize("in_body", [False, True])
async def test_state_4_none_is_no_state_and_loses_nothing(in_body: bool) -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        ctx.state.count = 3

        def forget() -> None:
            ctx.state = None

        wanted = StepExecutionError if in_body else InvalidStateError

        async def ask() -> None:
            await ctx.step.run("s", forget, max_retries=0) if in_body else forget()

        with pytest.raises(wanted, match=r"ctx\.state = None: expected an instance"):
            await ask()
        return ctx.state.count

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == 3
        assert (await handle.state() or {})["count"] == 3


async def test_state_4_defaults_fill_the_rest_and_are_not_shared() -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[str]:
        ctx.state.notes.append("x")
        return ctx.state.notes

    async with Simulation() as simulation:
        for _ in range(2):
            assert await code(simulation.client, initial_state={"count": 1}) == ["x"]
            assert await code(simulation.client) == ["x"]


async def test_a_start_whose_caller_gave_up_is_run_or_not_stored(tmp_path: Any) -> None:
    ended: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        ended.append(ctx.execution_id)

    async with PolosClient(f"sqlite:///{tmp_path}/a.db?commit=thread") as client:
        await code.run(client)  # the worker is there
        for moment in range(1, 12):
            task = asyncio.create_task(code.invoke(client))
            await turns(moment)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    # Closing writes what is on its way; what had not begun then begins with the next client.
    async with PolosClient(f"sqlite:///{tmp_path}/a.db") as client:
        await code.run(client)
        stored = [each["id"] for each in await client.list_executions(workflow_id="code")]
        assert 2 < len(stored) <= 13
        await until(lambda: set(ended) >= set(stored), 200_000)
        assert set(ended) == set(stored)


async def test_state_2_in_tests_a_state_that_would_come_back_otherwise_fails() -> None:
    class Loose(WorkflowState):
        anything: Any = None

    @workflow(state_schema=Loose)
    async def code(ctx: WorkflowContext, where: str) -> None:
        if where == "step":
            ctx.state.anything = {1, 2}
        await ctx.step.run("a", noop)
        if where == "end":
            ctx.state.anything = datetime(2030, 1, 1, tzinfo=UTC)

    async with Simulation() as simulation:
        await code(simulation.client, "nowhere")
        for where in ("step", "end"):
            with pytest.raises(ExecutionFailedError, match="'anything' of Loose would come back"):
                await code(simulation.client, where)
    async with Simulation(prove_state=False) as simulation:
        await code(simulation.client, "step")
