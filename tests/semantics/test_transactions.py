"""`ctx.step.transaction` on real databases: the function's writes commit with the step's record."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from polos import (
    ExecutionFailedError,
    PolosClient,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    events,
    workflow,
)
from polos.errors import UsageError
from polos.store.postgres import transactions as postgres_transactions
from polos.store.sqlite import transactions as sqlite_transactions
from tests.postgres import NAMES, fresh_url, stop_servers

__all__ = ["stop_servers"]


_numbers = itertools.count()


class Table:
    """A table of the program's own, in the database of the store."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f"own_{os.getpid()}_{next(_numbers)}"
        self.is_postgres = not url.startswith("sqlite")

    def insert(self, text: str, *, fail: bool = False) -> Any:
        """Return a function of a transaction that writes a row, and returns how many there are."""
        if not self.is_postgres:

            def write(connection: Any) -> int:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {self.name} (text TEXT)")
                connection.execute(f"INSERT INTO {self.name} VALUES (?)", (text,))
                if fail:
                    raise ValueError(f"no {text}")
                return next(connection.execute(f"SELECT count(*) FROM {self.name}"))[0]

            return write

        async def write_async(connection: Any) -> int:
            await connection.execute(f"CREATE TABLE IF NOT EXISTS {self.name} (text text)")
            await connection.execute(f"INSERT INTO {self.name} VALUES ($1)", text)
            if fail:
                raise ValueError(f"no {text}")
            return await connection.fetchval(f"SELECT count(*) FROM {self.name}")

        return write_async

    def insert_and(self, text: str, then: Callable[[Any], object]) -> Any:
        """Return a function that writes a row, and does or returns something of its own behind."""
        insert = self.insert(text)
        if not self.is_postgres:

            def write(connection: Any) -> object:
                insert(connection)
                return then(connection)

            return write

        async def write_async(connection: Any) -> object:
            await insert(connection)
            return then(connection)

        return write_async

    def call(self, method: str, *arguments: Any) -> Any:
        """Return a function of a transaction that calls a method of its connection."""
        if not self.is_postgres:
            return lambda connection: getattr(connection, method)(*arguments) and None

        async def call(connection: Any) -> None:
            found = getattr(connection, method)(*arguments)
            if found is not None:
                await found

        return call


@pytest.fixture(params=["sqlite", *NAMES])
def url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if request.param in NAMES:
        return fresh_url(request.param)
    return f"sqlite:///{tmp_path}/polos.db"


@pytest.fixture
async def client(url: str) -> AsyncIterator[PolosClient]:
    async with PolosClient(url) as client:
        yield client


@pytest.fixture
def table(url: str) -> Table:
    return Table(url)


async def test_what_it_writes_commits_with_the_record(client: PolosClient, table: Table) -> None:
    class Count(WorkflowState):
        n: int = 0

    @workflow(id="transactions.write", state_schema=Count)
    async def write(ctx: WorkflowContext) -> list[int]:
        insert = table.insert("a")

        def counting(connection: Any) -> int:
            ctx.state.n += 1
            return insert(connection)

        async def counting_async(connection: Any) -> int:
            ctx.state.n += 1
            return await insert(connection)

        function = counting_async if table.is_postgres else counting
        first = await ctx.step.transaction("first", function)
        second = await ctx.step.transaction("second", table.insert("b"))
        return [first, second]

    handle = await write.invoke(client)
    assert await handle.result() == [1, 2]
    assert await handle.state() == {"n": 1}
    steps = await client.get_steps(handle.id)
    assert [(s["step_key"], s["kind"], s["output"]) for s in steps] == [
        ("first", "transaction", 1),
        ("second", "transaction", 2),
    ]


async def test_if_it_raises_nothing_is_kept_and_the_step_fails_once(
    client: PolosClient, table: Table
) -> None:
    @workflow(id="transactions.fail")
    async def code(ctx: WorkflowContext) -> int:
        await ctx.step.transaction("a", table.insert("a"))
        with pytest.raises(StepExecutionError) as error:
            await ctx.step.transaction("b", table.insert("b", fail=True))
        assert str(error.value) == "Step execution failed after 0 retries: no b"
        assert error.value.error_type == "ValueError"
        return await ctx.step.transaction("c", table.insert("c"))

    assert await code(client) == 2


async def test_that_it_leaves_the_process_fails_the_step_and_nothing_else(
    client: PolosClient, table: Table
) -> None:
    @workflow(id="transactions.exit")
    async def code(ctx: WorkflowContext) -> int:
        def leave(connection: Any) -> None:
            raise SystemExit(3)

        await ctx.step.transaction("a", table.insert("a"))
        with pytest.raises(StepExecutionError, match="SystemExit: 3"):
            await ctx.step.transaction("b", table.insert_and("b", leave))
        return await ctx.step.transaction("c", table.insert("c"))

    assert await code(client) == 2


async def test_a_result_that_cannot_be_recorded_keeps_nothing(
    client: PolosClient, table: Table
) -> None:
    @workflow(id="transactions.encode")
    async def code(ctx: WorkflowContext) -> int:
        await ctx.step.transaction("a", table.insert("a"))
        with pytest.raises(StepExecutionError, match="cannot record"):
            await ctx.step.transaction("b", table.insert_and("b", lambda _: object()))
        return await ctx.step.transaction("c", table.insert("c"))

    assert await code(client) == 2


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "/* now */ commit", "END"])
async def test_it_cannot_end_the_transaction(
    client: PolosClient, table: Table, statement: str
) -> None:
    @workflow(id="transactions.commit")
    async def code(ctx: WorkflowContext) -> int:
        with pytest.raises(StepExecutionError, match="transaction"):
            await ctx.step.transaction("a", table.call("execute", statement))
        return await ctx.step.transaction("b", table.insert("b"))

    assert await code(client) == 1


@pytest.mark.parametrize("method", ["fetch", "prepare", "cursor"])
async def test_no_way_of_asking_ends_it(method: str) -> None:
    async with PolosClient(fresh_url()) as client:

        async def commit(connection: Any) -> None:
            await getattr(connection, method)("COMMIT")

        @workflow(id="transactions.ways")
        async def code(ctx: WorkflowContext) -> None:
            await ctx.step.transaction("a", commit)

        with pytest.raises(ExecutionFailedError, match="cannot begin or end one"):
            await code(client)


HARMLESS = [
    "DO $$ DECLARE n int; BEGIN n := 1; END $$",
    "DO $x$ BEGIN NULL; END; $x$",
    "SELECT 'a; commit', E'\\'; rollback' AS \"b; end\" -- ; abort",
    "SELECT 1 /* ; commit */",
    "SAVEPOINT mine; ROLLBACK TO mine; RELEASE mine",
    "CREATE TEMP TABLE texts (t text); INSERT INTO texts VALUES ('; begin'), ('it''s; end')",
    "CREATE FUNCTION pg_temp.one() RETURNS int BEGIN ATOMIC SELECT 1; END",
]


@pytest.mark.parametrize("statement", HARMLESS)
async def test_what_only_looks_like_an_end_is_let_through(statement: str) -> None:
    async with PolosClient(fresh_url()) as client:

        async def harmless(connection: Any) -> int:
            await connection.execute(statement)
            return 1

        @workflow(id="transactions.harmless")
        async def code(ctx: WorkflowContext) -> int:
            return await ctx.step.transaction("a", harmless)

        assert await code(client) == 1


WRITES = [
    "UPDATE {s}execution SET user_id = 'me'",
    "INSERT INTO {s}topic (name, last) VALUES ('mine', 7)",
    "DELETE FROM {s}step",
    "DELETE FROM {s}keyed_state WHERE 1 = 1",
]


@pytest.mark.parametrize("statement", WRITES)
async def test_it_cannot_write_to_tables_of_polos(
    client: PolosClient, table: Table, statement: str
) -> None:
    schema = f'"{parse_qs(urlparse(client.url).query)["schema"][0]}".' if table.is_postgres else ""
    read = f"SELECT count(*) FROM {schema}execution"

    async def reads(connection: Any) -> int:
        if table.is_postgres:
            return await connection.fetchval(read)
        return next(connection.execute(read))[0]

    @workflow(id="transactions.own", state_key=lambda payload: "k", state_schema=Noted)
    async def code(ctx: WorkflowContext) -> list[int]:
        first = await ctx.step.transaction("a", reads)
        with pytest.raises(StepExecutionError, match="of Polos"):
            await ctx.step.transaction("b", table.call("execute", statement.format(s=schema)))
        return [first, await ctx.step.transaction("c", table.insert("c"))]

    for _ in range(2):  # the second has a keyed state to delete
        found = await code(client)
        assert found[0] >= 1
    (shown, _) = await client.list_executions()
    assert shown["user_id"] is None


class Noted(WorkflowState):
    n: int = 0


CHANGES = [
    "DELETE FROM {s}event",
    "TRUNCATE {s}event",
    "DROP TABLE {s}event",
    "ALTER TABLE {s}execution ADD COLUMN mine int",
    "CREATE INDEX mine ON {s}execution (user_id)",
    "CREATE TRIGGER mine BEFORE INSERT ON {s}step "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "LOCK TABLE {s}execution IN EXCLUSIVE MODE",
    "WITH gone AS (DELETE FROM {s}step RETURNING 1) SELECT count(*) FROM gone",
    "DO $$ BEGIN DELETE FROM {s}event; END $$",
    "DROP SCHEMA {schema} CASCADE",
    "SET track_counts = off",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SELECT 1; RESET ALL",
]


@pytest.mark.parametrize("statement", CHANGES)
@pytest.mark.parametrize("name", NAMES)
async def test_it_cannot_empty_lock_or_change_what_is_of_polos(name: str, statement: str) -> None:
    url = fresh_url(name)
    schema = f'"{parse_qs(urlparse(url).query)["schema"][0]}"'
    table = Table(url)
    async with PolosClient(url) as client:
        given = table.call("execute", statement.format(s=f"{schema}.", schema=schema))

        @workflow(id="transactions.changes")
        async def code(ctx: WorkflowContext) -> int:
            with pytest.raises(StepExecutionError, match=r"of Polos|of the session"):
                await ctx.step.transaction("a", given)
            return await ctx.step.transaction("b", table.insert("b"))

        assert await code(client) == 1
        await events.publish(client, "t", {"data": {}})


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM {s}.execution FOR UPDATE",
        "CREATE TEMP TABLE own AS SELECT * FROM {s}.event",
        "SET LOCAL statement_timeout = 1000; SET LOCAL ROLE {role}",
    ],
)
async def test_what_changes_nothing_of_polos_is_let_through(statement: str) -> None:
    url = fresh_url()
    schema = parse_qs(urlparse(url).query)["schema"][0]
    role = f"reader_{schema}"
    async with PolosClient(url) as client:

        async def locks(connection: Any) -> int:
            await connection.execute(f"CREATE ROLE {role}")
            await connection.execute(statement.format(s=schema, role=role))
            return 1

        @workflow(id="transactions.locks")
        async def code(ctx: WorkflowContext) -> int:
            return await ctx.step.transaction("a", locks)

        assert await code(client) == 1


async def test_all_tables_of_polos_are_known(url: str) -> None:
    async with PolosClient(url) as client:
        node: Any = await client.node()
        if url.startswith("sqlite"):
            query = (
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"
            )
            found = await node.store.do(lambda c: [str(name) for (name,) in c.execute(query)])
            assert set(found) == sqlite_transactions.OWN - {"sqlite_sequence"}
            return
        schema = parse_qs(urlparse(url).query)["schema"][0]
        query = (
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') "
            "AND relnamespace = $1::regnamespace"
        )
        found = await node.store.do(lambda link, _: link.fetch(query, f'"{schema}"'))
        assert {str(name) for (name,) in found} == postgres_transactions.OWN


@pytest.mark.parametrize("method", ["close", "no_such_method"])
async def test_it_has_no_other_methods(client: PolosClient, table: Table, method: str) -> None:
    @workflow(id="transactions.close")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.transaction("a", table.call(method))

    with pytest.raises(ExecutionFailedError, match=f"{method!r} is not for the function"):
        await code(client)


async def test_many_at_once_and_beside_other_steps(client: PolosClient, table: Table) -> None:
    @workflow(id="transactions.many")
    async def code(ctx: WorkflowContext) -> int:
        await ctx.step.transaction("make", table.insert("0"))
        found = await asyncio.gather(
            *(ctx.step.transaction(f"t{n}", table.insert(str(n))) for n in range(5)),
            *(ctx.step.run(f"s{n}", int, n) for n in range(5)),
            ctx.step.wait_for("nap", seconds=0.01),
        )
        assert len(set(found[:5])) == 5
        return await ctx.step.transaction("last", table.insert("last"))

    # The first makes the table: two that do that at once are in each other's way on PostgreSQL.
    assert await code(client) == 7
    await asyncio.gather(*(code(client) for _ in range(5)))
    assert await code(client) == 49


async def test_the_connection_is_taken_back(client: PolosClient, table: Table) -> None:
    kept: list[Any] = []

    @workflow(id="transactions.kept")
    async def code(ctx: WorkflowContext) -> None:
        insert = table.insert("a")

        def keep(connection: Any) -> None:
            kept.append(connection)
            insert(connection)

        async def keep_async(connection: Any) -> None:
            kept.append(connection)
            await insert(connection)

        await ctx.step.transaction("a", keep_async if table.is_postgres else keep)

    await code(client)
    with pytest.raises(UsageError, match="a transaction that is over"):
        kept[0].execute("SELECT 1")


async def test_what_is_no_function_is_refused(client: PolosClient) -> None:
    @workflow(id="transactions.refused")
    async def code(ctx: WorkflowContext) -> None:
        function: Any = "INSERT"
        with pytest.raises(UsageError, match="expected a function of a connection"):
            await ctx.step.transaction("a", function)

    await code(client)


async def test_the_kind_of_function_that_fits_the_database(
    client: PolosClient, table: Table
) -> None:
    @workflow(id="transactions.kind")
    async def code(ctx: WorkflowContext) -> Any:
        if table.is_postgres:
            with pytest.raises(UsageError, match="on PostgreSQL a transaction is an async def"):
                await ctx.step.transaction("a", lambda connection: None)
            return 1

        async def awaits(connection: Any) -> None:
            await asyncio.sleep(0)

        with pytest.raises(StepExecutionError, match="on SQLite a transaction cannot await"):
            await ctx.step.transaction("b", awaits)

        async def awaits_nothing(connection: Any) -> int:
            return table.insert("c")(connection)

        return await ctx.step.transaction("c", awaits_nothing)

    assert await code(client) == 1


async def test_a_plain_workflow_has_transactions(client: PolosClient, table: Table) -> None:
    @workflow(id="transactions.plain")
    def plain(ctx: WorkflowContext) -> Any:
        return ctx.step.transaction("a", table.insert("a"))

    assert await plain(client) == 1
