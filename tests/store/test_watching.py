"""Where recorded states stand: of executions by id, and of all that are open or new."""

import pytest

from polos.core import ids
from polos.core.model import StateEntry, Status
from polos.core.watching import Head
from polos.store.protocol import Store
from polos.store.sqlite.store import SqliteStore
from tests.store.conftest import Opener
from tests.store.records import T0, change, done_row, ending, new_start, owned_start, write_all

OLD, LATE = ids.new_id(T0), ids.new_id(T0 + 60_000_000)


async def test_heads_tell_the_latest_version_and_the_end(store: Store) -> None:
    await write_all(store, owned_start("a", state='{"n": 0}'), owned_start("b"))
    states = [StateEntry(n, "s", T0, '{"n": 1}') for n in (1, 2)]
    await write_all(store, change("a", 1, done_row(1, "s", state_version=2), states=states))
    await write_all(store, change("b", 1, ending=ending()))
    found = {head.id: head for head in await store.heads(["a", "b", "nobody"])}
    assert found == {
        "a": Head("a", "a", "wf", 2, completed_at=None, created_at=T0),
        "b": Head("b", "b", "wf", -1, completed_at=T0, created_at=T0),
    }
    assert await store.heads([]) == []


async def test_current_are_those_that_are_open_and_those_that_are_new(store: Store) -> None:
    for id_, workflow_id in ((OLD, "wf"), (LATE, "wf"), ("0-open", "wf"), ("0-other", "other")):
        await write_all(store, owned_start(id_, workflow_id=workflow_id, state="{}"))
    await write_all(store, new_start("0-queued"))
    for id_ in (OLD, LATE):
        await write_all(store, change(id_, 1, ending=ending(Status.FAILED, "{}")))

    async def current(workflow_id: str | None, first_id: str) -> list[str]:
        return [head.id for head in await store.current_heads(workflow_id, first_id)]

    late = ids.first_id(T0 + 60_000_000)
    assert await current("wf", late) == ["0-open", "0-queued", LATE]
    assert await current("wf", ids.first_id(T0)) == ["0-open", "0-queued", OLD, LATE]
    assert await current(None, late) == ["0-open", "0-other", "0-queued", LATE]
    assert await current("other", late) == ["0-other"]
    assert await current("nothing", late) == []


async def test_the_watermark_moves_with_the_commits_of_others(open_store: Opener) -> None:
    mine, other = await open_store(), await open_store()
    if isinstance(mine, SqliteStore) and mine.location.memory:
        pytest.skip("a database in memory has no other processes")
    await write_all(other, owned_start("a", state='{"n": 0}'))
    seen = {await mine.watermark()}
    for version in (1, 2):
        states = [StateEntry(version, "s", T0, '{"n": 1}')]
        row = done_row(version, f"s{version}", state_version=version)
        await write_all(other, change("a", 1, row, states=states))
        mark = await mine.watermark()
        assert mark not in seen
        seen.add(mark)
