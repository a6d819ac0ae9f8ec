"""Blobs in what executions tell and are told: events, chunks, questions, answers, patches."""

from typing import Any

import pytest
from pydantic import BaseModel

from polos import Blob, PolosClient, WorkflowContext, WorkflowState, events, workflow
from polos.codecs import EncryptionCodec, generate_key
from polos.engine import blobs
from polos.errors import BlobNotFoundError, InvalidStateError, UsageError
from tests.semantics.stores import MakeUrl, make_url, stop_servers, until

__all__ = ["make_url", "stop_servers"]

NOBODY = {"$blob": {"hash": "0" * 64, "size": 1}}


class Page(BaseModel):
    blob: Blob


class Shelf(WorkflowState):
    page: Page | None = None
    blob: Blob | None = None


@pytest.fixture(params=[None, EncryptionCodec(generate_key())], ids=["clear", "encrypted"])
def codec(request: pytest.FixtureRequest) -> EncryptionCodec | None:
    return request.param


def new(text: str) -> Blob:
    return Blob.from_bytes(text.encode())


async def read(client: PolosClient, shown: Any) -> str:
    return (await (await client.get_blob(shown)).read()).decode()


async def collect(client: PolosClient) -> None:
    """Remove what no execution refers to, as if it were days later."""
    engine = (await client.node()).engine
    await blobs.collect(engine.store, engine.clock.now() + 2 * blobs.GRACE_US)


async def test_a_blob_without_content_is_read(
    make_url: MakeUrl, codec: EncryptionCodec | None
) -> None:
    @workflow
    async def nothing(ctx: WorkflowContext) -> Blob:
        blob = await ctx.step.run("make", lambda: new(""))
        assert await blob.read() == b""
        return blob

    async with PolosClient(make_url(), codec=codec) as client:
        result = await nothing(client)
        assert await result.read() == b""
        assert await (await client.get_blob(result.hash)).read() == b""


async def test_events_and_chunks_have_blobs(
    make_url: MakeUrl, codec: EncryptionCodec | None
) -> None:
    @workflow
    async def tells(ctx: WorkflowContext) -> None:
        def pages() -> Any:
            yield Page(blob=new("yielded"))

        await ctx.step.publish_event("model", "shelf", Page(blob=new("in a model")))
        await ctx.step.publish_event("dict", "shelf", {"blob": new("in a dict")})
        await ctx.step.publish_workflow_event("own", {"blob": new("of the tree")})
        await ctx.emit({"blob": new("emitted")})
        await ctx.step.stream("stream", pages)

    async with PolosClient(make_url(), codec=codec) as client:
        handle = await tells.invoke(client)
        await handle.result()
        await events.publish(client, "shelf", {"data": {"blob": new("from outside")}})
        published = [event.data["blob"] for event in await events.read(client, "shelf")]
        assert [await read(client, each) for each in published] == [
            "in a model",
            "in a dict",
            "from outside",
        ]
        await collect(client)  # what the execution told stays as long as it does
        for each in published[:2]:
            await read(client, each)
        with pytest.raises(BlobNotFoundError):
            await read(client, published[2])
        own = [e.data async for e in events.stream_workflow(client, "tells", handle.id, 0)]
        (told,) = [data["blob"] for data in own if "blob" in data]
        assert await read(client, told) == "of the tree"
        chunks = [each.data["blob"] async for each in client.stream(handle.id) if each.data]
        assert [await read(client, each) for each in chunks] == ["emitted", "yielded"]


async def test_questions_and_answers_have_blobs(
    make_url: MakeUrl, codec: EncryptionCodec | None
) -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> list[str]:
        got = await ctx.step.suspend("dict", {"about": new("question")})
        blob: Blob = got["data"]["list"][0]["blob"]
        page = Page.model_validate((await ctx.step.suspend("page", {"about": blob}))["data"])
        return [(await each.read()).decode() for each in (blob, page.blob)]

    @workflow
    async def answers(ctx: WorkflowContext, target: str) -> None:
        data = {"blob": new("from a workflow")}
        await ctx.step.resume("answer", "page", target, data=data)

    async with PolosClient(make_url(), codec=codec) as client:
        handle = await asks.invoke(client)
        await until(client.list_suspensions)
        (asked,) = await client.list_suspensions()
        await collect(client)
        assert await read(client, asked["data"]["about"]) == "question"
        await handle.resume("dict", {"list": [{"blob": new("from a client")}]})
        await collect(client)
        await answers(client, handle.id)
        await collect(client)
        assert await handle.result() == ["from a client", "from a workflow"]


async def test_a_patch_has_stored_blobs_only(
    make_url: MakeUrl, codec: EncryptionCodec | None
) -> None:
    @workflow(state_schema=Shelf)
    async def waits(ctx: WorkflowContext) -> list[str]:
        await ctx.step.suspend("go")
        blobs = [ctx.state.page and ctx.state.page.blob, ctx.state.blob]
        return [(await each.read()).decode() for each in blobs if each is not None]

    async with PolosClient(make_url(), codec=codec) as client:
        handle = await waits.invoke(client)
        await until(client.list_suspensions)
        for patch in ({"blob": new("not stored")}, {"page": Page(blob=new("nor this"))}):
            with pytest.raises(InvalidStateError, match="not stored yet"):
                await client.patch_state(handle.id, patch)
        with pytest.raises(BlobNotFoundError):
            await client.patch_state(handle.id, {"blob": NOBODY})
        one, two = [await client.store_blob(new(text)) for text in ("one", "two")]
        await client.patch_state(handle.id, {"page": Page(blob=one), "blob": two})
        await collect(client)
        await handle.resume("go")
        assert await handle.result() == ["one", "two"]


@pytest.mark.parametrize("given", ["text", 5, None, [1]])
def test_a_blob_is_made_of_bytes(given: Any) -> None:
    with pytest.raises(UsageError, match="takes bytes"):
        Blob.from_bytes(given)


@pytest.mark.parametrize("given", [None, 5, {}, {"$blob": 5}, ["x"]])
async def test_what_names_no_blob_is_refused(given: Any) -> None:
    async with PolosClient("sqlite://") as client:
        with pytest.raises(UsageError, match="expected a Blob"):
            await client.get_blob(given)
