"""A schema of its own: beside an application's tables, and beside other schemas of ours."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from polos import PolosClient, Worker, WorkflowContext, workflow
from polos.core.model import Status
from polos.errors import UsageError
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.postgres import NAMES, fresh_url
from tests.store.records import T0, change, claim_all, done_row, new_start, worker, write_all


@pytest.fixture(params=NAMES)
def url(request: pytest.FixtureRequest) -> str:
    return fresh_url(request.param)


@pytest.fixture
async def stores() -> AsyncIterator[list[PostgresStore]]:
    """Two stores in two schemas of one database."""
    found = [PostgresStore(Location(fresh_url())) for _ in range(2)]
    for each in found:
        await each.open()
    yield found
    for each in found:
        await each.close()


@workflow(id="schemas.echo")
async def echo(ctx: WorkflowContext, text: str) -> str:
    await ctx.step.wait_for("w", seconds=0.01)
    return await ctx.step.run("echo", lambda: text)


async def connected(url: str) -> Any:
    return await asyncpg.connect(Location(url).dsn)


async def test_an_application_with_the_same_names_and_an_odd_role_notices_nothing(
    url: str,
) -> None:
    schema = Location(url).schema
    hostile, role = f"{schema}_app", f"{schema}_role"
    owner = await connected(url)
    await owner.execute(
        f"CREATE SCHEMA {hostile}; CREATE ROLE {role} LOGIN; CREATE SCHEMA {schema} "
        f"AUTHORIZATION {role}; GRANT USAGE ON SCHEMA {hostile} TO {role};"
    )
    for table in ("execution", "step", "state", "inbox", "worker", "beat", "migration"):
        await owner.execute(f"CREATE TABLE {hostile}.{table} (id int); ")
    # Found before the real ones by whoever looks through this path.
    await owner.execute(
        f"CREATE FUNCTION {hostile}.unnest(text[]) RETURNS SETOF text LANGUAGE sql "
        "AS $$ SELECT 'theirs' $$;"
        f"CREATE FUNCTION {hostile}.never(text, text) RETURNS boolean LANGUAGE sql "
        "AS $$ SELECT false $$;"
        f"CREATE OPERATOR {hostile}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = {hostile}.never)"
    )
    for setting in (
        f"search_path = {hostile}, pg_catalog",
        "default_transaction_isolation = serializable",
        "statement_timeout = '1ms'",
        "synchronous_commit = off",
        "row_security = off",
        "DateStyle = 'SQL, DMY'",
        "bytea_output = 'escape'",
        "timezone = 'Asia/Kathmandu'",
        "standard_conforming_strings = off",
    ):
        await owner.execute(f"ALTER ROLE {role} SET {setting}")
    async with PolosClient(url.replace("postgres@", f"{role}@", 1)) as client:
        serving = asyncio.create_task((worker := Worker(client=client)).run())
        texts = [f"it's \\ {n}" for n in range(10)]
        assert await asyncio.gather(*(echo(client, text) for text in texts)) == texts
        assert len(await client.list_executions(workflow_id="schemas.echo")) == 10
        await worker.shutdown()
        await serving
    for table in ("execution", "step", "state", "inbox", "worker", "beat", "migration"):
        assert await owner.fetch(f"SELECT * FROM {hostile}.{table}") == []
    await owner.close()


async def test_two_schemas_are_two_worlds(stores: list[PostgresStore]) -> None:
    one, two = stores
    # The same ids of executions and workers in both.
    for each in stores:
        await each.register_worker(worker("w1"))
        await write_all(each, new_start("a"))
    assert await claim_all(one, "w1", takes_queue=True) == ["a"]
    found = await two.execution("a")
    assert found is not None
    assert found.status is Status.QUEUED
    await write_all(one, change("a", 1, done_row(1, "x")))
    assert await two.steps("a", "a") == []
    await one.stop_worker("w1", T0, crashed=True)
    assert not await two.worker_stopped("w1")
    assert await claim_all(two, "w1", takes_queue=True) == ["a"]


async def test_a_lock_is_held_in_its_own_schema_only(stores: list[PostgresStore]) -> None:
    one, two = stores
    for each in stores:
        await each.session.hold("w1")
        await each.register_worker(worker("w1"))
    await one.session.drop()
    assert await one.session.look("w1") is None
    assert await two.session.look("w1") == 1


async def test_bells_ring_in_their_own_schema_only(stores: list[PostgresStore]) -> None:
    one, two = stores
    beside = PostgresStore(two.location)
    await beside.open()
    heard: list[tuple[str, set[str]]] = []
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    one.on_bell = lambda topics: heard.append(("one", topics))

    def on_two(topics: set[str]) -> None:
        heard.append(("two", topics))
        if not done.done():
            done.set_result(None)

    two.on_bell = on_two
    beside.session.ring({"queue"})
    await done
    # What was notified before on the same database would have come with this answer.
    await one.session.beat()
    await one.session.look("nobody")
    assert heard == [("two", {"queue"})]
    await beside.close()


@pytest.mark.parametrize("name", ["Upper_Case", "select", "_x", "a" * 63])
async def test_a_schema_may_have_any_plain_name(name: str) -> None:
    url = Location(fresh_url())
    async with PolosClient(f"{url.dsn}&schema={name}") as client:
        assert await echo(client, "x") == "x"
    one, two = (PostgresStore(Location(f"{url.dsn}&schema={name}")) for _ in range(2))
    await one.open()
    await two.open()
    heard: asyncio.Future[set[str]] = asyncio.get_running_loop().create_future()
    two.on_bell = heard.set_result
    one.session.ring({"queue"})
    assert await heard == {"queue"}
    await one.close()
    await two.close()
    connection = await asyncpg.connect(url.dsn)
    await connection.execute(f'DROP SCHEMA "{name}" CASCADE')
    await connection.close()


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "a;drop", "1a", "a" * 64, "ä", "pg_mine"])
async def test_a_schema_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="schema="):
        Location(f"postgresql://h/db?schema={name}")
