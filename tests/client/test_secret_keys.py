"""Keyed state and patches with a codec, secrets and large values: none in clear, none lost."""

from pathlib import Path
from typing import Annotated, Any

import pytest

from polos import PolosClient, Secret, Spilled, WorkflowContext, WorkflowState, workflow
from polos.codecs import EncryptionCodec, generate_key
from polos.engine import blobs, transfer
from polos.errors import ConflictError, EncryptionKeyError, UsageError
from tests.semantics.stores import MakeUrl, contents, make_url, stop_servers, until

__all__ = ["make_url", "stop_servers"]

ONE, TWO = generate_key(), generate_key()
MARK = b"Klartext"


class Box(WorkflowState):
    card: Secret[str] = Secret("Klartext-none")
    text: Annotated[str, Spilled] = ""
    items: list[str] = []
    turns: int = 0


@workflow(state_schema=Box, state_key=lambda input: input["key"], index_state=["turns"])
async def fill(ctx: WorkflowContext, input: dict[str, Any]) -> int:
    await ctx.step.run("look", lambda: "Klartext-step")
    if "wait" in input:
        await ctx.step.suspend("gate")
    ctx.state.items.append(f"Klartext-{ctx.state.turns}")
    ctx.state.card = Secret(f"Klartext-{ctx.state.card.reveal()}")
    ctx.state.text += "Klartext-spilled " * 10_000
    ctx.state.turns += 1
    return len(ctx.state.text)


class Pack(WorkflowState):
    text: Annotated[str, Spilled] = ""


@workflow(state_schema=Pack, state_key=lambda _: "pack")
async def pack(ctx: WorkflowContext) -> int:
    ctx.state.text += "Klartext-spilled " * 10_000
    return len(ctx.state.text)


@workflow(state_schema=Box)
async def gate(ctx: WorkflowContext) -> list[Any]:
    await ctx.step.suspend("gate")
    return [ctx.state.card.reveal(), ctx.state.turns, len(ctx.state.text)]


async def shown(client: PolosClient, key: str) -> Any:
    found = await client.get_state("pack" if key == "pack" else "fill", key)
    assert found is not None
    return found


async def is_waiting(client: PolosClient, id: str) -> bool:
    return (await client.get_execution(id))["status"] == "waiting"


async def test_keyed_state_is_encrypted_and_goes_on_from_what_the_last_one_left(
    make_url: MakeUrl,
) -> None:
    url = make_url()
    async with PolosClient(url, codec=EncryptionCodec(ONE)) as client:
        assert await fill.run(client, {"key": "ann"}) == 170_000
        behind = await fill.invoke(client, {"key": "ann", "wait": True})
        await until(lambda: is_waiting(client, behind.id))
        last = await fill.invoke(client, {"key": "ann"})
        await client.resume("fill", behind.id, "gate")
        assert await behind.result() == 340_000
        assert await last.result() == 510_000
        found = await shown(client, "ann")
        assert found["items"] == ["Klartext-0", "Klartext-1", "Klartext-2"]
        assert found["card"] == "**********"
        (listed,) = await client.list_executions(where={"state.turns": 3})
        assert listed["id"] == last.id
    assert MARK not in await contents(url)


@pytest.mark.parametrize("codec", [None, EncryptionCodec(ONE)])
async def test_what_a_key_refers_to_outlives_the_execution_that_left_it(
    make_url: MakeUrl, codec: EncryptionCodec | None
) -> None:
    async def prune() -> int:
        ids = [each["id"] for each in await client.list_executions()]
        await store.prune(ids, 1 << 60)
        assert await client.list_executions() == []
        return await blobs.collect(store, 1 << 61)

    async with PolosClient(make_url(), codec=codec) as client:
        store = (await client.node()).engine.store
        assert await pack.run(client) == 170_000
        assert await prune() == 0
        assert len((await shown(client, "pack"))["text"]) == 170_000
        assert await pack.run(client) == 340_000
        assert await prune() == 2  # the text before, and what was added to it
        assert len((await shown(client, "pack"))["text"]) == 340_000
        await client.delete_state("pack", "pack")
        assert await blobs.collect(store, 1 << 61) == 1


async def test_set_state_is_encrypted_and_read_only_with_the_key(make_url: MakeUrl) -> None:
    url = make_url()
    async with PolosClient(url, codec=EncryptionCodec(ONE)) as client:
        await client.set_state(fill, "bob", Box(card=Secret("Klartext-b"), text="Klartext" * 9_999))
        await client.set_state(fill, "bob", Box(turns=7, text="Klartext" * 9_999), if_version=1)
        assert await fill.run(client, {"key": "bob"}) == 8 * 9_999 + 170_000
        assert (await shown(client, "bob"))["turns"] == 8
    assert MARK not in await contents(url)
    async with PolosClient(url) as client:
        with pytest.raises(EncryptionKeyError):
            await client.get_state(fill, "bob")
        with pytest.raises(UsageError):
            await client.set_state(fill, "eve", Box())
    async with PolosClient(url, codec=EncryptionCodec([TWO, ONE])) as client:
        await transfer.rekey((await client.node()).engine.store)
    async with PolosClient(url, codec=EncryptionCodec(TWO)) as client:
        assert (await shown(client, "bob"))["turns"] == 8


async def test_a_patch_is_encrypted_and_seen_by_the_code(make_url: MakeUrl) -> None:
    url = make_url()
    async with PolosClient(url, codec=EncryptionCodec(ONE)) as client:
        handle = await gate.invoke(client, initial_state=Box(card=Secret("Klartext-1")))
        await until(lambda: is_waiting(client, handle.id))
        patch = {"turns": 5, "text": "Klartext-patched " * 5_000}
        await client.patch_state(handle.id, patch, who="Klartext-who", why="Klartext-why")
        shown = await client.state_history(handle.id)
        assert "Klartext-1" not in str(shown)
        await client.resume("gate", handle.id, "gate")
        assert await handle.result() == ["Klartext-1", 5, 85_000]
    assert b"Klartext-1" not in await contents(url)
    assert b"Klartext-patched" not in await contents(url)


async def test_an_execution_is_carried_with_its_key(make_url: MakeUrl, tmp_path: Path) -> None:
    codec = EncryptionCodec(ONE)
    async with PolosClient(make_url(), codec=codec) as client:
        await fill.run(client, {"key": "ann"})
        handle = await fill.invoke(client, {"key": "ann", "wait": True})
        await until(lambda: is_waiting(client, handle.id))
        await client.export_execution(handle.id, tmp_path / "run.polos")
    async with PolosClient(make_url(), codec=codec) as client:
        await client.import_execution(tmp_path / "run.polos", resume=True)
        behind = await fill.invoke(client, {"key": "ann"})
        with pytest.raises(ConflictError, match="held by execution"):
            await client.import_execution(tmp_path / "run.polos", resume=True)
        await client.resume("fill", handle.id, "gate")
        assert await client.get_handle(handle.id).result() == 340_000
        assert await behind.result() == 510_000
        with pytest.raises(ConflictError, match="has state here"):
            await client.import_execution(tmp_path / "run.polos", resume=True)
        assert (await shown(client, "ann"))["turns"] == 3
