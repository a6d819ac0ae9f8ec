"""The commands of `polos`: what each takes, and what it shows."""

from __future__ import annotations

from typing import Annotated

import typer

from polos import __version__
from polos.cli import asking, checking, exits, following, output, past, states, tables, text
from polos.cli.desk import Desk, Settings, run
from polos.cli.exits import Exit
from polos.cli.page import Page
from polos.core.model import Status
from polos.errors import ConflictError, UsageError

EXIT_CODES = "**Exit codes**\n\n" + "\n".join(
    f"* `{code}` {meaning}" for code, meaning in exits.table()
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The store, such as sqlite:///path/to/file.db. "
        "Default: POLOS_URL, else ./.polos/polos.db",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="An execution's id, or at least its last 6 characters."),
]
NewCode = Annotated[
    list[str] | None, typer.Argument(metavar="MODULE...", help="For migrate: the new code.")
]
Values = Annotated[
    str | None,
    typer.Option("--set", metavar="JSON", help="Patch these top-level fields of the state."),
]
IfVersion = Annotated[
    int | None,
    typer.Option("--if-version", metavar="N", help="Only if the state has this version."),
]
Who = Annotated[str | None, typer.Option("--who", metavar="NAME", help="Recorded with the patch.")]
Why = Annotated[str | None, typer.Option("--why", metavar="TEXT", help="Recorded with the patch.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="For migrate: only look, which it always does.")
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="STEP|SEQ|TIME", help="As of a step, an entry, a moment."),
]
Diff = Annotated[
    tuple[str, str] | None,
    typer.Option("--diff", metavar="A B", help="What changed from A to B, given as for --at."),
]
History = Annotated[bool, typer.Option("--history", help="Every recorded state and its changes.")]
Blame = Annotated[
    str | None, typer.Option("--blame", metavar="PATH", help="What set legs[0].to, or total, last.")
]
Watch = Annotated[
    bool, typer.Option("--watch", help="The latest, then every change until the end.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Such as 'state.done>3', tags.team=a, 'state.notes contains x'; repeatable.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"polos {__version__}")
        raise typer.Exit


@app.callback()
def polos(
    context: typer.Context,
    url: Url = None,
    as_json: Json = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Look at durable executions, ask for their cancellation or retry, run workers.

    Only `worker` runs workflows: what the others ask for is done by the process that registers
    the workflow, at once if that runs and else when it starts.
    """
    del version
    context.obj = Settings(url, as_json)


@app.command("list")
def list_executions(  # noqa: PLR0917 - options, which are given by name
    context: typer.Context,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="ID", help="Only of this workflow.")
    ] = None,
    status: Annotated[
        Status | None, typer.Option("--status", "-s", help="Only in this status.")
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Only of this session.")
    ] = None,
    parent: Annotated[
        str | None, typer.Option("--parent", metavar="ID", help="Only children of this execution.")
    ] = None,
    root: Annotated[
        str | None,
        typer.Option("--root", metavar="ID", help="Only this execution and its descendants."),
    ] = None,
    where: Where = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many.")
    ] = 50,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="ID", help="Only older ones than this: the next page."),
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List executions, newest first.

    **Examples**

    ```
    polos list --status failed
    polos list -w import_files -n 5 --json | jq '.[].id'
    polos list --where 'state.done>3' --where 'created_at>2026-01-31T00:00:00Z'
    ```
    """

    async def job(desk: Desk) -> Exit:
        found = await desk.client.list_executions(
            workflow_id=workflow,
            status=status,
            session_id=session,
            parent_execution_id=parent and await desk.resolve(parent),
            root_execution_id=root and await desk.resolve(root),
            where=asking.conditions(where or []),
            limit=limit,
            before=before and await desk.resolve(before),
        )
        if desk.out.json:
            desk.out.document(found)
        elif found:
            desk.out.show(tables.executions(desk.out, found, desk.now()))
        else:
            output.note("no executions here")
        if found.note is not None:
            output.note(found.note)
        if len(found) == limit and desk.out.terminal and not desk.out.json:
            output.note(f"more: polos list --before {found[-1]['id'][-tables.SHORT :]}")
        return Exit.OK

    run(context, url, as_json, job)


@app.command()
def show(
    context: typer.Context,
    execution_id: Id,
    follow: Annotated[
        bool | None,
        typer.Option(
            "--follow/--no-follow",
            "-f",
            help="Stay until it ends. Default: if it has not ended and a terminal looks on.",
            show_default=False,
        ),
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show an execution: its state, its latest steps, how it ended.

    One that has not ended is followed live; Ctrl-C leaves, and the execution goes on. With
    --json --follow every change is a line of its own.

    **Examples**

    ```
    polos show 3f9a2c71
    polos show 3f9a2c71 --no-follow --json | jq .state
    ```
    """

    async def job(desk: Desk) -> Exit:
        found = await following.look(desk.client, await desk.resolve(execution_id))
        wanted = follow
        if wanted is None:
            wanted = not found.ended and desk.out.terminal and not desk.out.json
        if wanted:
            return await _follow(desk, found.execution["id"])
        if desk.out.json:
            desk.out.document(found.execution | {"steps": found.steps})
        else:
            desk.out.show(Page(desk.out, found.execution, found.steps, desk.now()).draw())
        return Exit.OK

    run(context, url, as_json, job)


async def _follow(desk: Desk, execution_id: str) -> Exit:
    if desk.out.json:
        await following.as_json(desk, execution_id)
    elif desk.out.terminal:
        await following.on_terminal(desk, execution_id)
    else:
        await following.as_lines(desk, execution_id)
    ended = await desk.client.get_execution(execution_id)
    return Exit.OK if ended["status"] == "completed" else Exit.FAILED


@app.command()
def state(  # noqa: PLR0917 - options, which are given by name
    context: typer.Context,
    execution_id: Id,
    modules: NewCode = None,
    values: Values = None,
    if_version: IfVersion = None,
    who: Who = None,
    why: Why = None,
    dry_run: DryRun = False,
    at: At = None,
    diff: Diff = None,
    history: History = False,
    blame: Blame = None,
    watch: Watch = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print the recorded state of an execution as JSON: the latest, or a past one. Or patch it.

    With --set the state of an execution that waits is patched: its code sees it when it goes on.
    `polos state migrate --dry-run MODULE...` loads the states of all live executions, and of all
    keys, with the code in hand, lists what would not load, and ends with code 7 if there is any.

    **Examples**

    ```
    polos state 3f9a2c71 | jq .done
    polos state 3f9a2c71 --at book
    polos state 3f9a2c71 --diff 0 book
    polos state 3f9a2c71 --blame customer.name
    polos state 3f9a2c71 --watch --json | jq .state.done
    polos state 3f9a2c71 --set '{"amount": 40}' --why "typo in the order"
    polos state migrate --dry-run shop.workflows --url sqlite:///prod.db
    ```
    """
    if execution_id == states.MIGRATE:

        async def look(desk: Desk) -> Exit:
            return await states.migrations(desk, modules or [], dry_run=dry_run)

        run(context, url, as_json, look)
    idle = values is None and (if_version, who, why) != (None, None, None)
    if modules or dry_run or idle:
        raise UsageError(
            "MODULE... and --dry-run belong to polos state migrate; --if-version, --who and --why "
            "to --set"
        )
    past.demand_one(at, diff, blame, values, whole=history, watched=watch)
    if values is not None:
        given = values

        async def patch(desk: Desk) -> Exit:
            return await states.patch(desk, execution_id, given, if_version, who, why)

        run(context, url, as_json, patch, write=True)

    async def job(desk: Desk) -> Exit:
        return await past.show(desk, execution_id, at, diff, blame, whole=history, watched=watch)

    run(context, url, as_json, job)


@app.command()
def steps(context: typer.Context, execution_id: Id, url: Url = None, as_json: Json = False) -> None:
    """List the steps of an execution, in the order in which they were recorded.

    **Example**

    ```
    polos steps 3f9a2c71 --json | jq '.[] | select(.status == "failed")'
    ```
    """

    async def job(desk: Desk) -> Exit:
        found = await desk.client.get_steps(await desk.resolve(execution_id))
        if desk.out.json:
            desk.out.document(found)
        elif found:
            desk.out.show(tables.steps(desk.out, found, desk.now()))
        else:
            output.note("no steps yet")
        return Exit.OK

    run(context, url, as_json, job)


@app.command()
def cancel(
    context: typer.Context,
    execution_id: Id,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Ask for the cancellation of an execution and its children.

    Its code is told, and has 30 seconds to clean up. What never ran ends at once.

    **Example**

    ```
    polos cancel 3f9a2c71 --wait
    ```
    """

    async def job(desk: Desk) -> Exit:
        target = await desk.resolve(execution_id)
        asked = await desk.client.cancel_execution(target)
        found = await desk.client.get_execution(target)
        if not asked:
            raise ConflictError(
                f"execution {target!r} is {found['status']}; only one that has not ended can be "
                "cancelled"
            )
        if wait:
            found = await following.until_ended(desk.client, target)
        if desk.out.json:
            desk.out.document(found)
        elif found["status"] in following.ENDED:
            desk.out.show(f"{target} {found['status']}")
        else:
            desk.out.show(f"{target} is asked to cancel; it is {found['status']}")
        return Exit.FAILED if wait and found["status"] != "cancelled" else Exit.OK

    run(context, url, as_json, job, write=True)


@app.command()
def retry(context: typer.Context, execution_id: Id, url: Url = None, as_json: Json = False) -> None:
    """Let a failed execution go on from its failed step, or release a blocked one.

    Recorded steps are not run again. It goes on in a process that registers its workflow.

    **Example**

    ```
    polos retry 3f9a2c71 && polos show 3f9a2c71 --follow
    ```
    """

    async def job(desk: Desk) -> Exit:
        target = await desk.resolve(execution_id)
        await desk.client.retry_execution(target)
        found = await desk.client.get_execution(target)
        if desk.out.json:
            desk.out.document(found)
        else:
            desk.out.show(
                f"{target} is {found['status']}; it goes on in a process that registers "
                f"{text.clean(found['workflow_id'])!r}"
            )
        return Exit.OK

    run(context, url, as_json, job, write=True)


@app.command()
def check(
    context: typer.Context,
    modules: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE...",
            help="The code: package.module, package.module:workflow, or path/to/file.py.",
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            "--url",
            metavar="URL",
            help="The store with the live executions. Default: POLOS_URL, else ./.polos/polos.db",
            show_default=False,
        ),
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="ID", help="Only of this workflow.")
    ] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many, newest first."),
    ] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each.")] = False,
) -> None:
    """Replay the journals of live executions against the code in hand, before you deploy it.

    Read-only: no step runs, nothing is written, nobody's work is taken. Lists the executions whose
    journal the code would leave, with the step and the reason, and ends with code 7 if there are
    any. A workflow that no module registers is listed as `unregistered`.

    **Examples**

    ```
    polos check shop.workflows --against sqlite:///prod.db
    polos check workflows.py --workflow import_files --json | jq 'select(.verdict != "ok")'
    ```
    """

    async def job(desk: Desk) -> Exit:
        return await checking.check(desk, modules, workflow, limit)

    run(context, against, as_json, job)
