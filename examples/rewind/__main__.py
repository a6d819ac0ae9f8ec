"""Book a trip, look at its past, patch it while it waits, go back in it, and branch off."""

import argparse
import asyncio

from polos import ExecutionHandle, PolosClient, WorkflowContext, WorkflowState, workflow

PRICES = {"train": 60, "hotel": 240, "museum": 18}


class Trip(WorkflowState):
    """What is booked, and what it costs."""

    booked: list[str] = []
    cost: int = 0
    budget: int = 300


async def book(what: str) -> int:
    """Book something; returns its price."""
    return PRICES[what]


@workflow(state_schema=Trip)
async def trip(ctx: WorkflowContext, input: None = None) -> str:
    """Book what the budget allows, and ask before the last part."""
    for what in ("train", "hotel"):
        ctx.state.cost += await ctx.step.run(what, book, what)
        ctx.state.booked.append(what)
    await ctx.step.suspend("agree", {"question": "anything to change?"})
    if ctx.state.cost + PRICES["museum"] <= ctx.state.budget:
        ctx.state.cost += await ctx.step.run("museum", book, "museum")
        ctx.state.booked.append("museum")
    return f"{' + '.join(ctx.state.booked)} for {ctx.state.cost} of {ctx.state.budget}"


async def wait_for_question(client: PolosClient, handle: ExecutionHandle) -> None:
    """Return once the trip waits for an answer."""
    while (await client.get_execution(handle.id))["status"] != "waiting":  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def show_past(client: PolosClient, handle: ExecutionHandle) -> None:
    """Print every recorded state, what one step left, and who set a field."""
    for entry in await handle.state_history():
        changes = ", ".join(f"{each['path']} = {each['new']}" for each in entry["changes"])
        by = f" by {entry['who']} ({entry['why']})" if entry.get("who") else ""
        print(f"  {entry['seq']} {entry['step_key'] or '-':8}{changes}{by}")
    print(f"  as of the hotel: {await handle.state_at(step_key='hotel')}")
    blamed = await client.blame_state(handle.id, "booked[1]")
    print(f"  {blamed['value']} came with {blamed['step_key']!r}, in attempt {blamed['attempt']}")


async def run(url: str | None) -> None:
    """Do all of it, one after the other."""
    async with PolosClient(url) as client:
        handle = await trip.invoke(client)
        await wait_for_question(client, handle)
        await client.patch_state(handle.id, {"budget": 400}, who="ann", why="a bonus")
        await handle.resume("agree", {})
        print("trip:", await handle.result())
        await show_past(client, handle)

        fork = await handle.fork(at_step="train", state={"budget": 310})
        await wait_for_question(client, fork)
        await fork.resume("agree", {})
        print("fork with less money:", await fork.result())

        planned = await handle.reset(to_step="agree", dry_run=True)
        print("a reset would do again:", [each["step_key"] for each in planned["effects"]])
        await handle.reset(to_step="agree")
        print("after the reset:", await handle.result())
        print(
            "cut off, and kept:", [each["step_key"] for each in await client.cut_steps(handle.id)]
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.rewind", description=__doc__)
    parser.add_argument("--url", help="the store; default: POLOS_URL, else ./.polos/polos.db")
    asyncio.run(run(parser.parse_args().url))


if __name__ == "__main__":
    main()
