"""Executions and steps as tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from polos.cli import text
from polos.cli.grid import Grid
from polos.cli.output import Output

Record = dict[str, Any]

STYLES = {
    "queued": "blue",
    "running": "bold cyan",
    "waiting": "yellow",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "magenta",
}
SYMBOLS = {
    "queued": "○",
    "running": "●",
    "waiting": "◔",
    "completed": "✓",
    "failed": "✗",
    "cancelled": "⊘",
}
SHORT = 8
"""Characters of an id, from its random end, that a narrow terminal shows; commands take them."""
VALUE_MAX = 120
"""Characters of a value in a pipe's table; `--json` has all of it."""


def status(name: str, *, symbol: bool) -> Text:
    """Return a status in its color."""
    shown = f"{SYMBOLS.get(name, '·')} {name}" if symbol else name
    return Text(shown, STYLES.get(name, ""))


def executions(out: Output, records: Sequence[Record], now: datetime) -> Grid:
    """Return executions as `polos list` shows them."""
    table = Grid(
        *("ID", "WORKFLOW", "STATUS", "CREATED", "TOOK", "NOTE"),
        flexible={"WORKFLOW", "NOTE"},
        right={"TOOK"},
    )
    for record in records:
        name = Text("↳ " if record["parent_execution_id"] is not None else "", "dim")
        table.add_row(
            Text(record["id"][-SHORT:] if out.narrow else record["id"], "dim"),
            name.append(text.clean(record["workflow_id"]), "not dim"),
            status(record["status"], symbol=out.terminal),
            out.time(record["created_at"], now),
            text.between(record["started_at"], record["completed_at"], now),
            remark(out, record, now),
        )
    return table


def remark(out: Output, record: Record, now: datetime) -> Text:
    """Return what else is to be known of an execution: why it failed, waits or stands still."""
    if record["status"] == "failed":
        return Text(text.cut(text.clean(record["error"] or ""), 500), "red")
    if record["blocked_reason"]:
        return Text(text.clean(record["blocked_reason"]), "yellow")
    if record["status"] in {"completed", "cancelled"}:
        return Text()
    if record["cancel_requested_at"]:
        return Text("cancellation requested", "magenta")
    if record["wake_at"]:
        return Text(until(out, record["wake_at"], now))
    return Text()


def steps(out: Output, records: Sequence[Record], now: datetime, *, first: int = 1) -> Grid:
    """Return steps as `polos steps` shows them; `first` is the number of the first one."""
    table = Grid(
        *("#", "STEP", "KIND", "STATUS", "TRIES", "TOOK", "RESULT"),
        flexible={"STEP", "RESULT"},
        right={"#", "TRIES", "TOOK"},
    )
    for number, record in enumerate(records, first):
        table.add_row(
            Text(str(number), "dim"),
            Text(text.clean(record["step_key"] or "")),
            Text(record["kind"], "dim"),
            status(record["status"], symbol=out.terminal),
            Text(str(record["attempts"]), "" if record["attempts"] > 1 else "dim"),
            text.between(record["started_at"], record["completed_at"], now),
            outcome(out, record, now),
        )
    return table


def outcome(out: Output, record: Record, now: datetime) -> Text:
    """Return the result or error of a step, or until when it waits, on one line."""
    if record["status"] == "failed":
        return Text(text.cut(text.clean(record["error"] or ""), 500), "red")
    if record["status"] == "waiting" and record["kind"] == "suspend":
        due = out.time(record["due_at"], now)
        return Text(f"asks; times out {due}" if due else "asks")
    if record["status"] == "waiting" and record["due_at"]:
        return Text(until(out, record["due_at"], now))
    if record["status"] == "completed":
        return Text(text.compact(record["output"], VALUE_MAX), "dim")
    return Text()


def until(out: Output, due: str, now: datetime) -> str:
    """Say when a wait is over."""
    return f"goes on {out.time(due, now)}" if out.terminal else f"until {out.time(due, now)}"
