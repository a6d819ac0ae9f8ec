"""What the subprocesses of these tests run: `program.py MODE URL FOLDER [NAME]`."""

# Files are what two processes can watch.
# ruff: noqa: ASYNC110

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from polos import (
    ExecutionFailedError,
    Polos,
    PolosClient,
    StepExecutionError,
    Worker,
    WorkflowContext,
    WorkflowState,
)
from polos import workflow as workflow_decorator
from polos.store.postgres import committer, links

MODE, URL = sys.argv[1:3]
FOLDER = Path(sys.argv[3])
NAME = sys.argv[4] if len(sys.argv) > 4 else "job"


def note(text: str) -> None:
    """Leave a line that nobody can take back: the effect of a step."""
    with (FOLDER / "effects").open("ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


def workflow(*args: Any, **kwargs: Any) -> Any:
    """Register a workflow, unless this process only looks."""
    return (lambda function: function) if MODE == "look" else workflow_decorator(*args, **kwargs)


class Tally(WorkflowState):
    done: int = 0
    before: int = 0
    log: list[str] = []
    nested: dict[str, list[int]] = {}


@workflow(id="tally", state_schema=Tally)
async def tally(ctx: WorkflowContext, name: str) -> dict[str, Any]:
    async def body(key: str) -> str:
        note(f"{name} {key}")
        ctx.state.done += 1
        ctx.state.log.append(key)
        await asyncio.sleep(0.001)
        return key.upper()

    def plain(key: str) -> str:
        note(f"{name} {key}")
        return key

    async def broken() -> None:
        note(f"{name} broken")
        raise OSError("no luck")

    results: list[Any] = []
    for n in range(12):
        ctx.state.before += 1
        results.append(await ctx.step.run(f"s{n}", body, f"s{n}"))
        ctx.state.nested.setdefault("odd" if n % 2 else "even", []).append(n)
    results.append(await ctx.step.run("plain", plain, "plain"))
    try:
        await ctx.step.run("broken", broken, max_retries=1, base_delay=0.005)
    except StepExecutionError as error:
        results.append(str(error))
    await ctx.step.wait_for("pause", seconds=0.01)
    results += await asyncio.gather(
        ctx.step.run("a", body, "a"),
        ctx.step.run("b", plain, "b"),
        ctx.step.invoke_and_wait("child", leaf, name, initial_state={"done": 100}),
    )
    for n in range(12, 20):
        results.append(await ctx.step.run(f"s{n}", body, f"s{n}"))
    return {"results": results, "done": ctx.state.done, "before": ctx.state.before}


@workflow(id="leaf", state_schema=Tally)
async def leaf(ctx: WorkflowContext, name: str) -> int:
    def body(n: int) -> int:
        note(f"{name} leaf{n}")
        return n

    for n in range(4):
        ctx.state.done += await ctx.step.run(f"leaf{n}", body, n)
    return ctx.state.done


@workflow(id="held")
async def held(ctx: WorkflowContext) -> int:
    async def body() -> int:
        note(f"begin {os.getpid()}")
        while not ((FOLDER / "go").exists() or (FOLDER / f"go-{os.getpid()}").exists()):
            await asyncio.sleep(0.02)
        note(f"end {os.getpid()}")
        return os.getpid()

    await ctx.step.run("first", note, "first")
    pid = await ctx.step.run("body", body)
    await ctx.step.run("last", note, "last")
    return pid


@workflow(id="asleep")
async def asleep(ctx: WorkflowContext) -> None:
    await ctx.step.wait_for("long", days=1)


@workflow(id="asked")
async def asked(ctx: WorkflowContext) -> list[Any]:
    """Ask twice, and say who got the answers."""
    await ctx.step.run("first", note, "first")
    one = await ctx.step.suspend("one", {"ask": 1}, timeout=600)
    two = await ctx.step.suspend("two")
    await ctx.step.run("last", note, f"last {os.getpid()}")
    return [one["data"], two["data"]]


@workflow(id="trip", state_schema=Tally)
async def trip(ctx: WorkflowContext) -> None:
    """Do six things, fail, and undo them; so slowly that it can be killed in between."""

    async def do(key: str) -> str:
        note(f"do {key}")
        ctx.state.done += 1
        return key.upper()

    async def undo(key: str) -> None:
        note(f"undo {key}")
        ctx.state.done -= 1
        await asyncio.sleep(0.01)

    async def full() -> None:
        note("full")
        raise OSError("no seats")

    for key in "abcdef":
        await ctx.step.run(key, do, key, compensate=undo)
    await ctx.step.run("full", full, max_retries=0)


@workflow(id="owned")
async def owned(ctx: WorkflowContext, name: str) -> int:
    async def body(n: int) -> None:
        note(f"{name}.{n} {os.getpid()}")
        await asyncio.sleep(0.005)

    for n in range(3):
        await ctx.step.run(f"s{n}", body, n)
        await ctx.step.wait_for(f"w{n}", seconds=0.01)
    return os.getpid()


def show(value: Any) -> None:
    print(json.dumps(value), flush=True)


async def run() -> None:
    """Start `tally` once, whoever runs it, and show its result."""
    async with PolosClient(URL) as client:
        handle = await tally.invoke(client, NAME, idempotency_key=NAME)
        result = await handle.result()
        (child,) = await client.list_executions(parent_execution_id=handle.id)
        show([result, await handle.state(), child["state"]])


async def start_held(client: Any) -> Any:
    await asleep.invoke(client, idempotency_key="asleep")
    return await held.invoke(client, idempotency_key="held")


async def within() -> None:
    async with PolosClient(URL) as client:
        show(await (await start_held(client)).result())


async def halting() -> None:
    """Freeze between the statements and the commit that record the end of the body."""
    client = PolosClient(URL)
    node: Any = await client.node()
    ended = f"end {os.getpid()}\n"

    def gate(moment: str) -> None:
        if moment == "before" and ended in (FOLDER / "effects").read_text():
            node.store.gate = None
            os.kill(os.getpid(), signal.SIGSTOP)

    handle = await start_held(client)
    node.store.gate = gate
    show(await handle.result())
    await client.close()


async def ask() -> None:
    async with PolosClient(URL) as client:
        show(await (await asked.invoke(client, idempotency_key="asked")).result())


async def saga() -> None:
    """Run the trip to its end, whoever began it, and show how it ended."""
    async with PolosClient(URL) as client:
        handle = await trip.invoke(client, idempotency_key="trip")
        try:
            await handle.result()
        except ExecutionFailedError as error:
            shown = await client.get_execution(handle.id)
            show([error.error, shown["not_compensated"], await handle.state()])


async def left() -> None:
    client = PolosClient(URL)
    show(await (await start_held(client)).result())


async def dropped() -> None:
    """End with a step running, without a word to the client."""
    client = PolosClient(URL)
    await start_held(client)
    effects = FOLDER / "effects"
    while not effects.exists() or f"begin {os.getpid()}" not in effects.read_text():
        await asyncio.sleep(0.02)


async def serve(drain_seconds: float = 10.0) -> None:
    polos = Polos(url=URL, drain_seconds=drain_seconds)
    await polos.start()
    serving = asyncio.create_task(polos.serve())
    handled: Any = getattr(asyncio.get_running_loop(), "_signal_handlers")  # noqa: B009 - private
    while signal.SIGTERM not in handled:
        await asyncio.sleep(0.01)
    await start_held(polos)
    await serving


async def patient() -> None:
    """Serve; a statement without an answer is not given up by itself."""
    links.COMMAND_SECONDS = 3600.0
    committer.CLOSING_SECONDS = 1.0
    await serve(drain_seconds=0.5)


async def idle() -> None:
    await Polos(url=URL).serve()


async def work() -> None:
    """Start thirty of its own and take the queue, until all of everybody's have ended."""
    client = PolosClient(URL)
    worker = Worker(client=client, max_concurrent_workflows=10)
    serving = asyncio.create_task(worker.run())
    handles = [await owned.invoke(client, f"{NAME}{n}") for n in range(30)]
    show([await handle.result() for handle in handles])
    await worker.shutdown()
    await serving


async def look() -> None:
    async with PolosClient(URL) as client:
        show([e["status"] for e in await client.list_executions(limit=1000)])
        (FOLDER / f"looking-{os.getpid()}").touch()
        while not (FOLDER / "looked").exists():
            await asyncio.sleep(0.05)
        for each in await client.list_executions(limit=1000):
            await client.get_steps(each["id"])


if __name__ == "__main__":
    asyncio.run(globals()[MODE]())
