"""Children side by side: with their results, and without waiting; one is defined further down."""

import asyncio

from pydantic import BaseModel

from polos import BatchWorkflowInput, Polos, WorkflowContext, workflow


class Document(BaseModel):
    title: str
    text: str


class Review(BaseModel):
    reviewer: str
    score: int


class AggregatedReview(BaseModel):
    title: str
    average: float
    reviews: list[dict]


@workflow(id="review-all")
async def review_all(ctx: WorkflowContext, payload: Document) -> AggregatedReview:
    results = await ctx.step.batch_invoke_and_wait(
        "reviews",
        [
            BatchWorkflowInput(id="grammar", payload=payload),
            BatchWorkflowInput(id="facts", payload=payload.model_dump()),
            BatchWorkflowInput(id="broken", payload=payload),
        ],
    )
    good: list[Review] = []
    for each in results:
        if each.success:
            good.append(each.result)
        else:
            print(each.workflow_id, "failed:", each.error)
    handles = await ctx.step.batch_invoke(
        "notify", [BatchWorkflowInput(id="notify", payload={"to": r.reviewer}) for r in good]
    )
    print(len(handles), all(h.id for h in handles))
    assert await ctx.step.batch_invoke("nobody", []) == []
    return AggregatedReview(
        title=payload.title,
        average=sum(r.score for r in good) / len(good),
        reviews=[r.model_dump() for r in good],
    )


@workflow(id="grammar")
async def grammar(ctx: WorkflowContext, payload: Document) -> Review:
    return await ctx.step.run("score", lambda: Review(reviewer="grammar", score=8))


@workflow(id="facts")
async def facts(ctx: WorkflowContext, payload: Document) -> Review:
    return Review(reviewer="facts", score=len(payload.text))


@workflow(id="broken")
async def broken(ctx: WorkflowContext, payload: Document) -> Review:
    await ctx.step.run("breaks", lambda: 1 / 0, max_retries=0)
    return Review(reviewer="broken", score=0)


@workflow(id="notify")
async def notify(ctx: WorkflowContext, payload: dict) -> dict:
    return {"told": payload["to"]}


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        result = await review_all.run(polos, Document(title="Über", text="1234"), timeout=120)
        print(result.title, result.average, result.reviews)


if __name__ == "__main__":
    asyncio.run(main())
