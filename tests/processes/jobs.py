"""The module that the worker processes of these tests serve; its steps leave lines in a file."""

# Files are what two processes can watch.
# ruff: noqa: ASYNC110

import asyncio
import os
from pathlib import Path

from polos import WorkflowContext, workflow

FOLDER = Path(os.environ.get("JOBS_FOLDER", "."))


def note(text: str) -> None:
    with (FOLDER / "effects").open("ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


@workflow
async def held(ctx: WorkflowContext, name: str) -> int:
    """Run a step until somebody says go, and one behind it."""

    async def body() -> int:
        note(f"begin {name} {os.getpid()}")
        while not (FOLDER / "go").exists():
            await asyncio.sleep(0.01)
        note(f"end {name} {os.getpid()}")
        return os.getpid()

    pid = await ctx.step.run("body", body)
    await ctx.step.run("last", note, f"last {name}")
    return pid


@workflow
async def brief(ctx: WorkflowContext) -> int:
    return await ctx.step.run("pid", os.getpid)


several = [held, brief]
nothing = "no workflow"
