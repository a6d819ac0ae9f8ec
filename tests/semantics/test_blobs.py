"""Blobs and spilled fields as workflows use them, on both databases."""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from polos import (
    Blob,
    PolosClient,
    Spilled,
    StateTooLargeError,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.codecs import EncryptionCodec, generate_key
from polos.engine import blobs
from polos.errors import BlobNotFoundError, EncodeError, ExecutionFailedError, UsageError
from tests.semantics.stores import MakeUrl, count, make_url, stop_servers

__all__ = ["make_url", "stop_servers"]

DATA = os.urandom(3_000_000)


class Job(BaseModel):
    document: Blob


class Rows(WorkflowState):
    rows: Annotated[list[str], Spilled] = []
    text: Annotated[str, Spilled()] = ""
    last: Blob | None = None


@pytest.fixture(params=[None, EncryptionCodec(generate_key())], ids=["clear", "encrypted"])
def codec(request: pytest.FixtureRequest) -> EncryptionCodec | None:
    return request.param


async def test_blobs_go_through_payload_steps_state_children_and_result(
    make_url: MakeUrl, codec: EncryptionCodec | None, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(DATA)

    @workflow
    async def length(ctx: WorkflowContext, job: Job) -> dict[str, Any]:
        return {"n": len(await job.document.read()), "same": job.document}

    @workflow(state_schema=Rows)
    async def chain(ctx: WorkflowContext, job: Job) -> dict[str, Any]:
        head = await ctx.step.run("head", head_of, job.document)
        file = await ctx.step.run("file", Blob.from_path, path)
        ctx.state.last = file
        got = await ctx.step.invoke_and_wait("child", length, Job(document=file))
        return {"head": head, "n": got["n"], "list": [got["same"], Blob.from_bytes(b"new")]}

    async def head_of(blob: Blob) -> Blob:
        return Blob.from_bytes((await blob.read())[:5], media_type="text/plain", name="head")

    url = make_url()
    async with PolosClient(url, codec=codec) as client:
        job = Job(document=Blob.from_bytes(b"hello world"))
        handle = await chain.invoke(client, job)
        result = await handle.result()
        assert await result["head"].read() == b"hello"
        assert (result["head"].media_type, result["head"].name) == ("text/plain", "head")
        assert result["n"] == len(DATA)
        assert result["list"][0].hash == hashlib.sha256(DATA).hexdigest()
        assert await result["list"][1].read() == b"new"
        shown = await client.get_execution(handle.id)
        stored = await client.get_blob(shown["state"]["last"])
        await stored.save(tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == DATA
        assert max([len(piece) async for piece in stored.chunks()]) <= 1_048_576
    assert await count(url, "blob") == 4


async def test_what_an_execution_refers_to_stays_and_goes_with_it(make_url: MakeUrl) -> None:
    @workflow(state_schema=Rows)
    async def keeps(ctx: WorkflowContext, job: Job) -> str:
        for n in range(3):
            ctx.state.last = await ctx.step.run(f"b{n}", lambda n=n: Blob.from_bytes(b"%d" % n))
        return job.document.hash

    async with PolosClient(make_url()) as client:
        given = await client.store_blob(Blob.from_bytes(b"given"))
        unused = await client.store_blob(Blob.from_bytes(b"unused"))
        handle = await keeps.invoke(client, Job(document=given))
        await handle.result()
        engine = (await client.node()).engine
        later = engine.clock.now() + 2 * blobs.GRACE_US
        assert await blobs.collect(engine.store, later) == 1
        with pytest.raises(BlobNotFoundError):
            await client.get_blob(unused)
        assert await (await client.get_blob(given.hash)).read() == b"given"
        await engine.store.prune([handle.id], later)
        assert await blobs.collect(engine.store, later) == 4


async def test_spilled_fields_count_as_references(make_url: MakeUrl) -> None:
    @workflow(state_schema=Rows)
    async def grows(ctx: WorkflowContext, target: int) -> int:
        for n in range(target):
            ctx.state.rows += ["x" * 400_000]
            await ctx.step.run(f"s{n}", lambda: None)
        ctx.state.text = "y" * 2_000_000
        await ctx.step.run("text", lambda: None)
        ctx.state.rows.append("end")
        await ctx.step.run("end", lambda: None)
        return len(ctx.state.rows)

    url = make_url()
    async with PolosClient(url) as client:
        handle = await grows.invoke(client, 4)
        assert await handle.result() == 5
        state = (await client.get_execution(handle.id))["state"]
        assert [len(row) for row in state["rows"]] == [400_000] * 4 + [3]
        assert len(state["text"]) == 2_000_000
        record = await (await client.node()).engine.require(handle.id)
        inner = (await client.node()).engine.store.inner
        entries = await inner.states(record.root_id, record.id)
        assert max(len(entry.body) for entry in entries) < 400


async def test_fields_that_are_not_spilled_have_the_limit_they_had(make_url: MakeUrl) -> None:
    class Mixed(Rows):
        plain: str = ""

    @workflow(state_schema=Mixed)
    async def large(ctx: WorkflowContext, payload: None = None) -> str:
        ctx.state.rows.append("x" * 2_000_000)
        ctx.state.plain = "x" * 1_100_000
        try:
            await ctx.step.run("s", lambda: None)
        except StateTooLargeError as error:
            ctx.state.plain = ""
            return f"{error.field} {error.size > error.limit}"
        return "recorded"

    async with PolosClient(make_url()) as client:
        assert await large.run(client) == "plain True"


async def test_a_file_is_stored_by_a_step_only(make_url: MakeUrl, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")

    @workflow
    async def result(ctx: WorkflowContext) -> Blob:
        return Blob.from_path(path)

    @workflow
    async def changed(ctx: WorkflowContext) -> str:
        def make() -> Blob:
            path.write_bytes(b"abc")
            blob = Blob.from_path(path)
            path.write_bytes(b"abd")
            return blob

        try:
            await ctx.step.run("make", make, max_retries=0)
        except StepExecutionError as error:
            return str(error)
        return "stored"

    @workflow(state_schema=Rows)
    async def in_state(ctx: WorkflowContext) -> str:
        ctx.state.last = Blob.from_bytes(b"x")
        try:
            await ctx.step.run("s", lambda: None)
        except EncodeError as error:
            ctx.state.last = None
            return str(error)
        return "recorded"

    async with PolosClient(make_url()) as client:
        with pytest.raises(ExecutionFailedError, match="return it from a step"):
            await result.run(client)
        assert "was changed while a Blob of it was to be stored" in await changed.run(client)
        assert "return it from a step" in await in_state.run(client)


async def test_a_blob_outside_of_a_client_says_how_to_get_it() -> None:
    stray = Blob("0" * 64, 3)
    with pytest.raises(UsageError, match="get_blob"):
        await stray.read()
    assert await Blob.from_bytes(b"abc").read() == b"abc"
