"""An author's function inside the transaction that records its step."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Generator
from typing import Any

import apsw

from polos.core.model import Change
from polos.errors import StoreClosedError, UsageError
from polos.store import values

LOOK_SECONDS = 0.05
"""How often a thread that waits for the event loop looks whether that still runs."""
OWN = frozenset({*values.OWN_TABLES, "sqlite_sequence"})
_DENIED = frozenset({apsw.SQLITE_TRANSACTION, apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH})
_WRITES = frozenset(
    {
        *(apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE, apsw.SQLITE_DROP_TABLE),
        *(apsw.SQLITE_CREATE_INDEX, apsw.SQLITE_DROP_INDEX),
        *(apsw.SQLITE_CREATE_TRIGGER, apsw.SQLITE_DROP_TRIGGER),
    }
)
_LENT = frozenset(
    {
        *("execute", "executemany", "cursor", "changes", "total_changes", "last_insert_rowid"),
        *("blob_open", "create_scalar_function", "create_aggregate_function"),
        *("table_exists", "column_metadata", "in_transaction", "db_names", "pragma"),
    }
)


class Lent:
    """The connection as the function gets it: it can read and write, and not end the transaction.

    It is an `apsw.Connection` as far as its names go: `execute`, `executemany`, `cursor`,
    `changes`, `last_insert_rowid` and some more; `with connection:` is a savepoint. The tables of
    Polos itself can be read.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection: apsw.Connection | None = connection

    def _lent(self) -> apsw.Connection:
        if self._connection is None:
            raise UsageError(
                "this connection belonged to a transaction that is over; use it inside the "
                "function that it was given to"
            )
        return self._connection

    def __getattr__(self, name: str) -> Any:
        if name not in _LENT:
            raise AttributeError(
                f"{name!r} is not for the function of a transaction; it has "
                f"{', '.join(sorted(_LENT))}"
            )
        return getattr(self._lent(), name)

    def __enter__(self) -> Lent:
        self._lent().__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._lent().__exit__(*error)

    def take_back(self) -> None:
        """The function is over."""
        self._connection = None


def _authorize(
    operation: int, first: str | None, second: str | None, database: str | None, inner: str | None
) -> int:
    del database, inner
    table = second if operation in _INDEXED else first
    if operation in _DENIED or (operation in _WRITES and table in OWN):
        return apsw.SQLITE_DENY
    if operation == apsw.SQLITE_ALTER_TABLE and second in OWN:
        return apsw.SQLITE_DENY
    if operation == apsw.SQLITE_PRAGMA and second is not None and first not in _HARMLESS:
        return apsw.SQLITE_DENY
    return apsw.SQLITE_OK


_INDEXED = frozenset(
    {
        *(apsw.SQLITE_CREATE_INDEX, apsw.SQLITE_DROP_INDEX),
        *(apsw.SQLITE_CREATE_TRIGGER, apsw.SQLITE_DROP_TRIGGER),
    }
)
_HARMLESS = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"}
)


@contextlib.contextmanager
def _lent(connection: apsw.Connection) -> Generator[Lent]:
    lent = Lent(connection)
    connection.authorizer = _authorize
    try:
        yield lent
    finally:
        connection.authorizer = None
        lent.take_back()


def on_loop(
    loop: asyncio.AbstractEventLoop,
    call: Callable[[], None],
    path: str,
    is_over: Callable[[], bool],
) -> None:
    """Call something on the event loop from the writer's thread, and wait for it."""
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

    def run_it() -> None:
        try:
            call()
            done.set_result(None)
        except BaseException as error:  # goes to the thread that waits
            done.set_exception(error)

    closed = StoreClosedError(f"{path}: the client was closed; open a new one")
    try:
        loop.call_soon_threadsafe(run_it)
    except RuntimeError:
        raise closed from None
    while not done.done():
        concurrent.futures.wait([done], timeout=LOOK_SECONDS)
        if is_over() or loop.is_closed():
            raise closed
    done.result()


def run(
    connection: apsw.Connection, change: Change, on_loop: Callable[[Callable[[], None]], None]
) -> None:
    """Call the work of a change inside the caller's transaction, and have the change formed.

    If the function raises, what it wrote is undone. An error of the database that ended the whole
    transaction is raised.
    """
    work = change.work
    assert work is not None
    connection.execute("SAVEPOINT polos_work")
    try:
        with _lent(connection) as lent:
            value = work.call(lent)
        on_loop(lambda: work.prepare(value))
    except BaseException as error:  # whatever it is, the step fails with it
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO polos_work")
        failed = _explained(error)
        on_loop(lambda: work.reject(failed))
    else:
        on_loop(work.accept)
    connection.execute("RELEASE polos_work")


def _explained(error: BaseException) -> BaseException:
    if isinstance(error, apsw.AuthError):
        return UsageError(
            "the function of a transaction may neither end the transaction, attach a database, nor "
            f"write to the tables of Polos ({error})"
        )
    return error
