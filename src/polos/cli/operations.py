"""The commands around workers: `polos worker` runs them, `polos workers` lists them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from polos.cli import inventory, output, serving
from polos.cli.commands import Json, Url, app
from polos.cli.desk import Desk, Settings, run
from polos.cli.exits import Exit
from polos.client import settings

RECENT_SECONDS = 86_400.0
"""How long ago a worker may have stopped that `--all` still lists."""


class Level(StrEnum):
    """From how much on the log is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Modules = Annotated[
    list[str],
    typer.Argument(
        metavar="MODULE[:NAME]",
        help="Modules that register workflows: package.module, package.module:name, "
        "path/to/file.py. With names it serves those workflows only.",
    ),
]
Processes = Annotated[
    int, typer.Option("--processes", "-p", min=1, metavar="N", help="So many processes.")
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        "-c",
        min=1,
        metavar="N",
        help="Executions that each process runs at once. "
        "Default: POLOS_MAX_CONCURRENT_WORKFLOWS, else 100.",
        show_default=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--workflow", "-w", metavar="ID", help="Only this workflow; repeatable."),
]
Deployment = Annotated[
    str | None,
    typer.Option(
        "--deployment-id",
        metavar="ID",
        help="Recorded with what it starts; what another deployment started is left to that. "
        "Default: POLOS_DEPLOYMENT_ID.",
        show_default=False,
    ),
]
MatchCode = Annotated[
    bool,
    typer.Option("--match-code", help="Take only what was started by the code at hand."),
]
Retention = Annotated[
    str | None,
    typer.Option(
        "--retention",
        metavar="AGE",
        help="Remove finished executions of this age (12h, 30d), of workflows that say nothing "
        "themselves. Default: POLOS_RETENTION, else never.",
        show_default=False,
    ),
]
EventRetention = Annotated[
    str | None,
    typer.Option(
        "--event-retention",
        metavar="AGE",
        help="Remove events of ordinary topics of this age (12h, 7d; forever: never). "
        "Default: POLOS_EVENT_RETENTION, else 7d.",
        show_default=False,
    ),
]
Drain = Annotated[
    float,
    typer.Option(
        "--drain-seconds",
        min=0,
        metavar="N",
        help="How long running steps may take to end when it stops.",
    ),
]


@app.command()
def worker(  # noqa: PLR0917 - options, which are given by name
    context: typer.Context,
    modules: Modules,
    processes: Processes = 1,
    concurrency: Concurrency = None,
    workflow: Only = None,
    deployment_id: Deployment = None,
    match_code: MatchCode = False,
    retention: Retention = None,
    event_retention: EventRetention = None,
    drain_seconds: Drain = settings.DRAIN_SECONDS,
    log_level: Annotated[
        Level, typer.Option("--log-level", help="What to log on standard error.")
    ] = Level.INFO,
    log_file: Annotated[
        str | None,
        typer.Option("--log-file", metavar="FILE", help="Log to this file as well."),
    ] = None,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
    url: Url = None,
) -> None:
    """Run a worker: it takes queued executions of the modules' workflows and runs them.

    SIGTERM or Ctrl-C: running steps end, the rest is handed back, and it exits with 0. A second
    one ends it at once; what it ran goes on elsewhere. With --processes a process that dies is
    replaced by a new one.

    **Examples**

    ```
    polos worker app.workflows
    polos worker app.workflows:resize jobs/nightly.py --processes 4 --retention 30d
    ```
    """
    outer = context.obj if isinstance(context.obj, Settings) else Settings()
    order = serving.Order(
        modules=modules,
        url=url or outer.url,
        processes=processes,
        concurrency=concurrency,
        only=workflow or [],
        deployment_id=deployment_id,
        match_code=match_code,
        retention=retention,
        event_retention=event_retention,
        drain_seconds=drain_seconds,
        log_level=log_level.value,
        log_file=log_file,
        supervised=supervised,
    )
    try:
        code = serving.serve(order)
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    raise typer.Exit(code)


@app.command()
def workers(
    context: typer.Context,
    stopped: Annotated[
        bool, typer.Option("--all", "-a", help="Also those that stopped within the last day.")
    ] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List the workers of a store, with the executions that each owns now.

    A worker is a process that registers workflows. One without QUEUE runs what it starts itself.
    One that is lost has died, and nobody has taken over from it yet.

    **Example**

    ```
    polos workers --json | jq '.[] | select(.status == "lost")'
    ```
    """

    async def job(desk: Desk) -> Exit:
        within = RECENT_SECONDS if stopped else 0.0
        found = await desk.client.list_workers(stopped_within=within)
        if desk.out.json:
            desk.out.document(found)
        elif found:
            desk.out.show(inventory.workers(desk.out, found, desk.now()))
        else:
            output.note("no workers; start one with polos worker MODULE")
        return Exit.OK

    run(context, url, as_json, job)
