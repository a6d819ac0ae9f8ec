"""What an operator looks at and does: workers with what they own, sizes, vacuum."""

from __future__ import annotations

from polos.core.model import WorkerRecord
from polos.core.upkeep import StoreStats, TableSize
from polos.store import rows
from polos.store.postgres.links import Link, connect
from polos.store.postgres.location import Location

VACUUM_SECONDS = 86_400.0
_WORKERS = (
    f"SELECT {rows.WORKER_COLUMNS} FROM {{s}}.worker WHERE stopped_at IS NULL OR stopped_at > $1 "
    "ORDER BY started_at DESC, id DESC"
)
_OWNED = (
    "SELECT worker_id, status, count(*) FROM {s}.execution WHERE completed_at IS NULL "
    "AND status IN ('queued', 'running') AND worker_id = ANY($1::text[]) GROUP BY 1, 2"
)
_EXECUTIONS = "SELECT workflow_id, status, count(*) FROM {s}.execution GROUP BY 1, 2 ORDER BY 1, 2"
_CREATED = "SELECT created_at FROM {s}.execution ORDER BY id"
_SCHEMA = "SELECT coalesce(max(number), 0) FROM {s}.migration"
_TABLES = (
    "SELECT c.relname, pg_total_relation_size(c.oid) FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r' "
    "ORDER BY 1"
)
_DATABASE = "SELECT pg_database_size(current_database())"


async def workers(link: Link, stopped_after: int) -> list[WorkerRecord]:
    """Read the live workers, and those that stopped after a moment, the latest start first."""
    return [rows.worker(tuple(r)) for r in await link.fetch(_WORKERS, stopped_after)]


async def owned(link: Link, worker_ids: list[str]) -> dict[tuple[str, str], int]:
    """Count what workers own: {(worker, status): executions}."""
    return {(id_, status): n for id_, status, n in await link.fetch(_OWNED, worker_ids)}


async def stats(link: Link, location: Location) -> StoreStats:
    """Count executions, rows and bytes; reads whole tables."""
    executions: dict[str, dict[str, int]] = {}
    for workflow_id, status, count in await link.fetch(_EXECUTIONS):
        executions.setdefault(workflow_id, {})[status] = count
    oldest, newest = [await link.row(f"{_CREATED} {order} LIMIT 1") for order in ("ASC", "DESC")]
    tables = [
        TableSize(name, (await link.row(f'SELECT count(*) FROM {{s}}."{name}"'))[0], size)
        for name, size in await link.fetch(_TABLES, location.schema)
    ]
    return StoreStats(
        schema=(await link.row(_SCHEMA))[0],
        executions=executions,
        oldest=oldest and oldest[0],
        newest=newest and newest[0],
        tables=tables,
        sizes={
            "database": (await link.row(_DATABASE))[0],
            "tables": sum(table.bytes for table in tables),
        },
    )


async def vacuum(location: Location) -> tuple[int, int]:
    """Let removed rows' space be used again; returns the bytes of the tables before and after.

    On a connection of its own, since it runs outside of any transaction.
    """
    connection = await connect(location, location.direct or location.dsn)
    try:
        link = Link(connection, location, direct=True)
        before = await link.fetch(_TABLES, location.schema)
        for name, _ in before:
            text = f'VACUUM (ANALYZE) "{location.schema}"."{name}"'
            await connection.execute(text, timeout=VACUUM_SECONDS)
        after = await link.fetch(_TABLES, location.schema)
    finally:
        await connection.close()
    return sum(size for _, size in before), sum(size for _, size in after)
