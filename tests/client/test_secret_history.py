"""Forks, resets, history, renewals and transactions with a codec: nothing of them in clear."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from polos import Blob, PolosClient, Secret, WorkflowContext, WorkflowState, workflow
from polos.codecs import EncryptionCodec, generate_key
from polos.engine import transfer
from polos.errors import InvalidStateError, UsageError, WorkflowDefinitionError
from tests.semantics.stores import MakeUrl, contents, make_url, stop_servers, until

__all__ = ["make_url", "stop_servers"]

ONE, TWO = generate_key(), generate_key()
MARK = b"Klartext"
MASK = "**********"


class Trip(WorkflowState):
    card: Secret[str] = Secret("Klartext-card")
    log: list[str] = []
    legs: int = 0
    paper: Blob | None = None


@workflow(id="secret_trip", state_schema=Trip, index_state=["legs"])
async def trip(ctx: WorkflowContext, paper: Blob) -> str:
    ctx.state.paper = paper
    await ctx.step.run("book", lambda: Secret("Klartext-book"))
    ctx.state.card = Secret("Klartext-card-1")
    ctx.state.legs = 1
    for number in range(40):  # enough for marks, which have a delta of their own
        ctx.state.log.append(f"Klartext-{number}")
        await ctx.step.run(f"leg-{number}", lambda: "Klartext-leg")
    ctx.state.log.append("Klartext-large " * 10_000)
    await ctx.step.run("tour", lambda: "Klartext-tour " * 10_000)
    assert ctx.state.paper is not None
    return (await ctx.state.paper.read())[:4].decode()


async def made(client: PolosClient) -> Any:
    handle = await trip.invoke(client, Blob.from_bytes(b"Klartext-blob" * 20_000))
    assert await handle.result() == "Klar"
    return handle


async def test_history_forks_and_resets(make_url: MakeUrl) -> None:
    url = make_url()
    async with PolosClient(url, codec=EncryptionCodec(ONE)) as client:
        handle = await made(client)
        found = await client.state_history(handle.id)
        assert {each["state"]["card"] for each in found} == {MASK}
        assert str(found).count("Klartext-card") == 0
        blamed = await client.blame_state(handle.id, "card")
        assert (blamed["value"], blamed["step_key"]) == (MASK, "leg-0")
        assert (await client.blame_state(handle.id, 'card["$secret"]'))["value"] == MASK
        at = await client.state_at(handle.id, step_key="leg-20")
        assert at is not None
        assert (len(at["log"]), at["card"]) == (21, MASK)
        for each in found:
            assert await client.state_at(handle.id, seq=each["seq"]) == each["state"]
        fork = await handle.fork(at_step="leg-30", state={"legs": 5})
        assert await fork.result() == "Klar"
        done = await client.reset(handle.id, to_step="leg-10")
        assert done["steps"][-1] == "tour"
        assert await handle.result() == "Klar"
        cut = await client.cut_steps(handle.id)
        assert cut[-1]["output"].startswith("Klartext-tour")
        assert (await contents(url)).count(MARK) == 0


async def test_what_is_found_with_a_codec(make_url: MakeUrl) -> None:
    async with PolosClient(make_url(), codec=EncryptionCodec(ONE)) as client:
        handle = await made(client)
        found = await client.list_executions(where={"state.legs": 1})
        assert [each["id"] for each in found] == [handle.id]
        assert await client.count_executions(group_by="state.legs") == {1: 1}
        for place in ("state.log", "payload.a", "result"):
            with pytest.raises(UsageError, match="index_state"):
                await client.list_executions(where={f"{place}.b": 1})
        with pytest.raises(UsageError, match="index_state"):
            await client.count_executions(group_by="state.card")
    with pytest.raises(WorkflowDefinitionError, match="holds a Secret"):

        @workflow(id="secret_trip", state_schema=Trip, index_state=["card"])
        async def found_by_card(ctx: WorkflowContext) -> None: ...


async def test_a_patch_with_a_secret(make_url: MakeUrl) -> None:
    url = make_url()

    @workflow(id="waits_with_secret", state_schema=Trip)
    async def waits(ctx: WorkflowContext) -> str:
        await ctx.step.suspend("ask")
        return str(ctx.state.card.reveal() == "Klartext-patch")

    async with PolosClient(url, codec=EncryptionCodec(ONE)) as client:
        for given in (Secret("Klartext-patch"), "Klartext-patch"):
            handle = await waits.invoke(client)
            await until(lambda: client.list_suspensions(execution_id=handle.id))  # noqa: B023
            shown = await client.patch_state(handle.id, {"card": given})
            assert shown["state"]["card"] == MASK
            await client.resume("waits_with_secret", handle.id, "ask", {})
            assert await handle.result() == "True"
        assert MARK not in await contents(url)


async def test_secrets_of_others_are_secrets_for_code_too(make_url: MakeUrl) -> None:
    shown: list[str] = []

    @workflow(id="reads_secrets", state_schema=Trip)
    async def reads(ctx: WorkflowContext) -> bool:
        ctx.state.card = Secret("Klartext-own")
        await ctx.step.run("first", lambda: None)
        child = await ctx.step.invoke("child", has_secret)
        own = await ctx.step.get_state("own", ctx.execution_id)
        children = await ctx.children_state(ended=True)
        shown.append(f"{own} {children}")
        return (own["card"].reveal(), children[child.id]["state"]["card"].reveal()) == (
            "Klartext-own",
            "Klartext-card",
        )

    url = make_url()
    async with PolosClient(url, codec=EncryptionCodec(ONE)) as client:
        handle = await reads.invoke(client)
        assert await handle.result()
        replayed = await handle.fork(at_step="children_state")
        assert await replayed.result()
        assert len(shown) == 2
        assert MARK.decode() not in str(shown) + str(await client.get_steps(handle.id))
        assert MARK not in await contents(url)


@workflow(id="has_secret", state_schema=Trip)
async def has_secret(ctx: WorkflowContext) -> None: ...


async def test_a_secret_that_does_not_fit_is_not_told(make_url: MakeUrl) -> None:
    async with PolosClient(make_url(), codec=EncryptionCodec(ONE)) as client:
        with pytest.raises(InvalidStateError, match="card: Input should be a value") as caught:
            await has_secret.invoke(client, initial_state={"card": ["Klartext-list"]})
        assert MARK.decode() not in str(caught.value)


async def test_a_fork_keeps_the_blobs_of_what_it_goes_on_from(make_url: MakeUrl) -> None:
    async with PolosClient(make_url()) as client:

        @workflow(state_schema=Plain)
        async def keeps(ctx: WorkflowContext, paper: Blob) -> int:
            ctx.state.paper = paper
            await ctx.step.run("a", lambda: "x" * 100_000)
            await ctx.step.run("b", lambda: 1)
            assert ctx.state.paper is not None
            return len(await ctx.state.paper.read())

        handle = await keeps.invoke(client, Blob.from_bytes(b"p" * 300_000))
        assert await handle.result() == 300_000
        fork = await handle.fork(at_step="a")
        assert await fork.result() == 300_000
        store = (await client.node()).engine.store
        both = [await store.dump_tree(each.id) for each in (handle, fork)]
        hashes = [{row["hash"] for row in each["blob_ref"]} for each in both]
        assert hashes[0] == hashes[1]
        assert len(hashes[0]) == 2


class Plain(WorkflowState):
    paper: Blob | None = None


class Run(BaseModel):
    number: int
    text: str
    paper: Blob


@workflow(state_schema=Trip)
async def renewed(ctx: WorkflowContext, run: Run) -> str:
    ctx.state.log.append(run.text)
    await ctx.step.run("s", lambda: run.text)
    if run.number < 2:
        text, paper = run.text * 20_000, Blob.from_bytes(b"Klartext-second" * 10)
        ctx.continue_as_new(Run(number=run.number + 1, text=text, paper=paper))
    return f"{len(ctx.state.log)} {len(ctx.state.log[-1])} {len(await run.paper.read())}"


async def test_runs_that_go_on_as_new(make_url: MakeUrl) -> None:
    url = make_url()
    for codec in (None, EncryptionCodec(ONE)):
        url = make_url()
        flow = plainly_renewed if codec is None else renewed
        async with PolosClient(url, codec=codec) as client:
            first = Run(number=1, text="Klartext", paper=Blob.from_bytes(b"Klartext"))
            handle = await flow.invoke(client, first)
            assert await handle.result() == "2 160000 150"
            assert (await client.get_execution(handle.id))["generation"] == 1
        if codec is not None:
            assert (await contents(url)).count(MARK) == 0


class Logged(WorkflowState):
    log: list[str] = []


@workflow(state_schema=Logged)
async def plainly_renewed(ctx: WorkflowContext, run: Run) -> str:
    return await renewed.func(ctx, run)


async def test_the_result_of_a_transaction(make_url: MakeUrl) -> None:
    @workflow
    async def writes(ctx: WorkflowContext) -> list[Any]:
        if url.startswith("sqlite"):

            def work(connection: Any) -> Any:
                connection.execute("CREATE TABLE t (a)")
                return [
                    Secret("Klartext-in"),
                    "Klartext-large" * 10_000,
                    Blob.from_bytes(b"Klartext" * 9),
                ]

            got = await ctx.step.transaction("tx", work)
        else:

            async def awork(connection: Any) -> Any:
                await connection.execute("CREATE TEMP TABLE t (a int)")
                return [
                    Secret("Klartext-in"),
                    "Klartext-large" * 10_000,
                    Blob.from_bytes(b"Klartext" * 9),
                ]

            got = await ctx.step.transaction("tx", awork)
        await asyncio.sleep(0)
        return [got[0], len(got[1]), len(await got[2].read())]

    url = make_url()
    async with PolosClient(url, codec=EncryptionCodec(ONE)) as client:
        result = await (await writes.invoke(client)).result()
        assert (result[0].reveal(), *result[1:]) == ("Klartext-in", 140_000, 72)
        assert (await contents(url)).count(MARK) == 0


async def test_a_new_key_for_history(make_url: MakeUrl) -> None:
    url = make_url()
    async with PolosClient(url, codec=EncryptionCodec(ONE)) as client:
        handle = await made(client)
        await client.reset(handle.id, to_step="leg-10")
        await handle.result()
    async with PolosClient(url, codec=EncryptionCodec(keys=[TWO, ONE])) as client:
        store = (await client.node()).engine.store
        assert await transfer.rekey(store) > 0
        assert await transfer.rekey(store) == 0
    async with PolosClient(url, codec=EncryptionCodec(TWO)) as client:
        assert len(await client.state_history(handle.id)) > 40
        assert len(await client.cut_steps(handle.id)) == 30
        tree = await client.get_execution(handle.id)
        assert tree["state"]["card"] == MASK
