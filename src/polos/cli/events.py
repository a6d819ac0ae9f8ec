"""`polos events`: follow a topic, publish on one, list them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, cast

import typer
from rich.text import Text

from polos import events
from polos.cli import given, text
from polos.cli.commands import Json, Url, app
from polos.cli.desk import Desk, run
from polos.cli.exits import Exit
from polos.cli.grid import Grid
from polos.core import events as rules
from polos.errors import UsageError

TAIL = 10
"""Events that are shown from before, if nothing else is said."""
NUMBERS = {"LAST", "KEPT"}
DATA_MAX = 2000
"""Characters of an event's data on a line for people."""

group = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(group, name="events", help="Follow topics, and publish on them.")

Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The name of a topic.")]


@group.command("tail")
def tail(
    context: typer.Context,
    topic: Topic,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="N|TIME",
            help="Begin behind this event's number (0: the first one kept), or this moment "
            "(2026-01-31T12:00). Default: the last 10, those of an execution from its start.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", "-f", help="Wait for further events.")
    ] = True,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, metavar="N", help="End after so many events."),
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show the events of a topic, and follow it until Ctrl-C.

    What an execution and its children tell is on the topic workflow/WORKFLOW/ID of its root: then
    the command ends with the execution. With `--json` each event is a line of JSON.

    **Examples**

    ```
    polos events tail orders
    polos events tail orders --after 0 --no-follow --json | jq .data
    polos events tail workflow/import_files/01a2108a-731c-74ec-bfa0-9fbfd76aaf2f
    ```
    """
    cursor = None if after is None else _cursor(after)

    async def job(desk: Desk) -> Exit:
        shown = 0
        start = await _start(desk, topic) if cursor is None else cursor
        if not follow:
            most = limit or (1 << 31)
            while found := await events.read(desk.client, topic, start, min(most - shown, 500)):
                for event in found:
                    _show(desk, event)
                shown, start = shown + len(found), found[-1].sequence_id
                if shown >= most:
                    break
            return Exit.OK
        async for event in _following(desk, topic, start):
            _show(desk, event)
            shown += 1
            if shown == limit:
                break
        return Exit.OK

    # The topic of an execution is written when it is read.
    run(context, url, as_json, job, write=rules.root_of(topic) is not None)


def _following(desk: Desk, topic: str, start: int | datetime) -> events.EventStream:
    root_id = rules.root_of(topic)
    if root_id is None:
        return events.subscribe(desk.client, topic, after=start)
    workflow_id = topic[len(rules.WORKFLOW) : -len(root_id) - 1]
    if isinstance(start, datetime):
        return events.stream_workflow(desk.client, workflow_id, root_id, None, start)
    return events.stream_workflow(desk.client, workflow_id, root_id, start)


def _cursor(after: str) -> int | datetime:
    if after.isdecimal():
        return int(after)
    try:
        return datetime.fromisoformat(after).astimezone()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--after {after!r}: expected the number of an event, or a moment such as "
            "2026-01-31T12:00"
        ) from None


async def _start(desk: Desk, topic: str) -> int:
    if rules.root_of(topic) is not None:
        return 0
    for each in await events.list_topics(desk.client):
        if each["topic"] == topic:
            return max(0, each["last_sequence_id"] - TAIL)
    return 0


def _show(desk: Desk, event: events.StreamEvent) -> None:
    if desk.out.json:
        desk.out.document(event.model_dump())
        return
    then = text.moment(event.created_at)
    local = "" if then is None else f"{then.astimezone():%H:%M:%S.%f}"[:-3]
    if not desk.out.terminal and then is not None:
        local = f"{then:%Y-%m-%dT%H:%M:%S.%fZ}"
    line = Text.assemble(
        (f"{event.sequence_id:>6}  {local}  ", "dim"),
        (f"{text.clean(event.event_type or '-')}  ", "bold"),
        text.compact(event.data, DATA_MAX),
    )
    desk.out.show(line, whole=True)


@group.command("publish")
def publish(
    context: typer.Context,
    topic: Topic,
    data: Annotated[
        str,
        typer.Option("--data", "-d", metavar="JSON", help="A JSON object; '-': from stdin."),
    ],
    event_type: Annotated[
        str | None, typer.Option("--type", "-t", metavar="TYPE", help="The type of the event.")
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Publish an event, and print its number in the topic.

    **Example**

    ```
    polos events publish orders --type created --data '{"id": 7}'
    ```
    """
    content = _data(given.read("--data", data))

    async def job(desk: Desk) -> Exit:
        event = events.EventData(event_type=event_type, data=content)
        number = await events.publish(desk.client, topic, event)
        if desk.out.json:
            desk.out.document({"topic": topic, "sequence_id": number})
        else:
            desk.out.show(Text(f"{topic} {number}"))
        return Exit.OK

    run(context, url, as_json, job, write=True)


def _data(written: str) -> dict[str, Any]:
    found = given.document("--data", written)
    if not isinstance(found, dict):
        raise UsageError(f"--data {text.compact(found, 60)}: expected a JSON object, {{...}}")
    return cast("dict[str, Any]", found)


@group.command("topics")
def topics(context: typer.Context, url: Url = None, as_json: Json = False) -> None:
    """List the topics that have, or had, events."""

    async def job(desk: Desk) -> Exit:
        found = await events.list_topics(desk.client)
        if desk.out.json:
            desk.out.document(found)
            return Exit.OK
        now = desk.now()
        table = Grid(*("TOPIC", "LAST", "KEPT", "LATEST"), flexible={"TOPIC"}, right=NUMBERS)
        for each in found:
            table.add_row(
                text.clean(each["topic"]),
                str(each["last_sequence_id"]),
                str(each["events"]),
                desk.out.time(each["last_event_at"], now),
            )
        desk.out.show(table)
        return Exit.OK

    run(context, url, as_json, job)
