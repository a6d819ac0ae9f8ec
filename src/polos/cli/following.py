"""Following an execution until it ends: live on a terminal, as lines elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from rich.console import Group
from rich.live import Live
from rich.text import Text

from polos import PolosClient
from polos.cli import text
from polos.cli.desk import Desk
from polos.cli.page import Page
from polos.cli.tables import Record

ENDED = frozenset({"completed", "failed", "cancelled"})
POLL_SECONDS = 0.2
IDLE_SHARE = 5
"""A read of a long journal takes its time: the pause behind it is so many times as long."""


@dataclass(slots=True)
class Snapshot:
    """An execution and its steps, as read together."""

    execution: Record
    steps: list[Record]

    @property
    def ended(self) -> bool:
        """Say whether nothing will change any more."""
        return self.execution["status"] in ENDED


async def look(client: PolosClient, execution_id: str) -> Snapshot:
    """Read an execution; of one that has ended, the steps are complete."""
    execution = await client.get_execution(execution_id)
    return Snapshot(execution, await client.get_steps(execution_id))


async def until_ended(client: PolosClient, execution_id: str) -> Record:
    """Return the execution once it has ended."""
    while True:
        execution = await client.get_execution(execution_id)
        if execution["status"] in ENDED:
            return execution
        await asyncio.sleep(POLL_SECONDS)


async def changes(desk: Desk, execution_id: str) -> AsyncIterator[Snapshot]:
    """Yield what is there, and what is new whenever something changed, up to the end."""
    last: Snapshot | None = None
    while last is None or not last.ended:
        begun = desk.clock.monotonic()
        found = await look(desk.client, execution_id)
        if found != last:
            yield found
            last = found
        if not found.ended:
            pause = (desk.clock.monotonic() - begun) * IDLE_SHARE
            await asyncio.sleep(max(POLL_SECONDS, pause))


class LivePage:
    """What a terminal shows while an execution runs; drawn anew several times a second."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.snapshot: Snapshot | None = None

    def __rich__(self) -> Group | str:
        if self.snapshot is None:
            return ""
        rows = self._desk.out.console.height
        hint = Text("Ctrl-C leaves; the execution goes on", "dim")
        return Group(self.page(self.snapshot).draw(rows - 1), hint)

    def page(self, snapshot: Snapshot) -> Page:
        """Return a snapshot as a page."""
        return Page(self._desk.out, snapshot.execution, snapshot.steps, self._desk.now())


async def on_terminal(desk: Desk, execution_id: str) -> None:
    """Show an execution live; the page stays when it ends, or when Ctrl-C comes before."""
    shown = LivePage(desk)
    try:
        with Live(shown, console=desk.out.console, refresh_per_second=5, transient=True):
            async for snapshot in changes(desk, execution_id):
                shown.snapshot = snapshot
    finally:
        if shown.snapshot is not None:
            desk.out.show(shown.page(shown.snapshot).draw())


async def as_lines(desk: Desk, execution_id: str) -> None:
    """Print a line for every step that is recorded, and for every new status."""
    told: dict[str, str] = {}
    status = ""
    async for snapshot in changes(desk, execution_id):
        for step in unknown(told, snapshot.steps):
            desk.out.show(_step_line(step, desk.now()))
        if snapshot.execution["status"] != status:
            status = snapshot.execution["status"]
            desk.out.show(_status_line(snapshot.execution))


async def as_json(desk: Desk, execution_id: str) -> None:
    """Print a JSON document on a line of its own for every change.

    `{"event": "step", "step": {…}}` for a step that is new or has another status, and
    `{"event": "execution", "execution": {…}}` when its state or anything else of it changed: that
    is the first line and the last.
    """
    told: dict[str, str] = {}
    before: Record | None = None
    async for snapshot in changes(desk, execution_id):
        if before is None or (snapshot.execution != before and not snapshot.ended):
            desk.out.document({"event": "execution", "execution": snapshot.execution})
        for step in unknown(told, snapshot.steps):
            desk.out.document({"event": "step", "step": step})
        if snapshot.ended:
            desk.out.document({"event": "execution", "execution": snapshot.execution})
        before = snapshot.execution


def unknown(told: dict[str, str], steps: list[Record]) -> list[Record]:
    """Return the steps whose status is not the one in `told`, and enter it there."""
    found = [each for each in steps if told.get(each["step_key"]) != each["status"]]
    told.update((each["step_key"], each["status"]) for each in found)
    return found


def _step_line(step: Record, now: datetime) -> Text:
    line = Text(f"{step['status']} {text.clean(step['step_key'])}")
    if step["completed_at"] is not None:
        line.append(f" ({text.between(step['started_at'], step['completed_at'], now)})")
    return line.append(f": {text.clean(step['error'])}") if step["error"] else line


def _status_line(execution: Record) -> Text:
    line = Text(f"execution {execution['id']} {execution['status']}")
    why = execution["error"] or execution["blocked_reason"]
    return line.append(f": {text.clean(why)}") if why else line
