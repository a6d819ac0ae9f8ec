"""Steps that fail: retries, fallbacks, a circuit breaker, undoing by hand."""

import asyncio

from polos import Polos, StepExecutionError, WorkflowContext, workflow


def fails(text: str) -> str:
    raise RuntimeError(text)


async def works(text: str) -> str:
    return text


@workflow(id="fallback")
async def fallback(ctx: WorkflowContext, payload: dict) -> dict:
    try:
        got = await ctx.step.run(
            "primary", fails, "primary is down", max_retries=1, base_delay=0.01
        )
        source = "primary"
    except StepExecutionError as e:
        print("caught:", str(e))
        got = await ctx.step.run("backup", works, payload.get("data", "none"))
        source = "backup"
    return {"source": source, "data": got}


@workflow(id="breaker")
async def breaker(ctx: WorkflowContext, payload: dict) -> dict:
    failures = 0
    done = []
    for i in range(payload["calls"]):
        if failures >= 2:
            done.append("skipped")
            continue
        try:
            await ctx.step.run(f"call_{i}", fails, f"call {i}", max_retries=0)
        except StepExecutionError:
            failures += 1
            done.append("failed")
    return {"done": done}


@workflow(id="order")
async def order(ctx: WorkflowContext, payload: dict) -> dict:
    undone: list[str] = []
    try:
        await ctx.step.run("reserve", works, "reserved")
        undone.append("reserve")
        await ctx.step.run("charge", works, "charged")
        undone.append("charge")
        await ctx.step.run("ship", fails, "no van", max_retries=1, base_delay=0.01, max_delay=0.01)
        return {"status": "shipped"}
    except StepExecutionError as e:
        for name in reversed(undone):
            await ctx.step.run(f"undo_{name}", works, name)
        return {"status": "undone", "undone": undone[::-1], "error": str(e)}


@workflow(id="uncaught")
async def uncaught(ctx: WorkflowContext, payload: dict) -> None:
    await ctx.step.run("fails", fails, "nobody catches this", max_retries=0)


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        result = await fallback.run(polos, {"data": "spare"})
        print(result["source"], result["data"])
        print((await breaker.run(polos, {"calls": 4}))["done"])
        result = await order.run(polos, {})
        print(result["status"], result["undone"], result["error"])
        try:
            await uncaught.run(polos, {})
        except RuntimeError as e:
            print(e)


if __name__ == "__main__":
    asyncio.run(main())
