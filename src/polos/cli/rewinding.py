"""The commands that go back, and that count: `polos fork`, `polos reset`, `polos count`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from polos.cli import asking, given, output, text
from polos.cli.commands import Id, Json, Url, Where, app
from polos.cli.desk import Desk, run
from polos.cli.exits import Exit
from polos.cli.grid import Grid
from polos.core.model import Status
from polos.errors import UsageError

VALUE_MAX = 60


def _document(name: str, written: str | None) -> Any:
    return None if written is None else given.document(name, written)


@app.command()
def fork(
    context: typer.Context,
    execution_id: Id,
    at: Annotated[str, typer.Option("--at", metavar="STEP", help="The last step that is kept.")],
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="JSON", help="Fields of the state to replace there."),
    ] = None,
    payload: Annotated[
        str | None, typer.Option("--payload", metavar="JSON", help="Another payload.")
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Start a new execution that goes on behind a step of another one, which stays as it is.

    Steps up to that one are not run again. It runs in a process that registers its workflow.

    **Example**

    ```
    polos fork 3f9a2c71 --at book --state '{"legs": 5}'
    ```
    """

    async def job(desk: Desk) -> Exit:
        replaced = _document("--state", state)
        if replaced is not None and not isinstance(replaced, dict):
            raise UsageError(f"--state {state!r}: expected a JSON object of fields")
        handle = await desk.client.fork(
            await desk.resolve(execution_id),
            at_step=at,
            state=replaced,  # pyright: ignore[reportUnknownArgumentType]
            payload=_document("--payload", payload),
        )
        if desk.out.json:
            desk.out.document(await desk.client.get_execution(handle.id))
        else:
            desk.out.show(handle.id)
        return Exit.OK

    run(context, url, as_json, job, write=True)


@app.command()
def reset(
    context: typer.Context,
    execution_id: Id,
    to: Annotated[str, typer.Option("--to", metavar="STEP", help="The last step that is kept.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Let an execution go on, in place, behind one of its steps.

    For one that has ended or waits. What was recorded behind the step is cut off, and kept; the
    state goes back to what the step recorded. Lists the steps that act on the outside and may do
    so again, and asks first; with --json, --yes is needed.

    **Examples**

    ```
    polos reset 3f9a2c71 --to book --dry-run
    polos reset 3f9a2c71 --to book --yes
    ```
    """

    async def job(desk: Desk) -> Exit:
        target = await desk.resolve(execution_id)
        planned = await desk.client.reset(target, to_step=to, dry_run=True)
        if not desk.out.json:
            _show(desk, planned)
        if dry_run:
            if desk.out.json:
                desk.out.document(planned)
            return Exit.OK
        if not yes and not _agreed(desk):
            output.note("nothing was changed")
            return Exit.FAILED
        done = await desk.client.reset(target, to_step=to)
        if desk.out.json:
            desk.out.document(done)
        else:
            desk.out.show(f"{target} goes on behind {text.clean(to)!r}")
        return Exit.OK

    run(context, url, as_json, job, write=True)


def _show(desk: Desk, planned: dict[str, Any]) -> None:
    count = len(planned["steps"])
    steps = "1 step" if count == 1 else f"{count} steps"
    goes = "goes" if count == 1 else "go"
    desk.out.show(f"{steps} behind {text.clean(planned['to_step'])!r} {goes}")
    for each in planned["effects"]:
        name = f"{each['kind']} {text.clean(each['step_key'] or '')}"
        desk.out.show(f"  may happen again: {name} ({each['status']})")
    for child in planned["children"]:
        desk.out.show(f"  is asked to end: child {child}")


def _agreed(desk: Desk) -> bool:
    if desk.out.json:
        raise UsageError("polos reset changes the execution: give --yes, or look with --dry-run")
    # Not `typer.confirm`: it leaves a space on standard output.
    typer.echo("Reset it? [y/N]: ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        typer.echo(err=True)  # nobody is there to answer
    return answer.strip().lower() in {"y", "yes"}


@app.command()
def count(  # noqa: PLR0917 - options, which are given by name
    context: typer.Context,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="PLACE", help="Group by this: status, state.x, tags.x."),
    ] = None,
    total: Annotated[
        str | None, typer.Option("--sum", metavar="PLACE", help="Add this up: state.amount.")
    ] = None,
    where: Where = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="ID", help="Only of this workflow.")
    ] = None,
    status: Annotated[
        Status | None, typer.Option("--status", "-s", help="Only in this status.")
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Count executions, by a place, and add numbers of their states up.

    **Examples**

    ```
    polos count --by status
    polos count --by state.customer_id --sum state.amount --where 'created_at>2026-01-01T00:00Z'
    ```
    """

    async def job(desk: Desk) -> Exit:
        given: dict[str, Any] = {"workflow_id": workflow, "status": status}
        given["where"] = asking.conditions(where or [])
        if total is not None:
            groups = await desk.client.aggregate(sum=total, group_by=by, **given)
        else:
            found = await desk.client.count_executions(group_by=by, **given)
            counted = {None: found} if by is None else found
            groups = [{"group": name, "count": number} for name, number in counted.items()]
        if desk.out.json:
            desk.out.document(groups)
        else:
            desk.out.show(_table(groups, by, total))
        return Exit.OK

    run(context, url, as_json, job)


def _table(groups: list[dict[str, Any]], by: str | None, total: str | None) -> Grid:
    headings = [*([by.upper()] if by else []), "COUNT", *([f"SUM {total}"] if total else [])]
    table = Grid(*headings, flexible={headings[0]}, right={"COUNT", f"SUM {total}"})
    for each in groups:
        group = each["group"]
        name = text.clean(group) if isinstance(group, str) else text.compact(group, VALUE_MAX)
        cells = [*([name] if by else []), str(each["count"])]
        table.add_row(*cells, *([text.compact(each["sum"], VALUE_MAX)] if total else []))
    return table
