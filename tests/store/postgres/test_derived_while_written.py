"""A tree that others write to while its topic is derived tells everything in its order."""

from collections.abc import Awaitable, Callable
from typing import Any

from polos.core.model import Row, Status
from polos.store.postgres import events
from polos.store.postgres.links import Link
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.postgres import fresh_url
from tests.store.records import (
    SECOND,
    T0,
    change,
    child_start,
    done_row,
    ending,
    owned_start,
    worker,
    write,
)


class Interrupted(Link):
    """A link behind whose first statement of a kind somebody else commits something."""

    __slots__ = ("meanwhile", "statement")

    meanwhile: Callable[[], Awaitable[None]] | None
    statement: str

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        found = await super().fetch(statement, *arguments)
        if statement == self.statement and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return found


def join(**options: Any) -> Row:
    return Row(1, "invoke_and_wait", "kid", 0, started_at=T0, **options)


async def test_a_child_that_begins_and_ends_meanwhile_comes_before_its_parents_row() -> None:
    store = PostgresStore(Location(fresh_url()))
    await store.open()
    await store.register_worker(worker("w1"))
    await write(store, owned_start("a"))
    begun = change("a", 1, join(), starts=[child_start("k", "a", "a")], status=Status.RUNNING)
    await write(store, begun)

    async def meanwhile() -> None:
        row = done_row(1, "in kid", completed_at=T0 + SECOND)
        row.started_at = T0 + SECOND
        await write(store, change("k", 1, row, root_id="a", status=Status.RUNNING))
        over = ending(at=T0 + 2 * SECOND)
        await write(store, change("k", 1, root_id="a", ending=over))
        closed = join(turn=1, ok=True, body="null", completed_at=T0 + 3 * SECOND)
        await write(store, change("a", 1, closed))

    async def derive(link: Link, _: bool) -> None:
        torn = Interrupted(link.connection, store.location)
        torn.statement, torn.meanwhile = events.TREE, meanwhile
        found = await events.derived(torn, "a")
        assert found is not None
        told.extend((event.execution_id, event.type) for event in found[2])

    told: list[tuple[str | None, str | None]] = []
    await store.do(derive)
    await store.close()
    assert told == [
        ("a", "workflow_start"),
        ("a", "step_start"),
        ("k", "workflow_start"),
        ("k", "step_start"),
        ("k", "step_finish"),
        ("k", "workflow_finish"),
        ("a", "step_finish"),
    ]
