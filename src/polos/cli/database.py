"""The commands `polos db …`: what a store holds, removing old executions, giving space back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from polos.cli import inventory, text
from polos.cli.commands import Json, Url, app
from polos.cli.desk import Desk, run
from polos.cli.exits import Exit
from polos.client import views
from polos.core import ages
from polos.core.upkeep import Pruned
from polos.engine import blobs, transfer
from polos.errors import UsageError
from polos.store.protocol import Store

db = typer.Typer(no_args_is_help=True, help="Look after a store: its size, its old executions.")
app.add_typer(db, name="db")

Progressed = Callable[[int], None]


class Ended(StrEnum):
    """How an execution may have ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@db.command()
def stats(context: typer.Context, url: Url = None, as_json: Json = False) -> None:
    """Show what a store holds: executions by status, rows and bytes by table.

    It reads the whole database, beside those who work on it.

    **Example**

    ```
    polos db stats --json | jq .sizes
    ```
    """

    async def job(desk: Desk) -> Exit:
        found = await (await _store(desk)).stats()
        live = await desk.client.list_workers()
        document = asdict(found) | {
            "oldest": views.moment(found.oldest),
            "newest": views.moment(found.newest),
            "live_workers": sum(each["status"] == "live" for each in live),
        }
        if desk.out.json:
            desk.out.document(document)
        else:
            _show_stats(desk, document)
        return Exit.OK

    run(context, url, as_json, job)


def _show_stats(desk: Desk, found: dict[str, Any]) -> None:
    out, now = desk.out, desk.now()
    if found["executions"]:
        out.show(inventory.executions(found["executions"]))
        out.show("")
    out.show(inventory.sizes(found["tables"]))
    out.show("")
    sized = ", ".join(f"{name} {text.size(count)}" for name, count in found["sizes"].items())
    out.show(f"size     {sized}")
    if found["oldest"]:
        out.show(f"created  {out.time(found['oldest'], now)} … {out.time(found['newest'], now)}")
    out.show(f"workers  {found['live_workers']} live")
    out.show(f"schema   {found['schema']}")


@db.command()
def prune(  # noqa: PLR0917 - options, which are given by name
    context: typer.Context,
    older_than: Annotated[
        str,
        typer.Option("--older-than", metavar="AGE", help="Ended so long ago: 12h, 30d, 1d12h."),
    ],
    workflow: Annotated[
        list[str] | None,
        typer.Option("--workflow", "-w", metavar="ID", help="Only of this workflow; repeatable."),
    ] = None,
    status: Annotated[
        list[Ended] | None,
        typer.Option("--status", "-s", help="Only those that ended so; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=10_000, metavar="N", help="Trees at a time.")
    ] = 100,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Remove executions that ended long ago, with their children and all that was recorded.

    The age counts from the end of the root; a tree in which something is still open stays. The
    space is used again; `polos db vacuum` gives it back to the machine.

    **Examples**

    ```
    polos db prune --older-than 30d --dry-run
    polos db prune --older-than 7d --workflow import_files --status completed
    ```
    """
    seconds = ages.parse("--older-than", older_than)
    if seconds == ages.FOREVER:
        raise UsageError("--older-than 'forever' removes nothing; give an age such as 30d")

    async def job(desk: Desk) -> Exit:
        store = await _store(desk)
        before = desk.clock.now() - round(seconds * 1e6)
        wanted = workflow or await store.finished_workflows()
        found = Found(store, wanted, before, status, batch)
        if dry_run:
            done = await _weigh(found)
        else:
            with _progress(desk, await _count(found)) as progressed:
                done = await _remove(desk, found, progressed)
        apart = 0 if dry_run else await blobs.collect(store, desk.clock.now())
        if desk.out.json:
            document = {"trees": done.trees, "executions": done.executions, "rows": done.rows}
            document["blobs"] = apart
            desk.out.document(document | {"dry_run": dry_run})
        else:
            what = "would be removed" if dry_run else "removed"
            counted = ((done.trees, "tree"), (done.executions, "execution"), (done.rows, "row"))
            counted += ((apart, "blob"),) if apart else ()
            desk.out.show(f"{what}: {', '.join(inventory.several(*each) for each in counted)}")
        return Exit.OK

    run(context, url, as_json, job, write=not dry_run)


class Found:
    """The trees that are to be removed, a page at a time."""

    def __init__(
        self,
        store: Store,
        workflows: Sequence[str],
        before: int,
        statuses: Sequence[str] | None,
        batch: int,
    ) -> None:
        self.store = store
        self.before = before
        self._workflows = workflows
        self._statuses = statuses
        self._batch = batch

    async def pages(self) -> AsyncIterator[list[str]]:
        """Yield the roots, those of one workflow after another, oldest first."""
        for workflow_id in self._workflows:
            after: tuple[int, str] | None = None
            while page := await self.store.due(
                workflow_id, self.before, statuses=self._statuses, after=after, limit=self._batch
            ):
                yield [root for _, root in page]
                after = page[-1]


def _add(total: Pruned, part: Pruned) -> None:
    total.trees += part.trees
    total.executions += part.executions
    total.rows += part.rows


async def _count(found: Found) -> int:
    return sum([len(page) async for page in found.pages()])


async def _weigh(found: Found) -> Pruned:
    total = Pruned()
    async for page in found.pages():
        _add(total, await found.store.weigh(page))
    return total


async def _remove(desk: Desk, found: Found, progressed: Progressed) -> Pruned:
    total = Pruned()
    async for page in found.pages():
        todo = page
        while todo:
            begun = desk.clock.monotonic()
            done = await found.store.prune(todo, found.before)
            _add(total, done)
            progressed(len(todo) - len(done.left))
            todo = done.left
            # Whoever waits for the write lock gets it in between.
            await asyncio.sleep(desk.clock.monotonic() - begun)
    return total


@contextmanager
def _progress(desk: Desk, total: int) -> Generator[Progressed]:
    console = Console(stderr=True)
    if not (total and console.is_terminal and not desk.out.json):
        yield lambda count: None
        return
    columns = (TextColumn("removing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("trees", total=total)
        yield lambda count: bar.advance(task, count)


@db.command()
def vacuum(context: typer.Context, url: Url = None, as_json: Json = False) -> None:
    """Give the space of what was removed back to the machine.

    On SQLite this rewrites the file: it takes as much free space again, and whoever writes
    meanwhile waits. Run it when there is little to do. PostgreSQL keeps the space, and uses it
    again: there it is VACUUM (ANALYZE), beside all other work.

    **Example**

    ```
    polos db vacuum
    ```
    """

    async def job(desk: Desk) -> Exit:
        before, after = await (await _store(desk)).vacuum()
        if desk.out.json:
            desk.out.document({"bytes_before": before, "bytes_after": after})
        else:
            desk.out.show(f"{text.size(before)} before, {text.size(after)} after")
        return Exit.OK

    run(context, url, as_json, job, write=True)


@db.command()
def rekey(context: typer.Context, url: Url = None, as_json: Json = False) -> None:
    """Encrypt every stored value with the first key of POLOS_ENCRYPTION_KEYS.

    For a new key: put it in front, restart all processes, run this, then take the old key away.
    It also encrypts what was stored in clear before there was a key. It goes through the database
    a page at a time, beside those who work on it, and may be run again at any time.

    **Example**

    ```
    POLOS_ENCRYPTION_KEYS=$NEW,$OLD polos db rekey
    ```
    """

    async def job(desk: Desk) -> Exit:
        store = await _store(desk)
        if store.lining.codec is None:
            raise UsageError("there is no key to encrypt with; set POLOS_ENCRYPTION_KEYS")
        count = await transfer.rekey(store)
        if desk.out.json:
            desk.out.document({"values": count})
        else:
            desk.out.show(f"{inventory.several(count, 'value')} encrypted with the first key")
        return Exit.OK

    run(context, url, as_json, job, write=True)


async def _store(desk: Desk) -> Store:
    return (await desk.client.node()).engine.store
