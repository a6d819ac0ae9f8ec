"""Commands and records as the tests of stores need them, and how to write them."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from polos.core.model import Change, Ending, Execution, Row, Start, Status, WorkerRecord
from polos.store.protocol import Store

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND

Result = BaseException | str | None


class Told(Change):
    """A change that says when it was sealed, and with which result it was called back."""

    on_seal: Callable[[], None] | None = None
    on_done: Callable[[Result], None] | None = None

    def seal(self) -> None:
        on_seal, self.on_seal = self.on_seal, None
        if on_seal is not None:
            on_seal()

    def done(self, result: Result) -> None:
        if self.on_done is not None:
            self.on_done(result)


def new_start(id: str, workflow_id: str = "wf", **options: Any) -> Start:
    """Return a start that is queued for anyone, at `T0` unless `created_at` is given."""
    root_id = options.pop("root_id", id)
    created_at = options.pop("created_at", T0)
    return Start(id, root_id, workflow_id, workflow_id, "1", None, created_at, **options)


def owned_start(id: str, worker_id: str = "w1", **options: Any) -> Start:
    """Return a start whose first attempt is the caller's own."""
    return new_start(id, worker_id=worker_id, attempt=1, **options)


def child_start(id: str, root_id: str, parent_id: str, **options: Any) -> Start:
    """Return the start of a child that its parent awaits."""
    return owned_start(id, root_id=root_id, parent_id=parent_id, awaited=True, **options)


def done_row(seq: int, key: str, body: str = "null", **options: Any) -> Row:
    """Return a row that was handed over in turn `seq`."""
    given: dict[str, Any] = {"turn": seq, "ok": True, "body": body, "completed_at": T0, **options}
    return Row(seq, "run", key, seq - 1, started_at=T0, **given)


def change(id: str, attempt: int = 1, *rows: Row, **options: Any) -> Told:
    """Return a change of a root execution."""
    told = Told(options.pop("root_id", id), id, attempt)
    told.at = T0
    told.rows = list(rows)
    for name, value in options.items():
        setattr(told, name, value)
    return told


def ending(
    status: Status = Status.COMPLETED, body: str | None = '"done"', **options: Any
) -> Ending:
    return Ending(status, body, None, options.pop("at", T0), **options)


def worker(
    id: str,
    *workflows: str,
    takes_queue: bool = False,
    deployment_id: str | None = None,
    versions: dict[str, str] | None = None,
) -> WorkerRecord:
    listed = json.dumps(workflows or ("wf",))
    known = None if versions is None else json.dumps(versions)
    return WorkerRecord(id, "host", 1, T0, None, takes_queue, listed, deployment_id, known)


def _listen(command: Told | Start) -> asyncio.Future[Result]:
    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    if isinstance(command, Told):
        command.on_done = future.set_result
    else:
        command.done = future.set_result
    return future


async def write(store: Store, *commands: Told | Start) -> list[Result]:
    """Write commands in one batch; returns what each was called back with."""
    futures = [_listen(command) for command in commands]
    for command in commands:
        store.submit(command)
    return list(await asyncio.gather(*futures))


async def write_alone(store: Store, command: Told | Start) -> Result:
    """Write a command on the spot if the store can do that now, else in a batch."""
    future = _listen(command)
    if not store.commit_now(command):
        store.submit(command)
    return await future


async def write_all(store: Store, *commands: Told | Start) -> None:
    """Write commands that no store may refuse."""
    for result in await write(store, *commands):
        assert not isinstance(result, BaseException), result


async def read(store: Store, id: str) -> Execution:
    found = await store.execution(id)
    assert found is not None
    return found


async def keys(store: Store, id: str, root_id: str | None = None) -> list[str | None]:
    """Return the keys in the journal of an execution."""
    return [row.key for row in await store.steps(root_id or id, id)]


async def claim_all(
    store: Store, worker_id: str, *, now: int = T0, takes_queue: bool = False, limit: int = 100
) -> list[str]:
    """Claim what a worker of `wf` may claim; returns the ids."""
    found = await store.claimable(worker_id, ["wf"], takes_queue, now, limit)
    return [work.execution.id for work in await store.claim(worker_id, found, {}, now)]
