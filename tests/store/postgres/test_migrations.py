"""Changes of the schema: by one at a time, checked, and with workers of two releases at once."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from polos import PolosClient, WorkflowContext, workflow
from polos.errors import StoreReadOnlyError, StoreUnavailableError, StoreVersionError
from polos.store.postgres import migrate
from polos.store.postgres.location import Location
from polos.store.postgres.migrate import Migration, known
from polos.store.postgres.store import PostgresStore
from tests.postgres import NAMES, fresh_url
from tests.store.records import T0, claim_all, new_start, owned_start, read, worker, write_all

NEXT = known()[-1].number + 1
NOTE = Migration(NEXT, f"{NEXT:04}_note.sql", "ALTER TABLE {s}.execution ADD COLUMN note text;")
FIRST_RELEASE = 3
"""The changes up to this one are made on tables that are empty."""
PROGRAM = Path(__file__).with_name("release.py")


@pytest.fixture(params=NAMES)
def url(request: pytest.FixtureRequest) -> str:
    return fresh_url(request.param)


@workflow(id="migrations.echo")
async def echo(ctx: WorkflowContext, text: str) -> str:
    return await ctx.step.run("echo", lambda: text)


async def plain(url: str) -> Any:
    return await asyncpg.connect(Location(url).dsn)


async def execute(url: str, text: str, *arguments: Any) -> list[Any]:
    """Run something as an operator would; `{s}` is the schema."""
    connection = await plain(url)
    try:
        return await connection.fetch(text.replace("{s}", Location(url).schema), *arguments)
    finally:
        await connection.close()


async def opened(url: str, *more: Migration) -> PostgresStore:
    store = PostgresStore(Location(url), known() + more)
    await store.open()
    return store


async def test_many_open_a_fresh_schema_at_once(url: str) -> None:
    stores = await asyncio.gather(*(opened(url, NOTE) for _ in range(12)))
    numbers = [n for (n,) in await execute(url, "SELECT number FROM {s}.migration ORDER BY 1")]
    assert numbers == [each.number for each in (*known(), NOTE)]
    for store in stores:
        await store.close()


@pytest.mark.slow
async def test_many_processes_open_a_fresh_schema_at_once(url: str) -> None:
    text = (
        "import asyncio, sys; from polos import PolosClient\n"
        "async def main():\n"
        "    async with PolosClient(sys.argv[1]) as c: print(len(await c.list_executions()))\n"
        "asyncio.run(main())"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", text, url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(6)
    ]
    answers = await asyncio.gather(*(each.communicate() for each in processes))
    assert answers == [(b"0\n", b"")] * 6


async def test_a_change_that_was_edited_later_is_refused(url: str) -> None:
    await (await opened(url)).close()
    await execute(url, "UPDATE {s}.migration SET checksum = 'other'")
    with pytest.raises(StoreVersionError, match=r"0001_initial\.sql in schema .* is not the"):
        await opened(url)


async def test_a_newer_schema_is_worked_with_unless_it_dropped_what_this_release_needs(
    url: str,
) -> None:
    await (await opened(url, NOTE)).close()
    async with PolosClient(url) as client:
        assert await echo(client, "x") == "x"
    gone = Migration(
        NEXT + 1, "9999_gone.contract.sql", "ALTER TABLE {s}.execution DROP COLUMN note;"
    )
    await (await opened(url, NOTE, gone)).close()
    for option in ("", "&mode=ro", "&mode=rw"):
        with pytest.raises(StoreVersionError, match=r"newer release .*9999_gone.*upgrade"):
            await PolosClient(url + option).list_executions()
    await (await opened(url, NOTE, gone)).close()


@pytest.mark.parametrize("mode", ["ro", "rw"])
async def test_nothing_is_created_or_changed_unless_it_may_be(url: str, mode: str) -> None:
    with pytest.raises(StoreReadOnlyError, match=rf"has 0 of the {len(known())} .*without mode="):
        await opened(f"{url}&mode={mode}")
    schema = Location(url).schema
    found = await execute(url, "SELECT 1 FROM pg_namespace WHERE nspname = $1", schema)
    assert found == []
    await (await opened(url)).close()
    with pytest.raises(StoreReadOnlyError, match=f"has {len(known())} of the {len(known()) + 1} "):
        await opened(f"{url}&mode={mode}", NOTE)
    await (await opened(f"{url}&mode={mode}")).close()


async def test_a_change_that_fails_leaves_nothing_behind(url: str) -> None:
    bad = Migration(
        NEXT + 1, "9999_bad.sql", "CREATE TABLE {s}.half (x int); SELECT no_such_thing();"
    )
    with pytest.raises(Exception, match="no_such_thing"):
        await opened(url, NOTE, bad)
    assert await execute(url, "SELECT to_regclass('{s}.execution')") == [(None,)]
    await (await opened(url, NOTE)).close()


async def test_a_change_waits_for_a_table_in_use_without_keeping_others_from_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_MS", 50)
    store = await opened(url)
    holder = await plain(url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.fetch(f"SELECT * FROM {Location(url).schema}.execution")
    opening = asyncio.create_task(opened(url, NOTE))
    for n in range(5):  # longer than the lock is waited for
        await write_all(store, owned_start(f"e{n}"))
        await execute(url, "SELECT pg_sleep(0.06)")
    assert not opening.done()
    await transaction.rollback()
    await (await opening).close()
    assert (await read(store, "e4")).id == "e4"
    await store.close()
    await holder.close()


async def test_a_table_that_stays_in_use_is_named(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_MS", 10)
    monkeypatch.setattr(migrate, "BUSY_SECONDS", 0.1)
    store = await opened(url)
    holder = await plain(url)
    async with holder.transaction():
        await holder.fetch(f"SELECT * FROM {Location(url).schema}.execution")
        with pytest.raises(StoreUnavailableError, match="pg_stat_activity"):
            await opened(url, NOTE)
    await holder.close()
    await store.close()


async def test_whoever_comes_while_another_changes_the_schema_waits(url: str) -> None:
    store = await opened(url)
    key = migrate.lock_key(Location(url))
    holder = await plain(url)
    await holder.fetch("SELECT pg_advisory_lock($1)", key)
    opening = asyncio.create_task(opened(url, NOTE))
    await execute(url, "SELECT pg_sleep(0.2)")
    assert not opening.done()
    await holder.fetch("SELECT pg_advisory_unlock($1)", key)
    await (await opening).close()
    await store.close()
    await holder.close()


async def test_an_index_that_an_operator_built_before_is_found(url: str) -> None:
    store = await opened(url)
    await write_all(store, owned_start("a"))
    text = "CREATE INDEX {how} IF NOT EXISTS by_note ON {s}.execution (attempt);"
    await execute(url, text.replace("{how}", "CONCURRENTLY"))
    built = "SELECT '{s}.by_note'::regclass::oid"
    before = await execute(url, built)
    later = Migration(NEXT, f"{NEXT:04}_index.sql", text.replace("{how}", ""))
    await (await opened(url, later)).close()
    assert await execute(url, built) == before
    await store.close()


def unready(changes: tuple[Migration, ...]) -> list[str]:
    """Return the changes whose indexes nobody can build CONCURRENTLY before the upgrade."""
    made = re.compile(r"CREATE (?:UNIQUE )?INDEX (?!IF NOT EXISTS)")
    return [each.name for each in changes if made.search(each.text)]


def test_an_index_for_a_table_with_rows_can_be_built_before() -> None:
    assert unready(known()[FIRST_RELEASE:]) == []
    assert unready((Migration(9, "x", "CREATE INDEX a ON {s}.step (key)"),)) == ["x"]


# Adds, and changes the type of a column: what was prepared before has another result type now.
WIDER = "ALTER TABLE {s}.execution ALTER COLUMN blocked_reason TYPE varchar;"


async def test_statements_prepared_before_a_change_are_prepared_anew(url: str) -> None:
    store = await opened(url)
    await store.register_worker(worker("w2"))
    moments = {"now": T0, "queued_before": T0, "asked_before": T0}
    for id in ("a", "b"):
        await write_all(store, owned_start(id), new_start(f"{id}q"))
        assert (await read(store, id)).id == id
        assert await claim_all(store, "w2", takes_queue=True) == [f"{id}q"]
        survey = await store.survey("w2", ["wf"], takes_queue=True, **moments)
        assert not survey.claimable
        await execute(url, WIDER)
    await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["expands", "changes a type"])
async def test_workers_of_two_releases_work_together(url: str, kind: str, tmp_path: Path) -> None:
    changes = [
        NOTE.text + " CREATE INDEX execution_by_note ON {s}.execution (note);",
        WIDER if kind == "changes a type" else "ALTER TABLE {s}.step ADD COLUMN note text;",
    ]
    old = await start(tmp_path, url, "old")
    await reach(old, 2)
    new = await start(tmp_path, url, "new", *changes)
    await reach(new, 2)  # the schema is changed by now
    last = await reach(old, 3)
    await reach(old, last + 30)
    await reach(new, 10)
    (tmp_path / "stop").touch()
    for process in (old, new):
        out, err = await process.communicate()
        assert (process.returncode, err.decode()) == (0, "")
        del out
    open_ = await execute(url, "SELECT count(*) FROM {s}.execution WHERE status <> 'completed'")
    assert open_ == [(0,)]


async def start(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), *arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def reach(process: asyncio.subprocess.Process, rounds: int) -> int:
    """Wait until a process has ended so many rounds; returns how many it has."""
    assert process.stdout is not None
    while line := await process.stdout.readline():
        _, done = json.loads(line)
        if done >= rounds:
            return done
    assert process.stderr is not None
    raise AssertionError((await process.stderr.read()).decode())
