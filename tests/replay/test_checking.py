"""What the check of live executions says of code that fits, and of code that does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from polos import WorkflowContext, WorkflowState, workflow
from polos.core.model import Execution, Status, Work
from polos.errors import PolosError
from polos.store.sqlite import queries
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import Simulation
from polos.testing.checking import Checker, Verdict
from polos.workflow import registry
from tests.sim.programs import PROGRAMS, build

OK = Verdict("ok")
Code = Callable[[WorkflowContext], Awaitable[Any]]


async def noop(*args: Any) -> None:
    pass


class Recorder:
    """Keeps every journal that a live execution ever had: one after each commit."""

    def __init__(self, simulation: Simulation) -> None:
        database = simulation.database
        assert database is not None
        self._connection = database.connection
        self.seen: dict[str, Work] = {}

    def __call__(self, moment: str) -> None:
        found: list[Any] = self._connection.execute("SELECT id FROM execution").fetchall()
        for (id_,) in found if moment == "after" else ():
            record = queries.execution(self._connection, id_)
            assert record is not None
            if record.status in {Status.QUEUED, Status.RUNNING, Status.WAITING}:
                rows = queries.steps(self._connection, record.root_id, id_)
                states = queries.states(self._connection, record.root_id, id_)
                work = Work(record, rows, states, [])
                self.seen.setdefault(repr(work), work)

    @property
    def works(self) -> list[Work]:
        return list(self.seen.values())


async def recorded(*codes: Code, **options: Any) -> list[Work]:
    """Run workflows to their end; return all journals that they had on the way."""
    async with Simulation(database=MemoryDatabase()) as simulation:
        recorder = Recorder(simulation)
        simulation.on_transaction(recorder)
        for code in codes:
            defined = workflow(id=code.__name__, **options)(code)
            await (await defined.invoke(simulation.client)).result()
        simulation.on_transaction(None)
    return recorder.works


async def checked(works: list[Work]) -> list[Verdict]:
    async with Checker(registry.default) as checker:
        return [await checker.check(work.execution, work) for work in works]


async def verdict_of(old: Code, new: Code, **options: Any) -> Verdict:
    """Check the last journal that an execution of the old code had before its end."""
    works = await recorded(old, **options)
    registry.default = registry.Registry()
    workflow(id=old.__name__, **options)(new)
    return (await checked(works[-1:]))[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
async def test_the_code_that_recorded_a_journal_fits_it_wherever_it_stands(name: str) -> None:
    program = build(name)
    async with Simulation(database=MemoryDatabase()) as simulation:
        program.on_open(simulation)
        recorder = Recorder(simulation)
        simulation.on_transaction(recorder)
        handle = await program.start(simulation.client)
        with contextlib.suppress(PolosError):  # what fails or is cancelled has journals as well
            await handle.result()
        simulation.on_transaction(None)
    assert len(recorder.works) >= 2
    effects = len(program.effects)
    for work, verdict in zip(recorder.works, await checked(recorder.works), strict=True):
        assert verdict.verdict == "ok", (verdict, [row.key for row in work.rows])
    assert len(program.effects) == effects


# -- sequential code --------------------------------------------------------------------------


async def straight(ctx: WorkflowContext) -> None:
    await ctx.step.run("a", noop)
    await ctx.step.run("b", noop)
    await ctx.step.wait_for("nap", hours=1)


async def longer(ctx: WorkflowContext) -> None:
    await straight(ctx)
    await ctx.step.run("c", noop)


async def inserted(ctx: WorkflowContext) -> None:
    await ctx.step.run("a", noop)
    await ctx.step.run("new", noop)
    await ctx.step.run("b", noop)
    await ctx.step.wait_for("nap", hours=1)


async def before_the_wait(ctx: WorkflowContext) -> None:
    await ctx.step.run("a", noop)
    await ctx.step.run("b", noop)
    await ctx.step.run("new", noop)
    await ctx.step.wait_for("nap", hours=1)


async def removed(ctx: WorkflowContext) -> None:
    await ctx.step.run("b", noop)
    await ctx.step.wait_for("nap", hours=1)


async def removed_at_the_end(ctx: WorkflowContext) -> None:
    await ctx.step.run("a", noop)


async def other_kind(ctx: WorkflowContext) -> None:
    await ctx.step.run("a", noop)
    await ctx.step.uuid("b")


async def caught(ctx: WorkflowContext) -> None:
    await ctx.step.run("a", noop)
    try:
        await ctx.step.uuid("b")
    except Exception:
        await ctx.step.wait_for("nap", hours=1)


async def broken(ctx: WorkflowContext) -> None:
    await ctx.step.run("a", noop)
    raise KeyError("total")


async def patched(ctx: WorkflowContext) -> None:
    await ctx.step.run("a", noop)
    if ctx.patched("change"):
        await ctx.step.run("new", noop)
    else:
        await ctx.step.run("b", noop)
    await ctx.step.wait_for("nap", hours=1)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (straight, OK),
        (longer, OK),
        (patched, OK),
        (
            inserted,
            Verdict(
                "diverges", "new", "the code asks for it where the journal goes on with step 'b'"
            ),
        ),
        (
            before_the_wait,
            Verdict(
                "diverges", "new", "the code asks for it where the journal goes on with step 'nap'"
            ),
        ),
        (removed, Verdict("diverges", "a", "the code does not ask for it")),
        (
            removed_at_the_end,
            Verdict("diverges", "b", "it returned without asking for the recorded step 'b'"),
        ),
        (other_kind, Verdict("diverges", "b", "was recorded as run, the code now asks for uuid")),
        (caught, Verdict("diverges", "b", "was recorded as run, the code now asks for uuid")),
        (broken, Verdict("diverges", "b", "the code fails without asking for it: 'total'")),
    ],
)
async def test_sequential_code(code: Code, expected: Verdict) -> None:
    assert await verdict_of(straight, code) == expected


async def test_a_plain_function_is_checked_in_its_thread() -> None:
    def plain(ctx: WorkflowContext) -> None:
        step: Any = ctx.step
        step.run("a", noop)
        step.run("new", noop)

    works = await recorded(straight)
    registry.default = registry.Registry()
    workflow(id="straight")(plain)
    (verdict,) = await checked(works[-1:])
    assert (verdict.verdict, verdict.step_key) == ("diverges", "new")


async def test_a_repeated_key_with_another_call() -> None:
    async def old(ctx: WorkflowContext) -> None:
        for n in (1, 2):
            await ctx.step.run("item", noop, n)
        await ctx.step.wait_for("nap", hours=1)

    async def new(ctx: WorkflowContext) -> None:
        for n in (2, 1):
            await ctx.step.run("item", noop, n)

    verdict = await verdict_of(old, new)
    assert (verdict.verdict, verdict.step_key) == ("diverges", "item")
    assert "was recorded as a call of noop" in (verdict.reason or "")


# -- concurrent code --------------------------------------------------------------------------


def branching(*keys: str) -> Code:
    async def branches(ctx: WorkflowContext) -> None:
        async def branch(n: int) -> None:
            for key in keys:
                await ctx.step.run(f"{key}{n}", noop)
            await ctx.step.wait_for(f"nap{n}", hours=n + 1)

        await asyncio.gather(*(branch(n) for n in range(3)))

    return branches


@pytest.mark.parametrize(
    ("keys", "step_key"),
    [(("x", "y"), None), (("x", "new", "y"), "y0"), (("x",), "y0"), (("y",), "x0")],
)
async def test_concurrent_code(keys: tuple[str, ...], step_key: str | None) -> None:
    works = await recorded(branching("x", "y"))
    registry.default = registry.Registry()
    workflow(id="branches")(branching(*keys))
    verdicts = await checked(works)
    last = verdicts[-1]
    assert (last.verdict, last.step_key) == ("ok" if step_key is None else "diverges", step_key)
    assert verdicts[0] == OK  # it had recorded nothing yet


# -- what keeps an execution from beginning ---------------------------------------------------


async def test_a_state_that_no_longer_loads() -> None:
    class Before(WorkflowState):
        count: int = 0

    class After(WorkflowState):
        count: list[str] = []

    async def stateful(ctx: WorkflowContext) -> None:
        ctx.state.count += 1
        await ctx.step.wait_for("nap", hours=1)

    works = await recorded(stateful, state_schema=Before)
    registry.default = registry.Registry()
    workflow(id="stateful", state_schema=After)(stateful)
    (verdict,) = await checked(works[-1:])
    assert (verdict.verdict, verdict.step_key) == ("diverges", None)
    assert (verdict.reason or "").startswith("its state cannot be loaded: ")


async def test_a_payload_that_no_longer_loads() -> None:
    @workflow(id="code")
    async def old(ctx: WorkflowContext, payload: dict[str, int]) -> None:
        await ctx.step.wait_for("nap", hours=1)

    async with Simulation(database=MemoryDatabase()) as simulation:
        recorder = Recorder(simulation)
        simulation.on_transaction(recorder)
        await old(simulation.client, {"n": 1})
        simulation.on_transaction(None)
    registry.default = registry.Registry()

    @workflow(id="code")
    async def new(ctx: WorkflowContext, payload: list[str]) -> None:
        await ctx.step.wait_for("nap", hours=1)

    for verdict in await checked(recorder.works):
        assert verdict.verdict == "diverges"
        assert "Invalid payload" in (verdict.reason or "")


async def test_a_workflow_that_is_not_registered() -> None:
    works = await recorded(straight)
    registry.default = registry.Registry()
    assert {each.verdict for each in await checked(works)} == {"unregistered"}


async def test_neither_the_end_of_its_time_nor_a_cancellation_is_waited_for() -> None:
    works = await recorded(straight, run_timeout_seconds=7200)
    records: list[Execution] = [work.execution for work in works]
    for record in records:
        record.run_timeout_seconds = 0.001
        record.cancel_requested_at = record.created_at
    assert set(await checked(works)) == {OK}
