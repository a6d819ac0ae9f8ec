"""The commands that carry executions between stores: `polos export` and `polos import`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from polos import PolosClient
from polos.cli import following, inventory, output
from polos.cli.commands import Id, Json, Url, app
from polos.cli.desk import Desk, run
from polos.cli.exits import Exit
from polos.cli.page import Page
from polos.client.carrying import restore
from polos.errors import UsageError


@app.command("export")
def export(
    context: typer.Context,
    execution_id: Id,
    file: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to, such as run.polos.")
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file, if there is one.")
    ] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Write an execution with its whole tree to one file, for `polos import` elsewhere.

    Journals, the history of states, blobs and code versions. What is encrypted stays so. Nothing
    changes here: an execution that has not ended goes on.

    **Example**

    ```
    polos export 3f9a2c71 -o run.polos
    ```
    """
    if file.exists() and not force:
        raise UsageError(f"{file} exists; name another file, or replace it with --force")

    async def job(desk: Desk) -> Exit:
        target = await desk.resolve(execution_id)
        facts = await desk.client.export_execution(target, file)
        if desk.out.json:
            desk.out.document({"file": str(file), **facts})
        else:
            size = inventory.several(len(facts["blob_sizes"]), "blob")
            desk.out.show(f"{target} with its tree and {size} is in {file}")
            if facts["encrypted"]:
                output.note("its values are encrypted: whoever imports it needs the key")
        return Exit.OK

    run(context, url, as_json, job)


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `polos export` wrote.")],
    resume: Annotated[
        bool, typer.Option("--continue", help="Let what has not ended go on in this store.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Show the execution, and store nothing.")
    ] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Store an exported execution with its tree, continue it, or only show it.

    Without --continue what has not ended is parked until `polos retry`. Ids stay as they are,
    unless one is taken here: then all are new, and a note says so. A file that was changed, or
    that a newer release wrote, is refused.

    **Examples**

    ```
    polos import run.polos --show
    polos import run.polos --continue --url postgresql://db/polos
    ```
    """
    if show and resume:
        raise UsageError("--show stores nothing, so nothing can go on: leave --continue away")

    async def job(desk: Desk) -> Exit:
        node = await desk.client.node()
        done = await restore(node, file, resume=None if show else resume)
        if done.renamed:
            output.note(f"ids were taken, so all are new: {len(done.renamed)} executions")
        found = await following.look(desk.client, done.id)
        if desk.out.json:
            desk.out.document(found.execution | {"steps": found.steps})
        elif show:
            desk.out.show(Page(desk.out, found.execution, found.steps, desk.now()).draw())
        else:
            desk.out.show(f"{done.id} is here; it is {found.execution['status']}")
        return Exit.OK

    run(context, "sqlite://" if show else url, as_json, job, opener=_opened)


@asynccontextmanager
async def _opened(url: str | None) -> AsyncGenerator[PolosClient]:
    # Unlike what the other commands look at, the store need not exist yet.
    async with PolosClient(url) as client:
        yield client
