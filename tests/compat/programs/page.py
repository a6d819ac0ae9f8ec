"""A form for a web page; the program reads its events until the workflow has finished."""

import asyncio

from pydantic import BaseModel

from polos import Polos, WorkflowContext, workflow
from polos.features import events


class Expense(BaseModel):
    title: str
    amount: float


class Decision(BaseModel):
    status: str
    note: str | None = None


@workflow(id="expense")
async def expense(ctx: WorkflowContext, payload: Expense) -> Decision:
    answer = await ctx.step.suspend(
        "approve",
        data={
            "_form": {
                "title": "Expense",
                "description": f"{payload.title}: {payload.amount}",
                "fields": [
                    {"name": "approved", "type": "boolean", "label": "Approve?", "required": True},
                    {"name": "note", "type": "textarea", "label": "Note", "default": "none"},
                    {
                        "name": "account",
                        "type": "select",
                        "label": "Account",
                        "options": [{"value": "a", "label": "A"}, {"value": "b", "label": "B"}],
                    },
                ],
                "context": {"amount": payload.amount},
            },
        },
        timeout=86400,
    )
    given = answer.get("data", {})
    return Decision(status="paid" if given.get("approved") else "refused", note=given.get("note"))


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        handle = await expense.invoke(polos, {"title": "Lämp", "amount": 40})
        assert handle.root_workflow_id
        async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
            if event.event_type and event.event_type.startswith("suspend_"):
                form = event.data.get("_form", {})
                print(form["title"], [f["name"] for f in form["fields"]], form["context"])
                print("answer", handle.id, flush=True)
            if event.event_type == "workflow_finish":
                print(event.data["result"])
                break


if __name__ == "__main__":
    asyncio.run(main())
