"""What an operator looks at and does: workers with what they own, sizes, giving space back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from polos.core.model import WorkerSeen
from polos.core.upkeep import StoreStats, TableSize
from polos.store import rows
from polos.store.sqlite import queries
from polos.store.sqlite.connection import Location, connect, schema_version, translated
from polos.store.sqlite.liveness import FileLiveness, MemoryLiveness

_OWNED = (
    f"SELECT worker_id, status, count(*) FROM execution WHERE {queries.OPEN} "
    "AND status IN ('queued', 'running') AND worker_id IS NOT NULL GROUP BY worker_id, status"
)


def workers(
    connection: apsw.Connection, liveness: FileLiveness | MemoryLiveness, stopped_after: int
) -> list[WorkerSeen]:
    """Read the live workers, and those that stopped after a moment, the latest start first."""
    owned: dict[tuple[str, str], int] = {
        (worker_id, status): count for worker_id, status, count in connection.execute(_OWNED)
    }
    found = connection.execute(
        f"SELECT {rows.WORKER_COLUMNS} FROM worker WHERE stopped_at IS NULL OR stopped_at > ? "
        "ORDER BY started_at DESC, id DESC",
        (stopped_after,),
    ).fetchall()
    seen: list[WorkerSeen] = []
    for record in map(rows.worker, found):
        held, beat_at = liveness.seen(record.id)
        running, queued = (
            owned.get((record.id, status), 0) if record.stopped_at is None else 0
            for status in ("running", "queued")
        )
        seen.append(WorkerSeen(record, held, beat_at, running, queued))
    return seen


def stats(connection: apsw.Connection, location: Location) -> StoreStats:
    """Count executions, rows and bytes; reads the whole database."""
    executions: dict[str, dict[str, int]] = {}
    for workflow_id, status, count in connection.execute(
        "SELECT workflow_id, status, count(*) FROM execution GROUP BY 1, 2 ORDER BY 1, 2"
    ):
        executions.setdefault(workflow_id, {})[status] = count
    oldest, newest = (
        connection.execute(f"SELECT created_at FROM execution ORDER BY id {order} LIMIT 1").get
        for order in ("ASC", "DESC")
    )
    return StoreStats(
        schema=schema_version(connection),
        executions=executions,
        oldest=oldest,
        newest=newest,
        tables=_tables(connection),
        sizes=_sizes(connection, location),
    )


def _tables(connection: apsw.Connection) -> list[TableSize]:
    found: list[Any] = connection.execute(
        "SELECT s.tbl_name, sum(d.pgsize) FROM dbstat d JOIN sqlite_schema s "
        "ON s.name = d.name WHERE d.aggregate = TRUE GROUP BY 1"
    ).fetchall()
    sized: dict[str, int] = dict(found)
    return [
        TableSize(name, connection.execute(f'SELECT count(*) FROM "{name}"').get, size)
        for name, size in sorted(sized.items())
        if not name.startswith("sqlite_")
    ]


def _sizes(connection: apsw.Connection, location: Location) -> dict[str, int]:
    page, pages, free = (
        int(connection.execute(f"PRAGMA {name}").get)
        for name in ("page_size", "page_count", "freelist_count")
    )
    return {"database": page * pages, "wal": _bytes(location, "-wal"), "free": page * free}


def _bytes(location: Location, suffix: str = "") -> int:
    path = Path(f"{location.path}{suffix}")
    return path.stat().st_size if not location.memory and path.exists() else 0


def _on_disk(location: Location) -> int:
    return _bytes(location) + _bytes(location, "-wal")


@translated
def vacuum(location: Location) -> tuple[int, int]:
    """Rewrite the file without its free pages; returns its bytes, WAL included, before and after.

    On a connection of its own: others may read meanwhile, and write when it is done.
    """
    before = _on_disk(location)
    connection = connect(location)
    try:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()
    return before, _on_disk(location)


def vacuum_memory(connection: apsw.Connection) -> tuple[int, int]:
    """Do the same in memory."""
    location = Location("sqlite://")
    before = _sizes(connection, location)["database"]
    connection.execute("VACUUM")
    return before, _sizes(connection, location)["database"]
