"""What a distributed PostgreSQL would need: each hot statement stays with the roots it names."""

import re
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import asyncpg
import pytest

from polos.store.postgres import (
    events,
    finding,
    queries,
    retention,
    rewinding,
    session,
    statements,
    verbs,
    waits,
    watching,
)
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.postgres import fresh_url

HOT_TABLES = ("execution", "step", "state", "inbox", "wait", "field_index")


def texts(module: ModuleType) -> dict[str, str]:
    """Return the statements of a module by their names."""
    found: dict[str, str] = {}
    for name, value in vars(module).items():
        values = value.items() if isinstance(value, dict) else [(None, value)]
        for key, each in values:
            if isinstance(each, str) and re.match(r"(SELECT|INSERT|UPDATE|DELETE|WITH)\b", each):
                found[name if key is None else f"{name} {key}"] = each
    return found


def is_about_hot_tables(text: str) -> bool:
    return any(f"{{s}}.{table}" in text for table in HOT_TABLES)


# A join by the root, an argument that is the root, or a root that comes in with its row.
BY_ROOT = re.compile(
    r"\b(?:\w+\.)?root_id = (?:\w+\.root_id|\$\d+|ANY\(\$\d+::text\[\]\))"
    r"|INSERT INTO \{s\}\.\w+ \(root_id"
)
REASONS = {
    "statements.KNOWN": "an idempotency key belongs to a workflow, before there is a root",
    "statements.WAITERS": "who waits for a topic, of any root: the head of an index",
    "statements.EVENTS": "who waits for a topic, of any root: the head of an index",
    "events._FORGET": "as above, for a topic that nobody published on; once a minute",
    "events._WATCHED": "as above, for the topics of workflows; once in a survey",
    "verbs._FORGET_WORKERS": "asks of any root whether a worker left something; at a start only",
    "queries._EXECUTION": "what a user names has an id only; a lookup of one row",
    "queries._FINISHED": "as above, for handles that wait",
    "queries.CLAIMABLE": "finds work of any root: the head of an index in each place",
    "queries._TO_CANCEL": "finds work of any root: a partial index that is nearly empty",
    "queries.OVERDUE_CANCEL": "finds work of any root: a partial index that is nearly empty",
    "queries.OVERDUE_TIME": "finds work of any root: a partial index of those with a time limit",
    "queries._NEXT_WAKE": "finds work of any root: the head of an index in each place",
    "queries.LATER_WAKE": "finds work of any root: the head of an index in each place",
    "queries._QUEUED_IDS": "finds work of any root: one head of an index for each workflow",
    "queries.DUE_NEEDS": "finds work of any root: the head of each queue",
    "queries.BLOCKED_NEEDS": "finds work of any root: a partial index that is nearly empty",
    "retention.DUE": "finds old trees of a workflow, in the order of an index",
    "retention.NEXT_WORKFLOW": "finds old trees: one head of an index for each workflow",
    "session._SURVEY": "finds work of any root: made of the above, once in 0.6 s and worker",
    "waits.OPEN": "lists what people can answer, of any root: in the order of a partial index",
    "verbs._LOCK_ONE": "what a user names has an id only",
    "verbs._BLOCK": "by the id of an execution that cannot be run; rare",
    "verbs._OWNED": "all that a dead worker owned, of any root; rare",
    "verbs._RELEASE_NEED": "all of a workflow that has come; rare",
    "finding._WORKFLOW_IDS": "finds workflows: one head of an index for each",
    "watching.HEADS": "what is watched is named by its id; while somebody watches",
    "watching.CURRENT": "what is open and what is new, of any root; while somebody watches many",
    "verbs._BLOCK_NEED": "all of a workflow that nobody has; rare",
}
STATEMENTS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": text
    for module in (
        *(
            statements,
            events,
            finding,
            queries,
            retention,
            rewinding,
            session,
            verbs,
            waits,
            watching,
        ),
    )
    for name, text in texts(module).items()
    if is_about_hot_tables(text)
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_names_the_root_of_what_it_touches_or_says_why_not(name: str) -> None:
    text = STATEMENTS[name]
    parts = re.split(r"\bUNION\b", text)
    each_part = all(BY_ROOT.search(part) or not is_about_hot_tables(part) for part in parts)
    # Each table that is joined, looked at or written has its own.
    touched = len(re.findall(rf"\b[A-Z]+ \{{s\}}\.(?:{'|'.join(HOT_TABLES)})", text))
    named = each_part and len(BY_ROOT.findall(text)) >= touched
    assert named is (name not in REASONS), "reasons are for statements that need one"


def test_the_list_of_hot_statements_is_complete() -> None:
    hot = set(statements.HOT_STATEMENTS)
    fragments = {"_NEW", "_MADE", "_MINE", "_ALIVE"}
    for name, text in texts(statements).items():
        assert text in hot or name.split()[0] in fragments, name
    assert set(REASONS) <= set(STATEMENTS)


@pytest.fixture
async def connection() -> AsyncIterator[Any]:
    location = Location(fresh_url())
    store = PostgresStore(location)
    await store.open()
    await store.close()
    connection = await asyncpg.connect(
        location.dsn, server_settings={"search_path": location.schema}
    )
    yield connection
    await connection.close()


async def test_no_number_is_shared_by_executions(connection: Any) -> None:
    sequences = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = "
        "current_schema()::regnamespace"
    )
    computed = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND (is_identity = 'YES' "
        "OR column_default LIKE 'nextval%' OR is_generated = 'ALWAYS')"
    )
    assert (sequences, computed) == ([], [])


async def test_no_code_of_ours_lives_in_the_database(connection: Any) -> None:
    ours = "current_schema()::regnamespace"
    for query in (
        f"SELECT proname FROM pg_proc WHERE pronamespace = {ours}",
        f"SELECT tgname FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid "
        f"WHERE relnamespace = {ours}",
        f"SELECT typname FROM pg_type WHERE typnamespace = {ours} AND typtype IN ('e', 'd')",
        f"SELECT conname FROM pg_constraint WHERE connamespace = {ours} AND contype = 'f'",
    ):
        assert await connection.fetch(query) == []


async def test_the_root_leads_the_key_of_every_hot_table(connection: Any) -> None:
    found = await connection.fetch(
        "SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] "
        "WHERE i.indisprimary AND c.relnamespace = current_schema()::regnamespace"
    )
    first = dict(found)
    assert {table: first[table] for table in HOT_TABLES} == dict.fromkeys(HOT_TABLES, "root_id")


async def test_tables_that_change_leave_room_and_are_vacuumed_early(connection: Any) -> None:
    found = await connection.fetch(
        "SELECT relname, array_to_string(reloptions, ' ') FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
    )
    options: dict[str, str] = {name: given or "" for name, given in found}
    for table in ("execution", "step", "inbox", "beat"):
        assert "fillfactor=" in options[table], table
    for table in (*HOT_TABLES, "beat"):
        assert "autovacuum_vacuum_" in options[table], table


async def test_no_index_and_no_condition_of_one_is_about_the_status(connection: Any) -> None:
    found = await connection.fetch(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() "
        "AND tablename = 'execution'"
    )
    assert found
    assert [each for (each,) in found if re.search(r"\bstatus\b", each)] == []
