"""Roles and refusals on a server of the test's own: what is needed, what is said if it lacks."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from bench.pgserver import Server
from polos import PolosClient, Worker, WorkflowContext, WorkflowState, workflow
from polos.errors import (
    StoreError,
    StoreReadOnlyError,
    StoreUnavailableError,
    UsageError,
)
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.store.records import owned_start, read, write, write_all

PASSWORD = "s3cr/et?@:#x"
GIVEN = quote(PASSWORD, safe="")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that asks some roles for their password, as servers on a network do."""
    server = Server(fsync=False)
    hba = server.data / "pg_hba.conf"
    hba.write_text(f"local all asked scram-sha-256\nlocal all barred reject\n{hba.read_text()}")
    server.restart("fast")
    yield server
    server.stop()


@asynccontextmanager
async def admin(server: Server, database: str = "postgres") -> AsyncIterator[Any]:
    connection = await asyncpg.connect(Location(server.url(database)).dsn)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def database(server: Server) -> AsyncIterator[str]:
    """A database of an application's, in which nobody but its owner may create schemas."""
    async with admin(server) as connection:
        await connection.execute("CREATE DATABASE app")
        await connection.execute("REVOKE ALL ON DATABASE app FROM PUBLIC")
        await connection.execute(f"CREATE ROLE asked LOGIN PASSWORD '{PASSWORD}'")
        await connection.execute("CREATE ROLE barred LOGIN; CREATE ROLE reader LOGIN")
        await connection.execute("GRANT CONNECT ON DATABASE app TO asked, barred, reader")
    yield "app"
    async with admin(server) as connection:
        await connection.execute("DROP DATABASE app WITH (FORCE)")
        await connection.execute("DROP ROLE asked; DROP ROLE barred; DROP ROLE reader")


def url_of(server: Server, role: str, database: str = "app", **options: str) -> str:
    return server.url(database, **options).replace("postgres@", f"{role}@", 1)


def asked(server: Server, password: str = GIVEN, database: str = "app", **options: str) -> str:
    return url_of(server, f"asked:{password}", database, **options)


class Count(WorkflowState):
    done: int = 0


@workflow(id="roles.parent", state_schema=Count)
async def parent(ctx: WorkflowContext, n: int) -> int:
    ctx.state.done += await ctx.step.run("one", lambda: n)
    await ctx.step.wait_for("w", seconds=0.01)
    ctx.state.done += await ctx.step.invoke_and_wait("child", child, n)
    return ctx.state.done


@workflow(id="roles.child")
async def child(ctx: WorkflowContext, n: int) -> int:
    return await ctx.step.run("one", lambda: n)


async def own_schema(server: Server, database: str, schema: str = "polos") -> None:
    async with admin(server, database) as connection:
        await connection.execute(f'CREATE SCHEMA "{schema}" AUTHORIZATION asked')


async def test_a_role_that_owns_its_schema_and_nothing_else_is_enough(
    server: Server, database: str
) -> None:
    await own_schema(server, database)
    url = asked(server)
    async with PolosClient(url) as client:
        worker = Worker(client=client)
        serving = asyncio.create_task(worker.run())
        assert await asyncio.gather(*(parent(client, n) for n in range(5))) == [0, 2, 4, 6, 8]
        handle = await parent.invoke(client, 1)
        await handle.cancel()
        await worker.shutdown()
        await serving
    one, two = PostgresStore(Location(url)), PostgresStore(Location(url))
    await one.open()
    await two.open()
    heard: asyncio.Future[set[str]] = asyncio.get_running_loop().create_future()
    two.on_bell = lambda topics: None if heard.done() else heard.set_result(topics)
    await one.session.hold("w1")
    assert await two.session.look("w1") is not None
    one.session.ring({"queue"})
    assert await heard == {"queue"}
    one.kill()
    while await two.session.look("w1") is not None:
        await two.execution("until the lock is free")
    await two.close()


async def test_a_role_without_a_schema_is_told_how_to_get_one(
    server: Server, database: str
) -> None:
    with pytest.raises(StoreError, match=r"permission denied .*CREATE SCHEMA \"polos\" AUTHORI"):
        await PolosClient(asked(server)).list_executions()


async def test_a_role_that_does_not_own_the_schema_is_refused(
    server: Server, database: str
) -> None:
    await own_schema(server, database)
    async with PolosClient(asked(server)) as client:
        await parent(client, 1)
    with pytest.raises(StoreError, match=r"permission denied for schema polos; the role must own"):
        await PolosClient(url_of(server, "reader")).list_executions()


async def test_a_role_that_may_read_looks_with_mode_ro(server: Server, database: str) -> None:
    await own_schema(server, database)
    async with PolosClient(asked(server)) as client:
        await parent(client, 1)
    async with admin(server, database) as connection:
        await connection.execute("GRANT USAGE ON SCHEMA polos TO reader")
        await connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA polos TO reader")
    async with PolosClient(url_of(server, "reader", mode="ro")) as client:
        assert len(await client.list_executions()) == 2
        with pytest.raises(StoreReadOnlyError, match="mode=ro"):
            await parent.invoke(client, 1)
    with pytest.raises(StoreError, match="permission denied for table"):
        await PolosClient(url_of(server, "reader")).list_executions()


async def test_a_role_that_may_change_rows_but_no_tables_works_with_mode_rw(
    server: Server, database: str
) -> None:
    await own_schema(server, database)
    await PolosClient(asked(server)).list_executions()
    async with admin(server, database) as connection:
        await connection.execute("GRANT USAGE ON SCHEMA polos TO reader")
        await connection.execute(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA polos TO reader"
        )
    async with PolosClient(url_of(server, "reader", mode="rw")) as client:
        assert await parent(client, 3) == 6
        handle = await parent.invoke(client, 1)
        await handle.cancel()


async def test_a_standby_is_looked_at_with_mode_ro(server: Server) -> None:
    server.folder.chmod(0o777)
    async with PolosClient(server.url()) as client:
        await parent(client, 1)
        standby = server.add_standby()
        async with PolosClient(f"{standby}&mode=ro") as other:
            assert len(await other.list_executions()) == 2
            handle = await parent.invoke(client, 2)
            assert await handle.result() == 4
            while len(await other.list_executions()) < 4:
                await other.list_executions()  # it follows a little later
    with pytest.raises(StoreReadOnlyError, match="a server that takes writes"):
        await PolosClient(standby).list_executions()


@pytest.mark.parametrize("password", ["wrong", quote("wr/o?n@g", safe="")])
async def test_a_wrong_password(
    server: Server, database: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(
        StoreError, match=r"password authentication failed .*check user and pass"
    ) as e:
        await PolosClient(asked(server, password)).list_executions()
    assert password not in f"{e.value!r} {e.value.__cause__!r} {caplog.text}"


async def test_what_the_servers_rules_reject(server: Server, database: str) -> None:
    with pytest.raises(StoreError, match=r"pg_hba\.conf rejects .*check user and password"):
        await PolosClient(url_of(server, "barred")).list_executions()


async def test_a_missing_database(server: Server, database: str) -> None:
    for mode in ("rwc", "ro"):
        with pytest.raises(StoreError, match=r'database "nowhere" does not exist; create it first'):
            await PolosClient(server.url("nowhere", mode=mode)).list_executions()


@pytest.mark.parametrize(
    "place", ["/x?host=/no/such/folder", "127.0.0.1:1/x", "no-such-host.invalid/x"]
)
async def test_a_server_that_is_not_there_fails_at_once(place: str) -> None:
    at = "" if place.startswith("/x") else f"me:{GIVEN}@"
    client = PolosClient(f"postgresql://{at}{place}")
    # Not one of the pauses between tries: `away` is for a database that was there before.
    with pytest.raises(StoreUnavailableError, match=r"cannot be reached .*check the URL") as error:
        await client.list_executions()
    assert PASSWORD not in str(error.value)
    assert GIVEN not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@host/db",
        "postgresql://me:s3cr/et@host/db",
        "postgresql://me:s3cr?et@host/db",
        "postgresql://me:s3cr@et@host/db",
        "postgresql://me:s3cr#et@host/db",
        "postgresql://me:s3cret@host:port/db",
        "postgresql://me:s3cret@[::1/db",
    ],
)
async def test_a_url_that_would_be_misread(url: str) -> None:
    with pytest.raises(UsageError, match="are written as %40") as error:
        Location(url)
    assert "s3cr" not in str(error.value)
    assert "et@" not in str(error.value)
    for option in ("direct", "away"):
        wrong = f"postgresql://me:s3cret@host/db?password=s3cret&{option}=s3cret:s3cret@x"
        with pytest.raises(UsageError) as error:
            Location(wrong)
        del error


async def test_an_option_that_the_driver_does_not_take() -> None:
    with pytest.raises(UsageError, match="sslmode"):
        await PolosClient("postgresql://me:s3cret@127.0.0.1/x?sslmode=odd").list_executions()


async def for_ever(work: Callable[[], Awaitable[Any]]) -> None:
    while True:
        await work()


async def test_a_password_that_is_changed_while_work_is_going_on_fails_nothing(
    server: Server, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    await own_schema(server, database)
    store = PostgresStore(Location(asked(server, away="0")))
    await store.open()
    await write_all(store, owned_start("a"))
    async with admin(server) as connection:
        await connection.execute("ALTER ROLE asked PASSWORD 'other'")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'asked'"
        )
        with pytest.raises(StoreUnavailableError, match="password authentication failed"):
            await for_ever(lambda: read(store, "a"))  # a connection may not have heard yet
        writing = asyncio.create_task(write(store, owned_start("b"), owned_start("c")))
        assert [type(each) for each in await writing] == [StoreUnavailableError] * 2
        await connection.execute(f"ALTER ROLE asked PASSWORD '{PASSWORD}'")
    while True:
        try:
            await write_all(store, owned_start("d"))
            break
        except AssertionError:
            continue  # it was away at that moment
    assert PASSWORD not in caplog.text
    await store.close()
