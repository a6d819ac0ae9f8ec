"""The commands for people: `polos inbox` lists what is asked, `polos resume` answers it."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, cast

import typer
from rich.text import Text

from polos.cli import following, given, output, tables, text
from polos.cli.commands import Id, Json, Url, app
from polos.cli.desk import Desk, fetch, run
from polos.cli.exits import Exit
from polos.cli.grid import Grid
from polos.cli.output import Output
from polos.cli.prompting import Prompter
from polos.client.finding import NUMBER_MAX
from polos.core import forms
from polos.core.suspension import DATA_OWN
from polos.errors import ConflictError, UsageError

QUESTION_MAX = 200
Record = dict[str, Any]


@app.command()
def inbox(
    context: typer.Context,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="ID", help="Only of this workflow.")
    ] = None,
    execution: Annotated[
        str | None,
        typer.Option("--execution", "-e", metavar="ID", help="Only of the tree of this execution."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=1, metavar="N", help="At most so many. Default: all there are."
        ),
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List open suspensions, the oldest first: what executions ask, and wait for the answer to.

    **Examples**

    ```
    polos inbox
    polos inbox --workflow deploy --json | jq '.[].data'
    ```
    """

    async def job(desk: Desk) -> Exit:
        found = await desk.client.list_suspensions(
            workflow_id=workflow,
            root_execution_id=execution and await _root(desk, execution),
            limit=limit or NUMBER_MAX,
        )
        if desk.out.json:
            desk.out.document(found)
        elif found:
            desk.out.show(_table(desk, found))
        else:
            output.note("nobody asks anything")
        if limit is not None and len(found) == limit and desk.out.terminal and not desk.out.json:
            output.note(f"there may be more: polos inbox --limit {limit * 10}")
        return Exit.OK

    run(context, url, as_json, job)


async def _root(desk: Desk, given: str) -> str:
    found = await desk.client.get_execution(await desk.resolve(given))
    return found["root_execution_id"]


def _table(desk: Desk, found: list[Record]) -> Grid:
    out, now = desk.out, desk.now()
    table = Grid(
        *("ID", "WORKFLOW", "STEP", "SINCE", "TIMES OUT", "QUESTION"),
        flexible={"WORKFLOW", "STEP", "QUESTION"},
        right=set(),
    )
    for each in found:
        id_ = each["execution_id"]
        table.add_row(
            Text(id_[-tables.SHORT :] if out.narrow else id_, "dim"),
            Text(text.clean(each["workflow_id"])),
            Text(text.clean(each["step_key"]), "bold"),
            out.time(each["suspended_at"], now),
            out.time(each["due_at"], now),
            Text(_question(each)),
        )
    return table


def _question(each: Record) -> str:
    form = cast("Record", each["form"] if isinstance(each["form"], dict) else {})
    title = form.get("title")
    if isinstance(title, str) and title:
        return text.cut(text.clean(title), QUESTION_MAX)
    data = each["data"]
    if isinstance(data, dict):
        told = cast("Record", data)
        data = {key: value for key, value in told.items() if key not in DATA_OWN} or None
    return "" if data is None else text.compact(data, QUESTION_MAX)


@app.command()
def resume(
    context: typer.Context,
    execution_id: Id,
    step: Annotated[
        str | None,
        typer.Argument(
            metavar="[STEP]", help="The step that suspended. Default: the one that is open."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="JSON",
            help="The answer; - reads it from standard input. Default: asked for on the terminal.",
            show_default=False,
        ),
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Answer a suspension: the execution goes on with the answer.

    Without --data the fields of the form are asked for one by one. An execution may be named by
    its root. An answer to a step that has not suspended yet is kept until it does.

    **Examples**

    ```
    polos resume 3f9a2c71
    polos resume 3f9a2c71 approve --data '{"approved": true}'
    ```
    """
    answer = _parsed(data)
    prompter = Prompter()
    if step is None or data is None:
        asked = fetch(context, url, lambda desk: _open(desk, execution_id, step))
        step = asked["step_key"]
        if data is None:
            if not prompter.is_possible():
                raise UsageError(_how(asked))
            answer = _prompted(prompter, asked)

    async def job(desk: Desk) -> Exit:
        told = await desk.client.resume(None, await desk.resolve(execution_id), step, answer)
        if desk.out.json:
            desk.out.document(dataclasses.asdict(told))
        else:
            _confirm(desk.out, told)
        return Exit.OK

    run(context, url, as_json, job, write=True)


def _confirm(out: Output, told: Any) -> None:
    step = text.clean(told.step_key)
    if told.early:
        out.show(f"{told.execution_id} has not suspended with {step!r} yet; the answer is kept")
    else:
        out.show(f"{told.execution_id} goes on behind {step!r}")


def _parsed(data: str | None) -> Any:
    if data is None:
        return None
    hint = "; a text has quotes of its own: --data '\"yes\"'"
    return given.document("--data", given.read("--data", data), hint)


async def _open(desk: Desk, execution_id: str, step: str | None) -> Record:
    """Return the suspension that is meant."""
    id_ = await desk.resolve(execution_id)
    execution = await desk.client.get_execution(id_)
    root = execution["root_execution_id"]
    found = await desk.client.list_suspensions(root_execution_id=root, limit=NUMBER_MAX)
    own = [each for each in found if id_ in (root, each["execution_id"])]
    wanted = [each for each in own if step in (None, each["step_key"])]
    if len(wanted) == 1:
        return wanted[0]
    there = ", ".join(f"{each['step_key']!r} of {each['execution_id']}" for each in own)
    if wanted:
        raise UsageError(f"several suspensions are open: {there}; name execution and step")
    what = "asks nothing" if step is None else f"does not ask {step!r}"
    keep = (
        ""
        if execution["status"] in following.ENDED
        else ("; with STEP and --data an answer is kept until it is asked for")
    )
    raise ConflictError(
        f"execution {id_!r} {what}: it is {execution['status']}, open is {there or 'nothing'}{keep}"
    )


def _how(asked: Record) -> str:
    form = forms.of(asked["data"])
    keys = [] if form is None else [f"{json.dumps(each.key)}: …" for each in form.fields]
    example = "{" + ", ".join(keys) + "}" if keys else "JSON"
    return (
        "there is no terminal to ask on; pass the answer: polos resume "
        f"{asked['execution_id']} {asked['step_key']} --data '{example}'"
    )


def _prompted(prompter: Prompter, asked: Record) -> Any:
    try:
        return prompter.ask(asked["step_key"], asked["data"])
    except (EOFError, KeyboardInterrupt):
        output.note("\nnothing was sent; it still waits")
        raise typer.Exit(Exit.INTERRUPTED) from None
