"""Suspensions that are found by reading the execution's events, and answered from stdin."""

import asyncio
from typing import Any

from pydantic import BaseModel

from polos import Polos, WorkflowContext, events, workflow


class Request(BaseModel):
    id: str
    amount: float
    reviewers: list[str] = []


class Outcome(BaseModel):
    id: str
    status: str
    comments: str | None = None


@workflow(id="approval")
async def approval(ctx: WorkflowContext, payload: Request) -> Outcome:
    await ctx.step.run("prepare", lambda: payload.amount)
    answer = await ctx.step.suspend(
        "manager",
        data={"request_id": payload.id, "amount": payload.amount, "message": "Approve?"},
        timeout=3600,
    )
    given = answer.get("data", {}) if answer else {}
    status = "approved" if given.get("approved") else "rejected"
    return Outcome(id=payload.id, status=status, comments=given.get("comments"))


@workflow(id="reviews")
async def reviews(ctx: WorkflowContext, payload: Request) -> Outcome:
    verdicts: list[str] = []
    for i, name in enumerate(payload.reviewers):
        answer = await ctx.step.suspend(
            f"review_{i}_{name}", data={"reviewer": name, "step": i + 1}
        )
        given = answer.get("data", {})
        verdicts.append(f"{name}:{given.get('approved')}")
        if not given.get("approved"):
            return Outcome(id=payload.id, status="rejected", comments=",".join(verdicts))
    return Outcome(id=payload.id, status="approved", comments=",".join(verdicts))


def ask(question: str) -> str:
    return input(question)


async def finished(polos: Polos, execution_id: str) -> dict[str, Any]:
    while True:
        execution = await polos.get_execution(execution_id)
        if execution["status"] in ("completed", "failed", "cancelled"):
            return execution
        await asyncio.sleep(0.01)


async def one(polos: Polos) -> None:
    handle = await approval.invoke(polos, Request(id="r-1", amount=12.5))
    assert handle.root_workflow_id
    step_key = ""
    async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
        if event.event_type and event.event_type.startswith("suspend_"):
            step_key = event.event_type.replace("suspend_", "", 1)
            print(step_key, event.data.get("request_id"), event.data.get("amount"))
            break
    approved = ask("approve? ").strip() == "y"
    await polos.resume(
        suspend_workflow_id=handle.root_workflow_id,
        suspend_execution_id=handle.id,
        suspend_step_key=step_key,
        data={"approved": approved, "comments": "as ever"},
    )
    execution = await finished(polos, handle.id)
    print(execution["status"], execution["result"])


async def several(polos: Polos) -> None:
    handle = await reviews.invoke(polos, Request(id="r-2", amount=1, reviewers=["Ann", "Bö", "Cy"]))
    assert handle.root_workflow_id
    for _ in range(3):
        found = None
        async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
            if event.event_type and event.event_type.startswith("suspend_"):
                found = event.event_type[len("suspend_") :]
                break
        if found is None:
            break
        answer = ask(f"{found}? ").strip()
        print(found)
        await polos.resume(
            suspend_workflow_id=handle.root_workflow_id,
            suspend_execution_id=handle.root_execution_id or handle.id,
            suspend_step_key=found,
            data={"approved": answer == "y"},
        )
        if answer != "y":
            break
    execution = await finished(polos, handle.id)
    print(execution["result"]["status"], execution["result"]["comments"])


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        await one(polos)
        await several(polos)


if __name__ == "__main__":
    asyncio.run(main())
