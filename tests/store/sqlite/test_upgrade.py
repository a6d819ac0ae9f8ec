"""Processes of the release before go on with a database that a newer one has brought up to date."""

import sqlite3
from contextlib import closing
from pathlib import Path

from polos.store.sqlite.connection import Location, migrations
from polos.store.sqlite.store import SqliteStore
from tests.store.records import T0, claim_all, worker

# As the first release wrote them, column by column.
OLD_START = (
    "INSERT INTO execution (root_id, id, workflow_id, root_workflow_id, status, attempt, wake_at, "
    "created_at) VALUES (?, ?, 'wf', 'wf', 'queued', 0, ?, ?)"
)
OLD_WORKER = (
    "INSERT INTO worker (id, host, pid, started_at, stopped_at, takes_queue, workflows) "
    "VALUES ('old', 'host', 1, ?, NULL, 1, '[\"wf\"]')"
)


async def test_what_the_first_release_wrote_and_writes_is_anyone_s(tmp_path: Path) -> None:
    path = tmp_path / "polos.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(migrations()[0].read_text(encoding="utf-8"))
        old.execute("PRAGMA user_version = 1")
        old.execute(OLD_START, ("a", "a", T0, T0))
        old.commit()
        store = SqliteStore(Location(f"sqlite:///{path}"))
        await store.open()
        old.execute(OLD_START, ("b", "b", T0, T0))
        old.execute(OLD_WORKER, (T0,))
        old.commit()
    (found,) = await store.live_workers()
    assert (found.deployment_id, found.versions) == (None, None)
    await store.register_worker(worker("new", deployment_id="green", versions={"wf": "1"}))
    await store.sort_out(T0 + 1)
    assert await claim_all(store, "new", takes_queue=True) == ["a", "b"]
    found = await store.execution("a")
    assert found is not None
    assert found.code_version == "1"
    await store.close()
