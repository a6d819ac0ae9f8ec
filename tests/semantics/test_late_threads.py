"""A plain body that waited for its thread while its worker was declared dead is not called."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from polos import Polos, WorkflowContext, workflow


async def test_what_waited_for_a_thread_runs_for_the_living_only(tmp_path: Path) -> None:
    gate = threading.Event()
    first: list[int] = []
    second: list[int] = []

    @workflow(id="late.code")
    async def code(ctx: WorkflowContext) -> None:
        attempt: Any = ctx.attempt

        def blocker() -> None:
            first.append(attempt.number)
            gate.wait(20)

        def late() -> None:
            second.append(attempt.number)

        await asyncio.gather(ctx.step.run("a", blocker), ctx.step.run("b", late))

    async with Polos(url=f"sqlite:///{tmp_path}/polos.db") as client, asyncio.timeout(100):
        node: Any = await client.node()
        runner = node.runner
        runner.threads.size = 1
        handle = await code.invoke(client)
        while not first or runner.threads.busy < 2:  # noqa: ASYNC110 - a thread
            await asyncio.sleep(0)
        await node.store.stop_worker(
            node.engine.worker_id, runner.clock.now(), crashed=True, again=False
        )
        runner.stale_from = 0.0  # as after a freeze
        gate.set()
        await handle.result()
        assert len(first) == 2
        assert second == first[1:]  # not by the attempt that had begun before
