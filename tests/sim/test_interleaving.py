"""Before each transaction the world acts: time jumps, a cancel comes, another worker takes over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from polos import StepExecutionError, WorkflowContext, workflow
from polos.errors import PolosError
from polos.store.lining import Lining
from polos.store.postgres.store import PostgresStore
from polos.store.sqlite import verbs
from polos.store.sqlite.store import CRASHES_MAX, MemoryDatabase
from polos.testing import Outcome, Simulation
from polos.testing.postgres import PostgresDatabase
from polos.testing.sweep import observe
from tests.sim.conftest import Fresh
from tests.sim.effect_programs import PROGRAMS as EFFECT_PROGRAMS
from tests.sim.helpers import by_hand, pass_time, status_of
from tests.sim.programs import Program, build, sorted_notes

TEN_DAYS = 864_000.0
TERMINAL = {"completed", "failed", "cancelled"}
Act = Callable[[Any], Awaitable[None] | None]


class World:
    """A running program, and what can be done to it from outside."""

    def __init__(self, simulation: Simulation, program: Program) -> None:
        assert isinstance(simulation.database, MemoryDatabase)
        self.simulation = simulation
        self.program = program
        self.connection = simulation.database.connection
        self.effects_before = 0
        self.recorded: set[str] = set()

    def jump(self) -> None:
        """Let ten days pass."""
        self.simulation.clock.jump(TEN_DAYS)

    def cancel(self) -> None:
        """Cancel the root, as another process would."""
        roots = "SELECT id FROM execution WHERE parent_id IS NULL"
        found: list[Any] = self.connection.execute(roots).fetchall()
        for (execution_id,) in found:
            with self.connection:
                told = verbs.cancel(
                    self.connection, execution_id, self.simulation.clock.now(), Lining()
                )
            ring = self.simulation.node.runner.on_cancel
            asyncio.get_running_loop().call_soon(ring, list(told))

    def take_over(self) -> None:
        """Declare the worker dead, as another one would that saw it frozen."""
        worker_id = self.simulation.node.engine.worker_id
        if worker_id is None:
            return
        with self.connection:
            verbs.stop_worker(
                self.connection,
                worker_id,
                self.simulation.clock.now(),
                crashed=True,
                crashes_max=CRASHES_MAX,
            )
        self.note()

    def note(self) -> None:
        """Note what is recorded by now."""
        found = self.connection.execute("SELECT key FROM step WHERE turn IS NOT NULL")
        self.recorded = {str(key) for (key,) in found}
        self.effects_before = len(self.program.effects)


class RemoteWorld:
    """The same on a server: others act over connections of their own."""

    def __init__(
        self, simulation: Simulation, program: Program, database: PostgresDatabase
    ) -> None:
        self.simulation = simulation
        self.program = program
        self.database = database
        self.effects_before = 0
        self.recorded: set[str] = set()

    def jump(self) -> None:
        """Let ten days pass."""
        self.simulation.clock.jump(TEN_DAYS)

    @contextlib.asynccontextmanager
    async def _other(self) -> AsyncIterator[PostgresStore]:
        other = self.database.make_store()
        try:
            await other.open()
            yield other
        finally:
            other.kill()  # whoever waited for it may have been cancelled

    async def cancel(self) -> None:
        """Cancel the root, as another process would."""
        async with self._other() as other:
            for each in await other.listing({}, -1):
                if each.parent_id is None:
                    told = await other.cancel(each.id, self.simulation.clock.now())
                    self.simulation.node.runner.on_cancel(list(told))

    async def take_over(self) -> None:
        """Declare the worker dead, as another one would that saw it frozen."""
        worker_id = self.simulation.node.engine.worker_id
        if worker_id is None:
            return
        async with self._other() as other:
            await other.stop_worker(worker_id, self.simulation.clock.now(), crashed=True)
        self.recorded = await self.database.recorded()
        self.effects_before = len(self.program.effects)


async def run(
    name: str,
    number: int | None,
    act: Act | None,
    *,
    second: bool = False,
    fresh: Fresh | None = None,
) -> tuple[Outcome, int, list[str]]:
    """Run a program; ahead of its transaction `number` the world acts.

    Returns the outcome, the number of transactions, and the statuses of all executions.
    """
    program = EFFECT_PROGRAMS[name]() if name in EFFECT_PROGRAMS else build(name)
    transactions = 0
    database = MemoryDatabase() if fresh is None else await fresh()
    async with contextlib.AsyncExitStack() as stack:
        simulation = await stack.enter_async_context(Simulation(database=database))
        if second:
            await stack.enter_async_context(Simulation(database=database, clock=simulation.clock))
        program.on_open(simulation)
        world = (
            World(simulation, program)
            if isinstance(database, MemoryDatabase)
            else RemoteWorld(simulation, program, database)
        )

        def gate(moment: str) -> Awaitable[None] | None:
            nonlocal transactions
            if moment == "begin":
                transactions += 1
                if transactions == number and act is not None:
                    return act(world)
            return None

        handle = await program.start(simulation.client)
        simulation.on_transaction(gate)
        outcome = await observe(simulation, handle)
        simulation.on_transaction(None)
        everybody = await simulation.client.list_executions(limit=1000)
        async with asyncio.timeout(100):
            for each in everybody:  # a child that was not awaited may still run
                with contextlib.suppress(PolosError):
                    await simulation.client.get_handle(each["id"]).result()
        everybody = await simulation.client.list_executions(limit=1000)
        outcome.effects = list(program.effects)
        outcome.before_death, outcome.recorded = world.effects_before, world.recorded
    if program.normalize is not None and outcome.status != "cancelled":
        program.normalize(outcome)
    return outcome, transactions, [each["status"] for each in everybody]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level("CRITICAL", "polos"):
        yield


def same(outcome: Outcome, expected: Outcome) -> None:
    assert outcome.status == expected.status
    assert outcome.result == expected.result
    assert outcome.error == expected.error
    assert outcome.state == expected.state
    assert closed(outcome) == closed(expected)


def closed(outcome: Outcome) -> dict[str, object]:
    """Leave out the losers of races, which have a row if they ran for long enough."""
    return {k: step for k, step in outcome.steps.items() if not (step and step[0] == "cancelled")}


def unordered(outcome: Outcome) -> None:
    """Forget the order of what ran beside waits: it depends on the time."""
    if isinstance(outcome.result, list):
        outcome.result = sorted(map(str, outcome.result))
    sorted_notes(outcome)


@pytest.mark.parametrize(
    "name", ["sequential", "gathered", "branches", "racing", "children", "waits", "retries"]
)
async def test_ten_days_pass_before_any_transaction(name: str) -> None:
    expected, transactions, _ = await run(name, None, None)
    unordered(expected)
    for number in range(1, transactions + 1):
        outcome, _, statuses = await run(name, number, World.jump)
        unordered(outcome)
        same(outcome, expected)
        assert outcome.effects.count("after") == expected.effects.count("after")
        assert set(statuses) <= TERMINAL


@pytest.mark.parametrize(
    "name",
    [
        "sequential",
        "gathered",
        "branches",
        "racing",
        "children",
        "waits",
        "retries",
        "failures",
        "patched",
        "hearing",
        "streaming",
        "asking",
    ],
)
async def test_a_cancel_comes_before_any_transaction(name: str) -> None:
    expected, transactions, _ = await run(name, None, None)
    cancelled = 0
    for number in range(1, transactions + 1):
        outcome, _, statuses = await run(name, number, World.cancel)
        assert set(statuses) <= TERMINAL
        if outcome.status == "cancelled":
            cancelled += 1
        else:
            same(outcome, expected)
    if name != "sequential":  # which never lets the event loop turn: it has ended before
        assert cancelled >= transactions // 2


@pytest.mark.parametrize(
    "name",
    [
        "sequential",
        "threads",
        "gathered",
        "branches",
        "completed",
        "racing",
        "close_race",
        "children",
        "waits",
        "retries",
        "failures",
        "by_chance",
        "hooked",
        "timeouts",
        "cancelled",
        "patched",
        "hearing",
        "streaming",
        "asking",
    ],
)
async def test_another_worker_takes_over_before_any_transaction(name: str) -> None:
    expected, transactions, _ = await run(name, None, None)
    for number in range(1, transactions + 1):
        outcome, _, statuses = await run(name, number, World.take_over, second=True)
        same(outcome, expected)
        assert not outcome.repeated
        assert all(effect in outcome.effects for effect in expected.effects)
        assert set(statuses) <= TERMINAL


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sequential", "racing", "children", "waits", "retries"])
async def test_ten_days_pass_before_any_transaction_on_postgres(name: str, postgres: Fresh) -> None:
    expected, transactions, _ = await run(name, None, None, fresh=postgres)
    unordered(expected)
    for number in range(1, transactions + 1):
        outcome, _, statuses = await run(name, number, RemoteWorld.jump, fresh=postgres)
        unordered(outcome)
        same(outcome, expected)
        assert outcome.effects.count("after") == expected.effects.count("after")
        assert set(statuses) <= TERMINAL


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["gathered", "branches", "children", "waits", "failures", "asking", "hearing", "streaming"],
)
async def test_a_cancel_comes_before_any_transaction_on_postgres(
    name: str, postgres: Fresh
) -> None:
    expected, transactions, _ = await run(name, None, None, fresh=postgres)
    cancelled = 0
    for number in range(1, transactions + 1):
        outcome, _, statuses = await run(name, number, RemoteWorld.cancel, fresh=postgres)
        assert set(statuses) <= TERMINAL
        if outcome.status == "cancelled":
            cancelled += 1
        else:
            same(outcome, expected)
    assert cancelled >= transactions // 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "sequential",
        "gathered",
        "racing",
        "children",
        "waits",
        "retries",
        "cancelled",
        "asking",
        "hearing",
        "streaming",
    ],
)
async def test_another_worker_takes_over_before_any_transaction_on_postgres(
    name: str, postgres: Fresh
) -> None:
    expected, transactions, _ = await run(name, None, None, fresh=postgres)
    for number in range(1, transactions + 1):
        outcome, _, statuses = await run(
            name, number, RemoteWorld.take_over, second=True, fresh=postgres
        )
        same(outcome, expected)
        assert not outcome.repeated
        assert all(effect in outcome.effects for effect in expected.effects)
        assert set(statuses) <= TERMINAL


@pytest.mark.parametrize("name", ["saga", "cancelled_saga", "reconciled", "transacted"])
async def test_another_worker_takes_effects_over_before_any_transaction(name: str) -> None:
    await takes_over(name, World.take_over)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["saga", "cancelled_saga", "reconciled", "transacted"])
async def test_another_worker_takes_effects_over_before_any_transaction_on_postgres(
    name: str, postgres: Fresh
) -> None:
    await takes_over(name, RemoteWorld.take_over, postgres)


async def takes_over(name: str, act: Act, fresh: Fresh | None = None) -> None:
    expected, transactions, _ = await run(name, None, None, fresh=fresh)
    for number in range(1, transactions + 1):
        outcome, _, statuses = await run(name, number, act, second=True, fresh=fresh)
        same(outcome, expected)
        assert not outcome.repeated
        assert all(effect in outcome.effects for effect in expected.effects)
        assert set(statuses) <= TERMINAL
        in_reverse(name, outcome)


@pytest.mark.parametrize("name", ["saga", "saga_that_cannot", "cancelled_saga", "reconciled"])
async def test_a_cancel_comes_before_any_transaction_of_effects(name: str) -> None:
    _, transactions, _ = await run(name, None, None)
    for number in range(1, transactions + 1):
        outcome, _, statuses = await run(name, number, World.cancel)
        assert set(statuses) <= TERMINAL
        in_reverse(name, outcome)


def in_reverse(name: str, outcome: Outcome) -> None:
    """All that a saga recorded was undone, the last first, and nothing else was."""
    if "saga" not in name:
        return
    undone = [key for key in outcome.steps if key.startswith("compensate.")]
    done = [
        key for key, (status, _) in outcome.steps.items() if len(key) == 1 and status == "completed"
    ]
    assert undone == [f"compensate.{key}" for key in reversed(done)], name


async def test_a_childs_end_that_comes_just_before_the_parent_waits_is_seen() -> None:
    """Another process ends the child ahead of the commit that sets the parent to waiting."""
    go = asyncio.Event()
    ended: list[str] = []

    @workflow(id="child")
    async def child(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("w", days=1)

    @workflow(id="parent")
    async def parent(ctx: WorkflowContext) -> str:
        try:
            await asyncio.gather(
                ctx.step.invoke_and_wait("c", child), ctx.step.run("body", go.wait)
            )
        except StepExecutionError as error:
            return str(error)
        return ""

    async with by_hand(concurrency=1) as simulation:
        assert isinstance(simulation.database, MemoryDatabase)
        connection = simulation.database.connection

        def gate(moment: str) -> None:
            if moment != "begin" or not go.is_set() or ended:
                return
            closed = connection.execute("SELECT 1 FROM step WHERE key = 'body' AND ok").fetchall()
            if closed:
                children = "SELECT id FROM execution WHERE workflow_id = 'child'"
                found: list[Any] = connection.execute(children).fetchall()
                ((id_,),) = found
                ended.append(id_)
                with connection:
                    verbs.cancel(connection, id_, simulation.clock.now(), Lining())

        handle = await parent.invoke(simulation.client)
        simulation.on_transaction(gate)
        await pass_time(simulation, 1)
        go.set()
        await pass_time(simulation, 5)
        assert ended
        assert await status_of(simulation, handle.id) == "completed"
        assert await handle.result() == "Execution cancelled"


async def test_a_cancel_that_comes_just_before_the_execution_waits_is_seen() -> None:
    cleaned: list[float] = []

    @workflow(id="waiter")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("before", asyncio.sleep, 0)
        try:
            await ctx.step.wait_for("w", days=1)
        finally:
            cleaned.append(simulation.clock.monotonic())

    async with by_hand() as simulation:
        assert isinstance(simulation.database, MemoryDatabase)
        connection = simulation.database.connection
        told: list[str] = []

        def gate(moment: str) -> None:
            steps = connection.execute("SELECT count(*) FROM step").fetchall()
            if moment == "begin" and steps == [(1,)] and not told:
                told.append("cancel")
                with connection:
                    verbs.cancel(connection, handle.id, simulation.clock.now(), Lining())

        handle = await code.invoke(simulation.client)
        simulation.on_transaction(gate)
        await pass_time(simulation, 5)
        assert told
        assert await status_of(simulation, handle.id) == "cancelled"
    assert len(cleaned) == 1
