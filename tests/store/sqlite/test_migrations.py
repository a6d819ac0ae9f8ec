"""A database of any earlier schema is brought up to date, with what is in it."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from polos.store.sqlite.connection import Location, migrations, schema_version
from polos.store.sqlite.store import SqliteStore


def make(path: Path, version: int) -> None:
    """Make a database as the release with so many migrations left it."""
    with closing(apsw.Connection(str(path))) as connection:
        for file in migrations()[:version]:
            connection.execute(file.read_text(encoding="utf-8"))
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute(
            "INSERT INTO execution (root_id, id, workflow_id, root_workflow_id, status, attempt, "
            "created_at, completed_at) VALUES ('a', 'a', 'wf', 'wf', 'completed', 1, 1, 2)"
        )


@pytest.mark.parametrize("version", range(1, len(migrations()) + 1))
async def test_a_database_of_every_schema_is_brought_up_to_date(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "polos.db"
    make(path, version)
    store = SqliteStore(Location(f"sqlite:///{path}"))
    await store.open()
    found = await store.execution("a")
    assert found is not None
    assert found.completed_at == 2
    assert await store.due("wf", 3, limit=1) == [(2, "a")]
    await store.close()
    with closing(apsw.Connection(str(path))) as connection:
        assert schema_version(connection) == len(migrations())
