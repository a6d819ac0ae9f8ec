"""Executions carried to another store: they go on, or are looked at; nothing false comes in."""

import asyncio
import hashlib
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polos import (
    BatchWorkflowInput,
    Blob,
    PolosClient,
    Secret,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.codecs import EncryptionCodec, generate_key
from polos.engine import archive
from polos.errors import (
    EncryptionKeyError,
    ExecutionNotFoundError,
    ImportFileError,
    StoreReadOnlyError,
    UsageError,
)
from tests.postgres import NAMES
from tests.semantics.stores import contents, fresh, stop_servers, until

__all__ = ["stop_servers"]

KEY = generate_key()
ROUTES = [
    ("sqlite", "sqlite"),
    pytest.param("sqlite", NAMES[-1], marks=pytest.mark.slow),
    pytest.param(NAMES[-1], "sqlite", marks=pytest.mark.slow),
    pytest.param(NAMES[-1], NAMES[-1], marks=pytest.mark.slow),
]


class Trip(WorkflowState):
    stops: list[str] = []
    ticket: Blob | None = None


class Secretive(WorkflowState):
    token: Secret[str] = Secret("Klartext")


class Program:
    """A workflow that waits in the middle for a word, with a child that waits too."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.middle = asyncio.Event()
        self.go = asyncio.Event()

        @workflow(id="leg")
        async def leg(ctx: WorkflowContext, name: str) -> str:
            await ctx.step.run("wait", self._wait)
            return await ctx.step.run("arrive", lambda: name * 20_000)

        @workflow(id="trip", state_schema=Trip)
        async def trip(ctx: WorkflowContext, payload: dict[str, Any]) -> dict[str, Any]:
            ctx.state.ticket = await ctx.step.run("book", self._book)
            ctx.state.stops.append("start")
            await ctx.step.run("large", lambda: "y" * 100_000)
            name = await ctx.step.invoke_and_wait("leg", leg, payload["to"])
            ctx.state.stops.append("end")
            return {"length": len(name), "stops": ctx.state.stops, "ticket": ctx.state.ticket}

        self.trip = trip

    def _book(self) -> Blob:
        self.ran.append("book")
        return Blob.from_bytes(b"ticket")

    async def _wait(self) -> None:
        self.middle.set()
        await self.go.wait()

    async def export(self, url: str, path: Path, codec: Any = None, **options: Any) -> Any:
        """Export the execution while its child runs a step; returns id, facts and result."""
        async with PolosClient(url, codec=codec) as client:
            handle = await self.trip.invoke(client, {"to": "oslo"}, **options)
            await self.middle.wait()
            facts = await client.export_execution(handle.id, path)
            self.go.set()
            return handle.id, facts, await handle.result()


@pytest.mark.parametrize("codec", [None, EncryptionCodec(KEY)], ids=["clear", "encrypted"])
@pytest.mark.parametrize(("source", "target"), ROUTES)
async def test_what_was_exported_midway_goes_on_elsewhere_to_the_same_end(
    source: str, target: str, codec: EncryptionCodec | None, tmp_path: Path
) -> None:
    program, path = Program(), tmp_path / "run.polos"
    id, facts, result = await program.export(fresh(source, tmp_path), path, codec)
    assert facts["execution_id"] == facts["root_id"] == id
    assert facts["code_versions"].keys() == {"trip", "leg"}
    async with PolosClient(fresh(target, tmp_path, 1), codec=codec) as client:
        handle = await client.import_execution(path, resume=True)
        assert handle.id == id
        assert await handle.result() == result
        assert await (await handle.result())["ticket"].read() == b"ticket"
        shown = await client.get_execution(id)
        assert shown["state"]["stops"] == ["start", "end"]
        assert [step["step_key"] for step in await client.get_steps(id)] == ["book", "large", "leg"]
    assert program.ran == ["book"]


@pytest.mark.parametrize("target", ["sqlite", pytest.param(NAMES[-1], marks=pytest.mark.slow)])
async def test_without_resume_it_is_parked_until_it_is_retried(target: str, tmp_path: Path) -> None:
    program, path = Program(), tmp_path / "run.polos"
    id, _, result = await program.export(fresh("sqlite", tmp_path), path)
    async with PolosClient(fresh(target, tmp_path, 1)) as client:
        await client.import_execution(path)
        found = await client.list_executions()
        assert [each["status"] for each in found] == ["waiting"] * 2
        for each in found:
            assert each["blocked_reason"].startswith("imported, not resumed")
        await client.retry_execution(id)  # with all that was parked below it
        assert await client.get_handle(id).result() == result


async def test_the_handles_of_very_many_children_are_those_of_the_new_tree(tmp_path: Path) -> None:
    @workflow(id="one")
    async def one(ctx: WorkflowContext, n: int) -> int:
        return n

    @workflow(id="many")
    async def many(ctx: WorkflowContext) -> list[str]:
        inputs = [BatchWorkflowInput(id="one", payload=n) for n in range(300)]
        handles = await ctx.step.batch_invoke("start", inputs)  # more than 64 KB of them
        await ctx.step.suspend("go")
        return [handle.id for handle in handles]

    url, path = fresh("sqlite", tmp_path), tmp_path / "run.polos"
    async with PolosClient(url) as client:
        handle = await many.invoke(client)
        await until(client.list_suspensions)
        await client.export_execution(handle.id, path)
        carried = await client.import_execution(path, resume=True)
        assert carried.id != handle.id
        await carried.resume("go")
        children = await client.list_executions(parent_execution_id=carried.id, limit=400)
        assert sorted(await carried.result()) == sorted(each["id"] for each in children)


async def test_taken_ids_become_new_ones(tmp_path: Path) -> None:
    program, path = Program(), tmp_path / "run.polos"
    url = fresh("sqlite", tmp_path)
    id, _, result = await program.export(url, path, idempotency_key="once")
    async with PolosClient(url) as client:
        handle = await client.import_execution(path, resume=True)
        assert handle.id != id
        assert await handle.result() == result
        assert (await client.get_execution(handle.id))["idempotency_key"] is None
        children = await client.list_executions(root_execution_id=handle.id)
        assert {each["root_execution_id"] for each in children} == {handle.id}
        assert len(await client.list_executions()) == 4
        assert await client.get_handle(id).result() == result


async def test_what_is_encrypted_stays_so_in_the_file(tmp_path: Path) -> None:
    @workflow(state_schema=Secretive)
    async def hides(ctx: WorkflowContext, text: str) -> str:
        await ctx.step.run("s", lambda: text * 10_000)
        return text

    path = tmp_path / "run.polos"
    async with PolosClient(fresh("sqlite", tmp_path), codec=EncryptionCodec(KEY)) as client:
        handle = await hides.invoke(client, "Klartext")
        await handle.result()
        facts = await client.export_execution(handle.id, path)
    assert facts["encrypted"]
    with zipfile.ZipFile(path) as file:
        assert not any(b"Klartext" in file.read(name) for name in file.namelist())
    url = fresh("sqlite", tmp_path, 1)
    async with PolosClient(url) as client:
        await client.import_execution(path)
        with pytest.raises(EncryptionKeyError):
            await client.get_handle(handle.id).result()
        (step,) = await client.get_steps(handle.id)
        assert step["output"] == "<encrypted>"  # which lies apart
    async with PolosClient("sqlite://", codec=EncryptionCodec(generate_key())) as client:
        with pytest.raises(EncryptionKeyError):
            await client.import_execution(path)
        assert await client.list_executions() == []
    async with PolosClient(url, codec=EncryptionCodec(KEY)) as client:
        assert await client.get_handle(handle.id).result() == "Klartext"
    assert b"Klartext" not in await contents(url)


async def test_the_file_is_its_owners_only_and_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "run.polos"
    await Program().export(fresh("sqlite", tmp_path), path)
    assert path.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob("*.part"))
    async with PolosClient(fresh("sqlite", tmp_path)) as client:
        with pytest.raises(ExecutionNotFoundError):
            await client.export_execution("nope", tmp_path / "none")
        with pytest.raises(UsageError, match="its folder does not exist"):
            await client.export_execution("nope", tmp_path / "no" / "none")
        assert not (tmp_path / "none").exists()


async def test_a_store_that_is_only_looked_at_takes_nothing_in(tmp_path: Path) -> None:
    path, url = tmp_path / "run.polos", fresh("sqlite", tmp_path)
    await Program().export(url, path)
    async with PolosClient(f"{url}?mode=ro") as client:
        with pytest.raises(StoreReadOnlyError):
            await client.import_execution(path)


# -- files that were meddled with -----------------------------------------------------------------

Members = dict[str, bytes]


def resigned(members: Members) -> None:
    """Let the manifest fit what is in the file."""
    manifest = json.loads(members["manifest.json"])
    names = [name for name in members if name != "manifest.json"]
    manifest["members"] = {
        name: {"sha256": hashlib.sha256(members[name]).hexdigest(), "bytes": len(data)}
        for name in names
        for data in (members[name],)
    }
    members["manifest.json"] = json.dumps(manifest).encode()


def with_manifest(**facts: Any) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        manifest = json.loads(members["manifest.json"]) | facts
        members["manifest.json"] = json.dumps(manifest).encode()

    return change


def with_rows(table: str, **values: Any) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        rows = [json.loads(line) for line in members[f"{table}.jsonl"].splitlines()]
        rows[0] |= values
        members[f"{table}.jsonl"] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        resigned(members)

    return change


def tampered(members: Members) -> None:
    members["step.jsonl"] = members["step.jsonl"].replace(b"start", b"stolen")


def renamed(members: Members) -> None:
    members["../../evil"] = members["step.jsonl"]
    resigned(members)


def unnamed(members: Members) -> None:
    members["extra.jsonl"] = b"{}"


def dropped(members: Members) -> None:
    del members["state.jsonl"]


def other_blob(members: Members) -> None:
    name = next(name for name in members if name.startswith("blobs/"))
    members[name] = b"\x00something else"
    resigned(members)


def no_rows(members: Members) -> None:
    members["step.jsonl"] = b"[1]\n"
    resigned(members)


def no_manifest(members: Members) -> None:
    del members["manifest.json"]


@pytest.mark.parametrize(
    ("meddle", "why"),
    [
        (with_manifest(version=2), "version 2, this release knows 1: upgrade"),
        (with_manifest(format="zip"), "its format is 'zip'"),
        (with_manifest(members=[]), "names no executions"),
        (with_manifest(root_id="x"), "is not in it"),
        (with_manifest(blob_sizes={}), "does not know blob"),
        (with_rows("step", root_id="x"), "row of another tree"),
        (with_rows("state", execution_id="x"), "an execution that is not in it"),
        (with_rows("execution", status="done"), "status is unknown"),
        (with_rows("execution", attempt="1"), "attempt is no number of its kind"),
        (with_rows("execution", id=[]), "id is no plain value"),
        (with_rows("execution", payload="no JSON"), "payload is not JSON"),
        (with_rows("execution", tags="{"), "tags is not JSON"),
        (with_rows("execution", created_at=10**18), "created_at is no moment"),
        (with_rows("execution", run_timeout_seconds="x"), "run_timeout_seconds is no number"),
        (with_rows("step", body={"a": 1}), "body is no plain value"),
        (with_rows("step", body="[" * 100_000), "body is not JSON"),
        (with_rows("step", turn="x"), "turn is no number of its kind"),
        (with_rows("step", seq=None), "seq is missing"),
        (with_rows("step", ok="x"), "ok is neither true nor false"),
        (with_rows("state", body="[[1, 2]]"), "do not follow one another"),
        (with_rows("step", future="x"), "'future' of an execution, which this release"),
        (tampered, "is not that of its manifest|was changed since"),
        (renamed, "has a member '../../evil'"),
        (unnamed, "is not what its manifest names"),
        (dropped, "is not what its manifest names"),
        (other_blob, "holds something else"),
        (no_rows, "a line that is no row"),
        (no_manifest, "no manifest"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:30]),
)
async def test_a_file_that_was_changed_is_refused(
    meddle: Callable[[Members], None], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.polos"
    await Program().export(fresh("sqlite", tmp_path), path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    meddle(members)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    async with PolosClient(fresh("sqlite", tmp_path, 1)) as client:
        with pytest.raises(ImportFileError, match=why):
            await client.import_execution(path, resume=True)
        assert await client.list_executions() == []
        # Nor is anything left of a blob that would be taken for the right one.
        blob = await client.store_blob(Blob.from_bytes(b"ticket"))
        assert await blob.read() == b"ticket"


async def test_whatever_is_damaged_it_is_refused_or_makes_no_difference(tmp_path: Path) -> None:
    program, path = Program(), tmp_path / "run.polos"
    await program.export(fresh("sqlite", tmp_path), path)
    whole, chance = path.read_bytes(), random.Random(5)
    refused = 0
    async with PolosClient("sqlite://") as client:
        for _ in range(300):
            data = bytearray(whole)
            place = len(data) - 1 - min(int(chance.expovariate(0.001)), len(data) - 1)
            if chance.random() < 0.2:
                del data[place:]
            else:
                data[place] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            try:
                await client.import_execution(path)
            except ImportFileError:
                refused += 1
        found = await client.list_executions(limit=1_000)
        assert len(found) == 2 * (300 - refused)
        assert {each["workflow_id"] for each in found} <= {"trip", "leg"}
    assert refused > 200


async def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.polos"
    await Program().export(fresh("sqlite", tmp_path), path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["state.jsonl"] = b" " * 1_000_000
    resigned(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    monkeypatch.setattr(archive, "TABLE_MAX", 500_000)
    async with PolosClient(fresh("sqlite", tmp_path, 1)) as client:
        with pytest.raises(ImportFileError, match="1,000,000 bytes, too many"):
            await client.import_execution(path)


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04 cut off"])
async def test_what_is_no_such_file_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    async with PolosClient(fresh("sqlite", tmp_path)) as client:
        with pytest.raises(ImportFileError, match="it is not a zip file"):
            await client.import_execution(path)
        with pytest.raises(ImportFileError, match="No such file"):
            await client.import_execution(tmp_path / "missing")
