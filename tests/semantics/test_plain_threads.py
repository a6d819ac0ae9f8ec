"""Plain workflows have a thread each while they live; who only waits gives it up for others."""

from typing import Any

from polos import WorkflowContext, workflow
from tests.sim.helpers import by_hand, pass_time, turns


async def test_those_that_wait_give_their_threads_up() -> None:
    sealed: list[str] = []

    @workflow(id="threads.asks")
    def asks(ctx: WorkflowContext, n: int) -> int:
        step: Any = ctx.step
        try:
            return step.suspend("q")["data"]["n"] + n
        except BaseException as error:
            sealed.append(type(error).__name__)
            raise

    async with by_hand() as simulation:
        client, plain = simulation.client, simulation.node.runner.plain
        plain.threads.size = 2
        handles = [await asks.invoke(client, n) for n in range(5)]
        while len(await client.list_suspensions()) < 5:
            await turns()
        while len(sealed) < 3:
            await turns()
        assert set(sealed) == {"AttemptSealed"}
        for handle in handles:
            await handle.resume("q", {"n": 10})
        assert [await handle.result() for handle in handles] == [10, 11, 12, 13, 14]
        assert plain.threads.abandoned == 0


async def test_parents_that_wait_for_children_leave_them_a_thread() -> None:
    @workflow(id="threads.child")
    def child(ctx: WorkflowContext, n: int) -> int:
        step: Any = ctx.step
        return step.run("one", int, n)

    @workflow(id="threads.parent")
    def parent(ctx: WorkflowContext, n: int) -> int:
        step: Any = ctx.step
        step.wait_for("until all are there", seconds=60)
        return step.invoke_and_wait("child", child, n)

    async with by_hand() as simulation:
        simulation.node.runner.plain.threads.size = 2
        handles = [await parent.invoke(simulation.client, n) for n in range(4)]
        await turns()
        await pass_time(simulation, 70)
        assert [await handle.result() for handle in handles] == [0, 1, 2, 3]
