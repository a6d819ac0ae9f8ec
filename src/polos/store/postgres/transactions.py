"""An author's function inside the transaction that records its step."""

from __future__ import annotations

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
# What would stay with the connection when the transaction is over.
_STAYS = re.compile(
    r"(?:^|;)\s*(set\s+(?!(?:local|constraints|transaction)\b)|reset\b|discard\b|deallocate\b)",
    re.IGNORECASE,
)
OWN = frozenset({*values.OWN_TABLES, "beat", "migration"})
# What this session holds on the tables of Polos beyond reading and locking rows: whoever writes to
# a table, empties or changes it takes such a lock, and keeps it until the transaction is over.
_TABLES = "ARRAY[" + ", ".join(f"to_regclass('{{s}}.{name}')::oid" for name in sorted(OWN)) + "]"
_HELD = (
    "ARRAY(SELECT l.relation FROM pg_locks l WHERE l.locktype = 'relation' "
    "AND l.pid = pg_backend_pid() AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND l.relation = ANY({of}))"
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
    f"SELECT {_TABLES}, {_HELD.format(of=_TABLES)}, current_setting('role'), "
    f"set_config('search_path', coalesce({_PATH}, '\"$user\", public'), true), "
    + ", ".join(f"set_config('{name}', 'on', true)" for name in _PLANNER)
)
_TAKE_BACK = (
    f"SELECT {_HELD.format(of='$1::oid[]')}, set_config('role', $2, true), "
    "set_config('search_path', 'pg_catalog', true), "
    + ", ".join(f"set_config('{name}', 'off', true)" for name in _PLANNER)
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
        text = _OPAQUE.sub(" ", query)
        if _ENDS.search(text):
            raise UsageError(
                "the function of a transaction cannot begin or end one: it commits with the record "
                "of its step; use `async with connection.transaction()` for a savepoint"
            )
        if _STAYS.search(text):
            raise UsageError(
                "the function of a transaction cannot change settings of the session, which goes "
                "on without it; use SET LOCAL, which ends with the transaction"
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
            tables, held, role = (await link.fetch(_LEND))[0][:3]
            value = await work.call_async(lent)
            work.prepare(value)
            taken = (await link.fetch(_TAKE_BACK, tables, role))[0][0]
            _check_written(tables, set(taken) - set(held))
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


def _check_written(tables: list[int], taken: set[int]) -> None:
    names = [name for name, table in zip(sorted(OWN), tables, strict=True) if table in taken]
    if names:
        raise UsageError(
            "the function of a transaction wrote to tables of Polos, changed or locked them "
            f"({', '.join(names)}), which it may only read: nothing of it is kept; keep your rows "
            "in tables of your own"
        )


def _explained(error: BaseException) -> BaseException:
    if isinstance(error, asyncpg.InFailedSQLTransactionError):
        return UsageError(
            "a statement of the transaction failed and the function went on: nothing of it can be "
            "kept; let the error pass, or try the statement inside `async with "
            "connection.transaction()`"
        )
    return error
