"""Workers, and what a store holds, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from polos.cli import tables, text
from polos.cli.grid import Grid
from polos.cli.output import Output
from polos.cli.tables import Record

WORKER_STYLES = {"live": "green", "lost": "bold red", "stopped": "dim"}


def workers(out: Output, records: Sequence[Record], now: datetime) -> Grid:
    """Return workers as `polos workers` shows them."""
    deployed = ("DEPLOYMENT",) if any(each["deployment_id"] for each in records) else ()
    since = () if out.narrow else ("SINCE",)
    table = Grid(
        *("ID", "STATUS", "HOST", "PID"),
        *since,
        *("BEAT", "QUEUE", "RUNNING", "QUEUED"),
        *deployed,
        "WORKFLOWS",
        flexible={"HOST", "WORKFLOWS", "DEPLOYMENT"},
        right={"PID", "RUNNING", "QUEUED"},
    )
    for each in records:
        names = ", ".join(text.clean(name) for name in each["workflows"])
        table.add_row(
            Text(each["id"][-tables.SHORT :] if out.narrow else each["id"], "dim"),
            Text(each["status"], WORKER_STYLES.get(each["status"], "")),
            Text(text.clean(each["host"])),
            str(each["pid"]),
            *(out.time(each["started_at"], now) for _ in since),
            out.time(each["last_beat_at"] if each["status"] != "stopped" else None, now),
            "yes" if each["takes_queue"] else "no",
            str(each["running"]),
            str(each["queued"]),
            *(Text(text.clean(each["deployment_id"] or "")) for _ in deployed),
            Text(names, "dim"),
        )
    return table


def executions(counts: dict[str, dict[str, int]]) -> Grid:
    """Return how many executions there are, a line a workflow and one for all."""
    statuses = [s for s in tables.STYLES if any(s in each for each in counts.values())]
    columns = [*(each.upper() for each in statuses), "ALL"]
    table = Grid("WORKFLOW", *columns, flexible={"WORKFLOW"}, right=set(columns))
    totals = {s: sum(each.get(s, 0) for each in counts.values()) for s in statuses}
    for workflow_id, found in counts.items():
        cells = [Text(number(found.get(s, 0)), tables.STYLES[s]) for s in statuses]
        table.add_row(Text(text.clean(workflow_id)), *cells, number(sum(found.values())))
    if len(counts) > 1:
        cells = [Text(number(totals[s]), "bold") for s in statuses]
        table.add_row(Text("all", "bold"), *cells, Text(number(sum(totals.values())), "bold"))
    return table


def sizes(found: Sequence[Record]) -> Grid:
    """Return tables with their rows and bytes."""
    table = Grid("TABLE", "ROWS", "SIZE", flexible=set(), right={"ROWS", "SIZE"})
    for each in found:
        table.add_row(each["name"], number(each["rows"]), text.size(each["bytes"]))
    return table


def number(value: int) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,}"


def several(count: int, noun: str) -> str:
    """Return a number with its noun: `1 row`, `1,200 rows`."""
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"
