"""A worker of the chaos run: `python -m bench.chaos.program URL FOLDER NAME`.

Each body leaves a line in the process's own file when it begins and before it returns, in one
write that nobody can take back: execution, key, attempt, moment. What it returns names that line.
The name is the director's: in a long run the system gives the id of a process to another one.
"""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from bench.chaos.plan import BRANCHES, BROKEN, LEAF_STEPS, LEAVES, WORDS
from polos import (
    BatchWorkflowInput,
    PolosClient,
    StepExecutionError,
    Worker,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.errors import StoreUnavailableError

URL, FOLDER, NAME = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
CONCURRENCY = 60
_file = os.open(FOLDER / f"effects-{NAME}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode=0o644)
_numbers = itertools.count()


class Book(WorkflowState):
    bodies: int = 0
    code: int = 0
    log: list[str] = []


class Hiccup(OSError):
    """A failure that a retry mends."""


def note(execution: str, key: str | None, chunk: list[Any]) -> None:
    """Write that a chunk of an execution is durable."""
    line = {"phase": "durable", "execution": execution, "key": key, "chunk": chunk}
    os.write(_file, f"{json.dumps(line)}\n".encode())


class Effect:
    """One body: its lines in the file."""

    def __init__(self, ctx: WorkflowContext, key: str) -> None:
        attempt: Any = ctx.attempt
        self.id = f"{NAME}.{next(_numbers)}"
        self.attempt = attempt.number
        self._facts = {
            "id": self.id,
            "execution": ctx.execution_id,
            "key": key,
            "attempt": self.attempt,
        }
        self._write("begin")

    def _write(self, phase: str) -> None:
        line = {**self._facts, "phase": phase, "at": time.time_ns() // 1000}
        os.write(_file, f"{json.dumps(line)}\n".encode())

    def note(self, chunk: list[Any]) -> None:
        """Write that a chunk is durable."""
        note(self._facts["execution"], self._facts["key"], chunk)

    def end(self) -> dict[str, Any]:
        """Write that it ends, and return what the journal will hold."""
        self._write("end")
        return {"key": self._facts["key"], "by": self.id, "attempt": self._facts["attempt"]}


def body(ctx: WorkflowContext, key: str, *, fails: int = 0) -> Callable[[], Awaitable[Any]]:
    """Return a body that fails so many times before it succeeds."""
    left = fails

    async def act() -> dict[str, Any]:
        nonlocal left
        effect = Effect(ctx, key)
        await asyncio.sleep(random.uniform(0, 0.06))
        ctx.state.bodies += 1
        ctx.state.log.append(key)
        if left:
            left -= 1
            raise Hiccup(f"{key}: no luck")
        return effect.end()

    return act


def plain(ctx: WorkflowContext, key: str) -> Callable[[], Any]:
    """Return a body that runs in a thread."""

    def act() -> dict[str, Any]:
        effect = Effect(ctx, key)
        ctx.state.bodies += 1
        ctx.state.log.append(key)
        return effect.end()

    return act


@workflow(id="ledger", state_schema=Book)
async def ledger(ctx: WorkflowContext, job: dict[str, int]) -> list[str]:
    """Take steps one after the other, some in threads, some that fail first, one that fails."""
    keys: list[str] = []
    for n in range(job["steps"]):
        fails = 1 if n % 4 == 1 else 0
        act = plain(ctx, f"s{n}") if n % 3 == 2 else body(ctx, f"s{n}", fails=fails)
        done = await ctx.step.run(f"s{n}", act, max_retries=2, base_delay=0.02)
        keys.append(done["key"])
        ctx.state.code += 1
        if n == 1:
            try:
                broken = body(ctx, "broken", fails=9)
                await ctx.step.run("broken", broken, max_retries=1, base_delay=0.01)
            except StepExecutionError:
                ctx.state.code += BROKEN
    return keys


@workflow(id="leaf", state_schema=Book)
async def leaf(ctx: WorkflowContext, number: int) -> int:
    """Be a child."""
    for n in range(LEAF_STEPS):
        await ctx.step.run(f"leaf{n}", body(ctx, f"leaf{n}"))
    return LEAF_STEPS


@workflow(id="family", state_schema=Book)
async def family(ctx: WorkflowContext, job: dict[str, int]) -> list[int]:
    """Start children one by one and at once, and add up what they return."""
    await ctx.step.run("first", body(ctx, "first"))
    found = await asyncio.gather(
        *(ctx.step.invoke_and_wait(f"child{n}", leaf, n) for n in range(LEAVES))
    )
    batch = [BatchWorkflowInput(id="leaf", payload=n) for n in range(LEAVES)]
    found += [each.result for each in await ctx.step.batch_invoke_and_wait("batch", batch)]
    ctx.state.code += sum(2 * each // 2 for each in found)
    return found


@workflow(id="fan", state_schema=Book)
async def fan(ctx: WorkflowContext, job: dict[str, int]) -> list[str]:
    """Take steps side by side."""
    first = await asyncio.gather(
        *(ctx.step.run(f"a{n}", body(ctx, f"a{n}")) for n in range(BRANCHES))
    )
    ctx.state.code += BRANCHES
    async with asyncio.TaskGroup() as group:
        second = [
            group.create_task(
                ctx.step.run(f"b{n}", body(ctx, f"b{n}", fails=n % 2), base_delay=0.02)
            )
            for n in range(BRANCHES)
        ]
    ctx.state.code += BRANCHES
    return [each["key"] for each in first] + [each.result()["key"] for each in second]


@workflow(id="sleeper", state_schema=Book)
async def sleeper(ctx: WorkflowContext, job: dict[str, int]) -> int:
    """Wait for moments, and for a retry that is a durable timer."""
    await ctx.step.run("before", body(ctx, "before"))
    ctx.state.code += 1
    await ctx.step.wait_for("short", seconds=0.2)
    between = body(ctx, "between", fails=1 if job["number"] % 3 == 0 else 0)
    await ctx.step.run("between", between, max_retries=20, base_delay=5.5)
    ctx.state.code += 1
    await ctx.step.wait_for("long", seconds=1.5)
    await ctx.step.run("after", body(ctx, "after"))
    return job["number"]


@workflow(id="asker", state_schema=Book)
async def asker(ctx: WorkflowContext, job: dict[str, int]) -> int:
    """Ask outside, and return the answer."""
    await ctx.step.run("before", body(ctx, "before"))
    answer = await ctx.step.suspend("question", {"number": job["number"]})
    ctx.state.code += 1
    await ctx.step.run("after", body(ctx, "after"))
    return answer["data"]["number"]


@workflow(id="echo", state_schema=Book)
async def echo(ctx: WorkflowContext, told: dict[str, Any]) -> int:
    """Be a child that publishes an event."""
    await ctx.step.run("echo", body(ctx, "echo"))
    await ctx.step.publish_event("say", told["topic"], {"number": told["number"]})
    return 1


@workflow(id="talk", state_schema=Book)
async def talk(ctx: WorkflowContext, job: dict[str, int]) -> list[int]:
    """Wait for the event that a child publishes, once."""
    topic = f"talk/{ctx.execution_id}"
    told = {"topic": topic, "number": job["number"]}
    event, result = await asyncio.gather(
        ctx.step.wait_for_event("hear", topic), ctx.step.invoke_and_wait("echo", echo, told)
    )
    ctx.state.code += 1
    await ctx.step.run("after", body(ctx, "after"))
    return [event.sequence_id, event.data["number"], result]


def last(chunks: list[list[Any]]) -> dict[str, Any]:
    """Return what the journal holds of a streaming step: see `Effect.end`."""
    by, _, attempt, key = chunks[-1]
    return {"key": key, "by": by, "attempt": attempt}


async def words(ctx: WorkflowContext, key: str, fails: int) -> AsyncIterator[list[Any]]:
    """Stream chunks, one of them until it is durable; fail first if there are `fails` left."""
    effect = Effect(ctx, key)
    for n in range(WORDS):
        chunk = [effect.id, n, effect.attempt, key]
        if n == 1:
            await ctx.emit(chunk).durable()
            effect.note(chunk)
        else:
            yield chunk
        await asyncio.sleep(random.uniform(0, 0.01))
        if n == 2 and fails and random.random() < fails / 2:
            raise Hiccup(f"{key}: no luck")
    ctx.state.bodies += 1
    ctx.state.log.append(key)
    effect.end()


def lines(ctx: WorkflowContext, key: str) -> Iterator[list[Any]]:
    """Stream chunks from a thread."""
    effect = Effect(ctx, key)
    for n in range(WORDS):
        yield [effect.id, n, effect.attempt, key]
    ctx.state.bodies += 1
    ctx.state.log.append(key)
    effect.end()


@workflow(id="speaker", state_schema=Book)
async def speaker(ctx: WorkflowContext, job: dict[str, int]) -> int:
    """Stream from around the steps, from bodies and from threads."""
    for n in range(job["steps"]):
        key = f"s{n}"
        emitted = ctx.emit(["around", n])
        if n % 3 == 1:
            await emitted.durable()
            note(ctx.execution_id, None, ["around", n])
        if n % 3 == 2:
            await ctx.step.stream(key, lines, ctx, key, collect=last)
        else:
            again = {"max_retries": 20, "base_delay": 0.01, "max_delay": 0.02}
            await ctx.step.stream(key, words, ctx, key, n % 2, collect=last, **again)
        ctx.state.code += 1
    return job["steps"]


@workflow(id="runner", state_schema=Book)
async def runner(ctx: WorkflowContext, job: dict[str, int]) -> list[int]:
    """Continue as new after each step; some runs wait, or have a child."""
    run = ctx.generation
    ctx.emit([run, "begin"])
    await ctx.step.run(f"g{run}", body(ctx, f"g{run}"))
    await ctx.step.publish_workflow_event("say", {"run": run}, event_type="said")
    if run % 3 == 1:
        await ctx.step.wait_for("nap", seconds=0.1)
    if run % 2:
        await ctx.step.invoke_and_wait("child", leaf, run)
    ctx.state.code += 1
    ctx.emit([run, "end"])
    if run < job["steps"] - 1:
        ctx.continue_as_new({**job, "run": run + 1})
    return [run, job["run"]]


@workflow(id="failing", state_schema=Book)
async def failing(ctx: WorkflowContext, job: dict[str, int]) -> None:
    """Fail."""
    await ctx.step.run("x", body(ctx, "x"))
    await ctx.step.run("y", body(ctx, "y"))
    ctx.state.code += 1
    raise ValueError(f"as it had to: {job['number']}")


@workflow(id="doomed", state_schema=Book)
async def doomed(ctx: WorkflowContext, job: dict[str, int]) -> None:
    """Take steps and wait until it is cancelled, then clean up."""
    try:
        for n in range(job["steps"]):
            await ctx.step.run(f"s{n}", body(ctx, f"s{n}"))
        await ctx.step.wait_for("for ever", days=1)
    finally:
        await ctx.step.run("clean up", body(ctx, "clean up"))


@workflow(id="doomed_leaf", state_schema=Book)
async def doomed_leaf(ctx: WorkflowContext, number: int) -> None:
    """Be a child that waits for ever."""
    await ctx.step.run("leaf", body(ctx, "leaf"))
    await ctx.step.wait_for("for ever", days=1)


@workflow(id="doomed_family", state_schema=Book)
async def doomed_family(ctx: WorkflowContext, job: dict[str, int]) -> None:
    """Be cancelled together with children."""
    await asyncio.gather(*(ctx.step.invoke_and_wait(f"child{n}", doomed_leaf, n) for n in range(2)))


def hold(store: Any) -> None:
    """Freeze this process between the statements of its next transaction and the commit."""

    held: list[str] = []

    def gate(moment: str) -> None:
        if moment == "before" and not held:  # several transactions may have it
            held.append(moment)
            store.gate = None
            os.kill(os.getpid(), signal.SIGSTOP)

    store.gate = gate


def tell() -> None:
    """Say where every task waits, and every thread is: for the log of a worker that hangs."""
    faulthandler.dump_traceback()
    for task in asyncio.all_tasks():
        places: list[str] = []
        inner: Any = task.get_coro()
        while inner is not None and (frame := getattr(inner, "cr_frame", None)) is not None:
            places.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
            inner = inner.cr_await
        logging.getLogger("chaos").info("waits at %s for %r", " > ".join(places), inner)


async def opened(client: PolosClient) -> Any:
    """Open the client, as soon as the server is there."""
    while True:
        try:
            return await client.node()
        except StoreUnavailableError:
            await asyncio.sleep(0.2)


async def main() -> None:
    """Serve until SIGTERM."""
    client = PolosClient(URL)
    node = await opened(client)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, hold, node.store)
    loop.add_signal_handler(signal.SIGUSR2, tell)
    (FOLDER / f"ready-{NAME}").touch()
    await Worker(client=client, max_concurrent_workflows=CONCURRENCY).run()
    await client.close()


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {os.getpid()} %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(main())
