"""Typed payloads and results, steps of every kind, children in a loop."""

import asyncio
import os

from pydantic import BaseModel

from polos import Polos, WorkflowContext, workflow


class Record(BaseModel):
    name: str
    amount: int


class Checked(BaseModel):
    valid: bool
    enriched: dict[str, int]


class Batch(BaseModel):
    records: list[Record]


class Report(BaseModel):
    results: list[Checked]
    valid: int


class Greeting(BaseModel):
    text: str


def double(value: int) -> int:
    return value * 2


async def greet(name: str, mark: str = "!") -> Greeting:
    return Greeting(text=f"hello {name}{mark}")


tries = {"flaky": 0}


def flaky() -> str:
    tries["flaky"] += 1
    if tries["flaky"] < 3:
        raise ConnectionError("not yet")
    return f"after {tries['flaky']}"


@workflow
async def simple(ctx: WorkflowContext, payload: Record) -> Greeting:
    greeting = await ctx.step.run("greet", greet, payload.name, mark="?")
    doubled = await ctx.step.run("double", double, payload.amount)
    shouted = await ctx.step.run("shout", lambda: greeting.text.upper() + "!")
    nothing = await ctx.step.run("nothing", lambda: print("in a step"))
    assert nothing is None
    return Greeting(text=f"{shouted} {doubled}")


@workflow(id="steps-of-every-kind")
async def kinds(ctx: WorkflowContext) -> dict[str, bool]:
    a = await ctx.step.uuid("id")
    now = await ctx.step.now("now")
    chance = await ctx.step.random("chance")
    await ctx.step.wait_for("pause", seconds=0.05)
    slow = await ctx.step.run("flaky", flaky, max_retries=3, base_delay=0.01, max_delay=0.02)
    print(slow)
    return {"uuid": len(a) == 36, "now": now > 1_600_000_000_000, "random": 0 <= chance < 1}


@workflow(id="check-record")
async def check_record(ctx: WorkflowContext, payload: Record) -> Checked:
    valid = await ctx.step.run("valid", lambda: payload.amount > 0)
    return Checked(valid=valid, enriched={payload.name: payload.amount})


@workflow(id="check-batch")
async def check_batch(ctx: WorkflowContext, payload: Batch) -> Report:
    results: list[Checked] = []
    valid = 0
    for i, record in enumerate(payload.records):
        r = await ctx.step.invoke_and_wait(f"check_{i}", check_record, record)
        if r.valid:
            valid += 1
        results.append(r)
    return Report(results=results, valid=valid)


async def main() -> None:
    async with Polos(
        project_id=os.getenv("POLOS_PROJECT_ID"),
        deployment_id=os.getenv("POLOS_DEPLOYMENT_ID", "basics"),
        log_file="polos.log",
    ) as polos:
        greeting = await simple.run(polos, Record(name="Ann", amount=21))
        print(greeting.text)
        print(await kinds.run(polos))
        batch = Batch(records=[Record(name="a", amount=1), Record(name="ü", amount=0)])
        report = await check_batch.run(polos, batch, timeout=60)
        print(report.valid, [each.enriched for each in report.results])


if __name__ == "__main__":
    asyncio.run(main())
