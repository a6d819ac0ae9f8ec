"""An author's function inside the transaction that records its step."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from polos.core.model import Change
from polos.errors import StoreUnavailableError, UsageError
from polos.store import values
from polos.store.commands import settle
from polos.store.lining import Lining
from polos.store.postgres import batch
from polos.store.postgres.links import AGAIN, Link

_LENT = frozenset(
    {
        *("execute", "executemany", "fetch", "fetchrow", "fetchval", "fetchmany", "cursor"),
        *("prepare", "transaction", "copy_from_query", "copy_from_table", "copy_records_to_table"),
        *("copy_to_table", "is_in_transaction", "get_settings", "get_server_version"),
    }
)
_STATEMENTS = frozenset(
    {
        *("execute", "executemany", "fetch", "fetchrow", "fetchval", "fetchmany", "cursor"),
        "prepare",
    }
)
# What only looks like a statement: texts, names, bodies of functions, comments.
_OPAQUE = re.compile(
    r"""\be'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(\w*)\$.*?\$\1\$
    | --[^\n]* | /\*.*?\*/ | \bbegin\s+atomic\b.*?;\s*end\b""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_ENDS = re.compile(
    r"(?:^|;)\s*"
    r"(begin|start\s+transaction|commit|end|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b)|abort"
    r"|prepare\s+transaction)\b",
    re.IGNORECASE,
)
OWN = frozenset({*values.OWN_TABLES, "beat", "migration"})
# How many rows this session has written, by whatever: statements, COPY, functions, triggers.
# What it did before counts too, until the server has taken the numbers up.
_WRITTEN = (
    "(SELECT json_object_agg(relname, n_tup_ins + n_tup_upd + n_tup_del)::text "
    "FROM pg_stat_xact_user_tables WHERE relid IN ("
    + ", ".join(f"to_regclass('{{s}}.{name}')" for name in sorted(OWN))
    + "))"
)

# The function's statements mean what they mean to other programs of its role and database.
_PATH = (
    "(SELECT substr(c, 13) FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c "
    "WHERE s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user)) "
    "AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) "
    "AND c LIKE 'search_path=%' ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1)"
)
_PLANNER = ("enable_seqscan", "enable_bitmapscan")
_LEND = (
    f"SELECT {_WRITTEN}, set_config('search_path', coalesce({_PATH}, '\"$user\", public'), true), "
    + ", ".join(f"set_config('{name}', 'on', true)" for name in _PLANNER)
)
_TAKE_BACK = f"SELECT {_WRITTEN}, set_config('search_path', 'pg_catalog', true), " + ", ".join(
    f"set_config('{name}', 'off', true)" for name in _PLANNER
)


class Lent:
    """The connection as the function gets it: it can read and write, and not end the transaction.

    It is an `asyncpg.Connection` as far as its names go; `transaction()` is a savepoint. The tables
    of Polos itself can be read.
    """

    def __init__(self, connection: Any) -> None:
        self._connection: Any = connection

    def __getattr__(self, name: str) -> Any:
        if name not in _LENT:
            raise AttributeError(
                f"{name!r} is not for the function of a transaction; it has "
                f"{', '.join(sorted(_LENT))}"
            )
        if self._connection is None:
            raise UsageError(
                "this connection belonged to a transaction that is over; use it inside the "
                "function that it was given to"
            )
        found = getattr(self._connection, name)
        return _guarded(found) if name in _STATEMENTS else found

    def take_back(self) -> None:
        """The function is over."""
        self._connection = None


def _guarded(call: Callable[..., Any]) -> Callable[..., Any]:
    def checked(query: str, *arguments: Any, **options: Any) -> Any:
        if _ENDS.search(_OPAQUE.sub(" ", query)):
            raise UsageError(
                "the function of a transaction cannot begin or end one: it commits with the record "
                "of its step; use `async with connection.transaction()` for a savepoint"
            )
        return call(query, *arguments, **options)

    return checked


async def run(
    link: Link,
    change: Change,
    at: Callable[[str], Awaitable[None]],
    lining: Lining,
    *,
    again: bool,
) -> batch.Written:
    """Fence a change, call its work, have it formed and write it, in the caller's transaction."""
    work = change.work
    assert work is not None
    if again and work.is_formed:
        # Whether it was committed is in the journal: whoever goes on with it finds out.
        raise StoreUnavailableError(
            f"the connection was lost while a transaction of execution {change.execution_id} was "
            "committed"
        )
    await at("begin")
    written = batch.Written(1)
    if not await batch.owns(link, change, written):
        return written
    lent = Lent(link.connection)
    try:
        async with link.connection.transaction():
            before = (await link.fetch(_LEND))[0][0]
            value = await work.call_async(lent)
            work.prepare(value)
            _check_written(before, (await link.fetch(_TAKE_BACK))[0][0])
    except AGAIN:
        raise
    except BaseException as error:  # whatever it is, the step fails with it
        if link.connection.is_closed():
            raise
        work.reject(_explained(error))
    else:
        work.accept()
    finally:
        lent.take_back()
    sealed = lining.change(change)
    written = await batch.write(link, [sealed], lining, again=False)
    settle(change, sealed)
    await at("before")
    return written


def _check_written(before: str, after: str) -> None:
    counts: dict[str, int] = json.loads(before)
    names = [name for name, count in json.loads(after).items() if count != counts.get(name)]
    if names:
        raise UsageError(
            f"the function of a transaction wrote to tables of Polos ({', '.join(sorted(names))}), "
            "which it may only read: nothing of it is kept; keep your rows in tables of your own"
        )


def _explained(error: BaseException) -> BaseException:
    if isinstance(error, asyncpg.InFailedSQLTransactionError):
        return UsageError(
            "a statement of the transaction failed and the function went on: nothing of it can be "
            "kept; let the error pass, or try the statement inside `async with "
            "connection.transaction()`"
        )
    return error
