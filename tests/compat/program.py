"""Imports and calls as programs of the reference SDK have them: no more, no less."""

import asyncio
from typing import Any

from pydantic import BaseModel

from polos import (
    BatchWorkflowInput,
    Polos,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.types.types import BatchWorkflowInput as SameInput


class Names(BaseModel):
    names: list[str]


class Name(BaseModel):
    name: str


class Valid(BaseModel):
    valid: bool
    name: str


class Found(BaseModel):
    results: list[Valid]


class CounterState(WorkflowState):
    count: int = 0


@workflow(id="validate")
async def validate(ctx: WorkflowContext, payload: Name) -> Valid:
    valid = await ctx.step.run("length", lambda: len(payload.name) > 2)
    return Valid(valid=valid, name=payload.name)


@workflow
async def process(ctx: WorkflowContext, payload: Names) -> Found:
    await ctx.step.uuid("id")
    await ctx.step.now("now")
    await ctx.step.random("chance")
    await ctx.step.wait_for("nap", seconds=0.05)
    found: list[Valid] = []
    for name in payload.names:
        found.append(await ctx.step.invoke_and_wait(f"validate_{name}", validate, Name(name=name)))
    return Found(results=found)


@workflow(id="counter", state_schema=CounterState)
async def counter(ctx: WorkflowContext, payload: dict[str, Any]) -> dict[str, Any]:
    ctx.state.count += payload.get("by", 1)
    return {"count": ctx.state.count}


def flaky(number: int) -> None:
    raise ValueError(f"boom {number}")


@workflow(id="errors")
async def errors(ctx: WorkflowContext, payload: dict[str, Any]) -> dict[str, Any]:
    try:
        await ctx.step.run("flaky", flaky, 1, max_retries=1, base_delay=0.01)
    except StepExecutionError as error:
        await ctx.step.run("undo", lambda: "undone")
        return {"error": str(error)}
    return {}


@workflow(id="coordinator")
async def coordinator(ctx: WorkflowContext, payload: dict[str, Any]) -> dict[str, Any]:
    scored = await ctx.step.batch_invoke_and_wait(
        "all", [BatchWorkflowInput(id="score", payload={"n": n}) for n in range(3)]
    )
    handles = await ctx.step.batch_invoke("more", [SameInput(id="score", payload={"n": 9})])
    return {"scores": [each.result["score"] for each in scored], "handle": handles[0].id}


@workflow(id="score")
async def score(ctx: WorkflowContext, payload: dict[str, Any]) -> dict[str, Any]:
    return {"score": payload["n"] * 2}


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        result = await process.run(polos, Names(names=["ann", "bo"]))
        print(result.results[0].valid, result.results[1].valid)
        print(await counter.run(polos, {"by": 5}))
        print(await counter.run(polos, {"by": 5}, initial_state=CounterState(count=100)))
        print(await errors.run(polos, {}))
        print((await coordinator.run(polos, {}))["scores"])


asyncio.run(main())
