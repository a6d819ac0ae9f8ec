"""Opening a SQLite database: pragmas, migrations, and its errors as ours."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import parse_qsl, unquote

import apsw

from polos.errors import (
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreVersionError,
    UsageError,
)

P = ParamSpec("P")
T = TypeVar("T")

BUSY_TIMEOUT_MAX = 86_400
MEMORY = ":memory:"
_OPTIONS = {"mode", "busy_timeout", "synchronous", "commit"}

UNSTORABLE = (OverflowError, UnicodeEncodeError, TypeError)
"""What binding a value raises that SQLite has no place for."""


class Location:
    """A parsed `sqlite://` URL: `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite://`.

    Options: `mode=ro` (look only), `busy_timeout=SECONDS` (default 5: how long a start waits for
    another process's lock), `synchronous=full|normal` (default full: a commit survives power
    loss; normal: it survives a crash of the process), `commit=auto|inline|thread` (default auto:
    a lone commit is made on the loop thread while commits take less than a millisecond).
    """

    def __init__(self, url: str) -> None:
        scheme, colon, rest = url.partition(":")
        if scheme.lower() != "sqlite" or not colon:
            raise UsageError(f"{url!r} is not a SQLite URL; expected sqlite:///path/to/file.db")
        path, _, query = rest.partition("?")
        if path.startswith("//"):
            path = path[2:].removeprefix("/") if not path.startswith("////") else path[3:]
        options = dict(parse_qsl(query, keep_blank_values=True))
        if unknown := set(options) - _OPTIONS:
            raise UsageError(
                f"unknown option {sorted(unknown)[0]!r} in {url!r}; "
                f"known are {', '.join(sorted(_OPTIONS))}"
            )
        self.path = MEMORY if path in {"", MEMORY} else unquote(path)
        self.read_only = options.get("mode") == "ro"
        if options.get("mode", "rwc") not in {"ro", "rw", "rwc"}:
            raise UsageError(f"mode={options['mode']!r} in {url!r}; expected ro, rw or rwc")
        self.create = options.get("mode", "rwc") == "rwc"
        try:
            self.busy_timeout = float(options.get("busy_timeout", "5"))
        except ValueError:
            self.busy_timeout = -1.0
        if not 0 <= self.busy_timeout <= BUSY_TIMEOUT_MAX:
            raise UsageError(
                f"busy_timeout={options['busy_timeout']!r} in {url!r}; expected seconds, from 0 to "
                f"{BUSY_TIMEOUT_MAX}"
            )
        self.synchronous = options.get("synchronous", "full").lower()
        if self.synchronous not in {"full", "normal"}:
            raise UsageError(f"synchronous={self.synchronous!r} in {url!r}; expected full, normal")
        self.commit = options.get("commit", "auto")
        if self.commit not in {"auto", "inline", "thread"}:
            raise UsageError(f"commit={self.commit!r} in {url!r}; expected auto, inline or thread")

    @property
    def memory(self) -> bool:
        """Say whether the database lives in memory, for this client alone."""
        return self.path == MEMORY


def store_error(error: Exception, path: str) -> StoreError:
    """Return our error for one of SQLite's: what happened to which file, and what to do."""
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreBusyError(
            f"{path}: another process keeps the database locked; end it, or wait longer with "
            "?busy_timeout=SECONDS in the URL"
        )
    if isinstance(error, apsw.ReadOnlyError):
        return StoreReadOnlyError(
            f"{path}: the database is read-only; open it without mode=ro and make the file and "
            "its folder writable"
        )
    if isinstance(error, apsw.FullError):
        return StoreFullError(
            f"{path}: the disk or the database's page limit is full; free space, then start "
            "again: executions go on from their last commit"
        )
    if isinstance(error, apsw.CantOpenError):
        return StoreError(
            f"{path}: the database cannot be opened; check that its folder exists and is writable"
        )
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return StoreError(
            f"{path}: the file is not a healthy SQLite database ({error}); restore it from a "
            "backup, or name another file"
        )
    if isinstance(error, UNSTORABLE):
        return StoreError(f"{path}: a value cannot be stored: {error}; nothing of it was written")
    return StoreError(f"{path}: {error}")


def translated(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a method of an object with `.path`: SQLite's errors come out as ours."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except apsw.Error as error:
            raise store_error(error, str(getattr(args[0], "path", "database"))) from error

    return wrapper


def connect(location: Location) -> apsw.Connection:
    """Open the database for this process; the file's folder is created when it may be."""
    flags = apsw.SQLITE_OPEN_NOMUTEX
    if location.read_only:
        flags |= apsw.SQLITE_OPEN_READONLY
    else:
        flags |= apsw.SQLITE_OPEN_READWRITE
        if location.create:
            flags |= apsw.SQLITE_OPEN_CREATE
            make_folder(location)
    connection = apsw.Connection(location.path, flags=flags, statementcachesize=64)
    connection.set_busy_timeout(int(location.busy_timeout * 1000))
    if not location.memory and not location.read_only:
        connection.execute("PRAGMA journal_mode = wal")
    connection.execute(f"PRAGMA synchronous = {location.synchronous}")
    connection.execute("PRAGMA cache_size = -32768")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    return connection


def make_folder(location: Location) -> None:
    """Create the folder of a new database, with a `.gitignore` that keeps it out of git."""
    if location.memory:
        return
    folder = Path(location.path).absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{location.path}: its folder cannot be made ({error.strerror}); make {folder} a "
            "folder that can be written, or name another file"
        ) from error
    ignore = folder / ".gitignore"
    if folder.name == ".polos" and not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def migrations() -> list[Path]:
    """Return the SQL files of all migrations in order; the schema version is their number."""
    return sorted(Path(__file__).with_name("migrations").glob("*.sql"))


def schema_version(connection: apsw.Connection) -> int:
    """Return how many migrations the database has seen."""
    return int(next(iter(connection.execute("PRAGMA user_version")))[0])


def migrate(connection: apsw.Connection, path: str, *, read_only: bool) -> None:
    """Bring the schema up to date, or refuse a database that this release does not know."""
    steps = migrations()
    if schema_version(connection) == len(steps):
        return
    if not read_only:
        connection.execute("BEGIN IMMEDIATE")
    try:
        have = schema_version(connection)
        if have > len(steps):
            raise StoreVersionError(
                f"{path}: written by a newer release of Polos (schema {have}, this release knows "
                f"{len(steps)}); upgrade the polos package"
            )
        if read_only:
            raise StoreReadOnlyError(
                f"{path}: has schema {have}, this release needs {len(steps)}, and it was opened "
                "read-only; open it once without mode=ro"
            )
        for number, file in enumerate(steps[have:], start=have + 1):
            connection.execute(file.read_text(encoding="utf-8"))
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
