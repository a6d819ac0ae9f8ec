"""Databases that cannot be used: which file, what is wrong, what to do; nothing is half stored."""

import asyncio
import json
from pathlib import Path
from typing import Any

import apsw
import pytest

from polos import ExecutionFailedError, PolosClient, WorkflowContext, workflow
from polos.errors import (
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreVersionError,
    UsageError,
)


@workflow(id="databases.echo")
async def echo(ctx: WorkflowContext, text: str) -> str:
    return await ctx.step.run("echo", lambda: text)


@workflow(id="databases.filling")
async def filling(ctx: WorkflowContext, steps: int) -> int:
    for n in range(steps):
        await ctx.step.run(f"s{n}", lambda: "x" * 20_000)
    return steps


async def filled(url: str) -> str:
    async with PolosClient(url) as client:
        handle = await echo.invoke(client, "first")
        await handle.result()
        return handle.id


def dump(path: Path) -> dict[str, list[Any]]:
    connection = apsw.Connection(str(path))
    try:
        tables = ("execution", "step", "state", "inbox")
        return {t: list(connection.execute(f"SELECT * FROM {t}")) for t in tables}
    finally:
        connection.close()


async def test_a_database_of_a_newer_release(url: str, tmp_path: Path) -> None:
    await filled(url)
    connection = apsw.Connection(str(tmp_path / "polos.db"))
    schema = connection.execute("PRAGMA user_version").get
    connection.execute("PRAGMA user_version = 999")
    before = dump(tmp_path / "polos.db")
    for option in ("", "?mode=ro"):
        client = PolosClient(url + option)
        with pytest.raises(StoreVersionError, match=r"polos\.db.*newer.*999.*upgrade"):
            await echo(client, "x")
    assert dump(tmp_path / "polos.db") == before
    connection.execute(f"PRAGMA user_version = {schema}")
    connection.close()
    client = PolosClient(url)
    assert await echo(client, "x") == "x"
    await client.close()


async def test_a_file_that_another_process_keeps_locked(url: str, tmp_path: Path) -> None:
    await filled(url)
    async with PolosClient(f"{url}?busy_timeout=0.2") as client:
        before = await client.list_executions()
        blocker = apsw.Connection(str(tmp_path / "polos.db"))
        blocker.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusyError, match=r"polos\.db.*locked.*busy_timeout"):
            await echo.invoke(client, "x")
        assert await client.list_executions() == before
        blocker.execute("ROLLBACK")
        blocker.close()
        assert await echo(client, "y") == "y"
        assert len(await client.list_executions()) == len(before) + 1


async def test_a_file_that_is_locked_when_it_is_opened(url: str, tmp_path: Path) -> None:
    blocker = apsw.Connection(str(tmp_path / "polos.db"))
    blocker.execute("CREATE TABLE x (y)")
    blocker.execute("BEGIN EXCLUSIVE")
    client = PolosClient(f"{url}?busy_timeout=0.2")
    with pytest.raises(StoreBusyError, match="locked"):
        await echo(client, "x")
    blocker.execute("ROLLBACK")
    blocker.close()
    assert await echo(client, "y") == "y"  # the same client may try again
    await client.close()


async def test_a_step_waits_for_a_locked_file(url: str, tmp_path: Path) -> None:
    blocker = apsw.Connection(str(tmp_path / "polos.db"))
    gate = asyncio.Event()

    @workflow(id="databases.patient")
    async def patient(ctx: WorkflowContext) -> str:
        await ctx.step.run("gate", gate.wait)
        return await ctx.step.run("after", lambda: "done")

    async with PolosClient(f"{url}?busy_timeout=0.1") as client:
        handle = await patient.invoke(client)
        async with asyncio.timeout(100):
            while not await client.get_steps(handle.id):  # noqa: ASYNC110 - a row, not an event
                await asyncio.sleep(0.02)
        blocker.execute("BEGIN EXCLUSIVE")
        gate.set()
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.5)
        blocker.execute("ROLLBACK")
        blocker.close()
        assert await handle.result(timeout=100) == "done"
        (execution,) = await client.list_executions()
        assert execution["status"] == "completed"


async def test_read_only_looks_and_refuses_the_rest(url: str, tmp_path: Path) -> None:
    id = await filled(url)
    before = dump(tmp_path / "polos.db")
    async with PolosClient(f"{url}?mode=ro") as client:
        assert (await client.get_execution(id))["result"] == "first"
        assert len(await client.get_steps(id)) == 1
        assert await client.get_handle(id).result() == "first"
        with pytest.raises(StoreReadOnlyError, match="mode=ro"):
            await client.cancel_execution(id)
    assert dump(tmp_path / "polos.db") == before


async def test_a_refused_start_leaves_a_read_only_client_as_it_was(
    url: str, tmp_path: Path
) -> None:
    await filled(url)
    client = PolosClient(f"{url}?mode=ro")
    with pytest.raises(StoreReadOnlyError):
        await echo(client, "x")
    await client.close()
    # What SQLite itself needs to read a WAL database is not ours: -wal and -shm.
    assert not list((tmp_path / "polos.db-workers").iterdir())


async def test_read_only_needs_a_database(tmp_path: Path) -> None:
    client = PolosClient(f"sqlite:///{tmp_path}/none.db?mode=ro")
    with pytest.raises(StoreError, match=r"none\.db"):
        await client.list_executions()
    assert list(tmp_path.iterdir()) == []


async def test_mode_rw_creates_nothing(tmp_path: Path) -> None:
    client = PolosClient(f"sqlite:///{tmp_path}/none.db?mode=rw")
    with pytest.raises(StoreError, match=r"none\.db"):
        await client.list_executions()
    assert list(tmp_path.iterdir()) == []


async def test_a_full_disk(url: str, tmp_path: Path) -> None:
    async with PolosClient(url) as client:
        await echo(client, "first")
        writer: apsw.Connection = (await client.node()).store._writer  # type: ignore[attr-defined]
        ((pages,),) = writer.execute("PRAGMA page_count")
        writer.execute(f"PRAGMA max_page_count = {pages + 30}")
        handle = await filling.invoke(client, 50)
        with pytest.raises(StoreFullError, match=r"polos\.db.*full.*free space"):
            await handle.result(timeout=100)
        shown = await handle.get()
        assert shown["status"] not in {"failed", "completed", "cancelled"}
        steps = await client.get_steps(handle.id)
        assert all(s["output"] == "x" * 20_000 for s in steps if s["status"] == "completed")
        starts = (echo.invoke(client, "y" * 50_000) for _ in range(50))
        refused = await asyncio.gather(*starts, return_exceptions=True)
        assert any(isinstance(each, StoreFullError) for each in refused)
    # With space again it goes on from its last commit.
    async with PolosClient(url) as client:
        assert await client.get_handle(handle.id).result(timeout=100) == 50


@pytest.mark.parametrize(
    "content", [b"this is no database " * 100, b"SQLite format 3\0" + b"x" * 5000]
)
async def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    client = PolosClient(f"sqlite:///{path}")
    with pytest.raises(StoreError, match=r"notes\.txt.*not a healthy SQLite database"):
        await echo(client, "x")
    assert path.read_bytes() == content


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    client = PolosClient(f"sqlite:///{tmp_path}")
    with pytest.raises(StoreError, match="cannot be opened"):
        await echo(client, "x")


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    client = PolosClient(f"sqlite:///{tmp_path}/file/polos.db")
    with pytest.raises(StoreError, match="its folder cannot be made"):
        await client.list_executions()


async def test_a_scheme_has_no_case(tmp_path: Path) -> None:
    async with PolosClient(f"SQLite:///{tmp_path}/polos.db") as client:
        assert await client.list_executions() == []


@pytest.mark.parametrize(
    "url",
    ["mysql://host/db", "polos.db", "/tmp/polos.db", "https://host", "x:y"],
)
async def test_an_unknown_scheme(url: str) -> None:
    client = PolosClient(url)
    with pytest.raises(UsageError, match="sqlite:///path"):
        await client.list_executions()


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("mod=ro", "unknown option 'mod'"),
        ("mode=readonly", "ro, rw or rwc"),
        ("busy_timeout=long", "seconds"),
        ("synchronous=off", "full, normal"),
        ("commit=never", "auto, inline or thread"),
    ],
)
async def test_an_unknown_option(url: str, tmp_path: Path, option: str, expected: str) -> None:
    client = PolosClient(f"{url}?{option}")
    with pytest.raises(UsageError, match=expected):
        await client.list_executions()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
async def test_a_busy_timeout_that_makes_no_sense(url: str, value: str) -> None:
    client = PolosClient(f"{url}?busy_timeout={value}")
    with pytest.raises(UsageError, match="busy_timeout"):
        await client.list_executions()


async def test_a_failure_is_stored_as_text(url: str) -> None:
    @workflow(id="databases.failing")
    async def failing(ctx: WorkflowContext) -> None:
        raise ValueError("\u0000 odd \ud800")

    async with PolosClient(url) as client:
        handle = await failing.invoke(client)
        with pytest.raises(ExecutionFailedError):
            await handle.result(timeout=100)
        json.dumps(await client.get_execution(handle.id))
