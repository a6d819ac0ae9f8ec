"""What the tests of the command look at: `program.py seed|live|ask|work URL`, as a process.

`seed` leaves executions of every status and prints their ids; `live` runs one that waits for a
line on standard input; `ask` leaves one that is suspended; `work` runs what is unfinished until the
named execution has ended.
"""

import asyncio
import json
import sys
from pathlib import Path

from polos import (
    ExecutionCancelledError,
    ExecutionFailedError,
    PolosClient,
    WorkflowContext,
    WorkflowState,
    workflow,
)


class Counts(WorkflowState):
    n: int = 0
    ratio: float = float("inf")
    notes: list[str] = []


def answer() -> dict[str, object]:
    return {"text": "ünï \x1b[2J", "n": 7}


def need(path: str) -> str:
    if not Path(path).exists():
        raise ValueError("\x1b[31mno file[/red]\nsecond line")
    return Path(path).read_text()


@workflow(state_schema=Counts)
async def complete(ctx: WorkflowContext, payload: dict[str, int]) -> dict[str, int]:
    ctx.state.n = payload["n"]
    await ctx.step.run("answer", answer)
    await ctx.step.run("answer", answer)
    return {"n": ctx.state.n}


@workflow(state_schema=Counts)
async def fragile(ctx: WorkflowContext, path: str) -> str:
    await ctx.step.run("before", answer)
    ctx.state.n += 1
    return await ctx.step.run("read", need, path, max_retries=0)


@workflow
async def nap(ctx: WorkflowContext) -> None:
    await ctx.step.wait_for("sleep", days=3)


@workflow
async def parent(ctx: WorkflowContext) -> None:
    await ctx.step.invoke_and_wait("child", nap)


async def line_on_stdin() -> str:
    future = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: future.done() or future.set_result(sys.stdin.readline()))
    try:
        return (await future).strip()
    finally:
        loop.remove_reader(sys.stdin)


@workflow(state_schema=Counts)
async def gated(ctx: WorkflowContext) -> str:
    ctx.state.n = 1
    await ctx.step.run("first", answer)
    ctx.state.n = 2
    said = await ctx.step.run("gate", line_on_stdin)
    if said == "fail":
        raise ValueError("told to fail")
    return said


async def seed(client: PolosClient) -> None:
    ids: dict[str, str] = {}
    done = await complete.invoke(client, {"n": 3}, session_id="s1", user_id="u1")
    await done.result()
    ids["completed"] = done.id
    failed = await fragile.invoke(client, sys.argv[3])
    try:
        await failed.result()
    except ExecutionFailedError:
        ids["failed"] = failed.id
    ids["waiting"] = (await nap.invoke(client, session_id="s1")).id
    ids["parent"] = (await parent.invoke(client)).id
    children = []
    while not children:
        children = await client.list_executions(parent_execution_id=ids["parent"])
        await asyncio.sleep(0)
    ids["child"] = children[0]["id"]
    gone = await nap.invoke(client)
    await gone.cancel()
    try:
        await gone.result()
    except ExecutionCancelledError:
        ids["cancelled"] = gone.id
    for name in ("waiting", "child", "parent"):
        while (await client.get_execution(ids[name]))["status"] != "waiting":  # noqa: ASYNC110
            await asyncio.sleep(0)
    print(json.dumps(ids), flush=True)


async def live(client: PolosClient) -> None:
    handle = await gated.invoke(client)
    print(handle.id, flush=True)
    try:
        print(await handle.result(), flush=True)
    except (ExecutionCancelledError, ExecutionFailedError) as error:
        print(type(error).__name__, flush=True)


FORM = {
    "title": "Deploy \x1b[2J?",
    "fields": [
        {"name": "approved", "type": "boolean", "label": "Approve", "default": False},
        {"name": "by", "label": "Your name", "required": True},
        {"key": "share", "type": "number", "label": "Share", "min": 0, "max": 100, "default": 10},
        {"key": "region", "type": "select", "label": "Region", "options": ["eu", "us"]},
        {"key": "tags", "type": "multiselect", "label": "Tags", "options": ["a", "b", "c"]},
        {"key": "pin", "type": "password", "label": "PIN"},
        {"key": "notes", "type": "textarea", "label": "Notes"},
    ],
    "context": {"env": "prod"},
}


@workflow
async def asking(ctx: WorkflowContext, keys: list[str]) -> list[object]:
    answers: list[object] = []
    for key in keys:
        form = {"_form": FORM} if key == "approve" else {"n": 1}
        answers.append((await ctx.step.suspend(key, form, timeout=86_400))["data"])
    return answers


async def ask(client: PolosClient) -> None:
    handle = await asking.invoke(client, sys.argv[3:])
    while not await client.list_suspensions():  # noqa: ASYNC110
        await asyncio.sleep(0)
    print(handle.id, flush=True)


async def work(client: PolosClient) -> None:
    print(await client.get_handle(sys.argv[3]).result(), flush=True)


async def main() -> None:
    async with PolosClient(sys.argv[2]) as client:
        await {"seed": seed, "live": live, "ask": ask, "work": work}[sys.argv[1]](client)


if __name__ == "__main__":
    asyncio.run(main())
