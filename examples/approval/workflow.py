"""Expenses that somebody has to approve: a form, a deadline, and a second pair of eyes."""

from pydantic import BaseModel

from polos import WaitTimeoutError, WorkflowContext, WorkflowState, workflow

DEADLINE_SECONDS = 7 * 86_400.0
SECOND_LOOK_ABOVE = 1000.0


class Expense(BaseModel):
    """What somebody wants to have paid."""

    who: str
    what: str
    amount: float


class Decision(BaseModel):
    """What the accountant says; the form is made of it."""

    approved: bool
    approver: str
    comment: str | None = None


class Progress(WorkflowState):
    """Who has decided so far."""

    decisions: list[str] = []


class Outcome(BaseModel):
    """What became of the expense."""

    status: str
    decided_by: list[str] = []


@workflow(id="approve_expense", state_schema=Progress)
async def approve_expense(ctx: WorkflowContext, expense: Expense) -> Outcome:
    first = await ask(ctx, "accountant", expense)
    if first is None:
        return Outcome(status="expired")
    ctx.state.decisions.append(first.approver)
    if first.approved and expense.amount > SECOND_LOOK_ABOVE:
        answer = await ctx.step.suspend("second_look", data=second_look(expense, first))
        ctx.state.decisions.append(answer["data"]["name"])
        first.approved = answer["data"]["agree"]
    if not first.approved:
        return Outcome(status="rejected", decided_by=ctx.state.decisions)
    await ctx.step.run("pay", pay, expense.who, expense.amount)
    return Outcome(status="paid", decided_by=ctx.state.decisions)


async def ask(ctx: WorkflowContext, step_key: str, expense: Expense) -> Decision | None:
    """Return the decision, or None if nobody took one in time."""
    about = expense.model_dump()
    try:
        answer = await ctx.step.suspend(step_key, about, DEADLINE_SECONDS, form=Decision)
    except WaitTimeoutError:
        return None
    return answer["data"]


def second_look(expense: Expense, first: Decision) -> dict[str, object]:
    """Return a form written by hand."""
    return {
        "_form": {
            "title": f"{expense.what}: {expense.amount:,.2f}",
            "description": f"{first.approver} approved it. Do you agree?",
            "fields": [
                {"key": "agree", "type": "boolean", "label": "I agree", "required": True},
                {"key": "name", "label": "Your name", "required": True},
            ],
            "context": {"who": expense.who, "comment": first.comment},
        }
    }


def pay(who: str, amount: float) -> str:
    """Stand in for the bank."""
    return f"paid {amount:,.2f} to {who}"
