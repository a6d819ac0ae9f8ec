"""Past state for `polos state`: at a step, between two, as a list, and who set what."""

from __future__ import annotations

import re
from typing import Any

from rich.text import Text

from polos.cli import output, text
from polos.cli.desk import Desk
from polos.cli.exits import Exit
from polos.cli.grid import Grid
from polos.cli.page import highlighted
from polos.core import history
from polos.errors import StepNotFoundError, UsageError

PAGE = 200
VALUE_MAX = 60
CHANGES_MAX = 200
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d.*")
_SIGNS = {"add": "+", "remove": "-", "replace": "~"}


async def found_at(desk: Desk, execution_id: str, place: str) -> Any:
    """Return the state at a step (by its key), at an entry of the history, or at a moment."""
    client = desk.client
    try:
        return await client.state_at(execution_id, step_key=place)
    except StepNotFoundError:
        if place.isdecimal():
            return await client.state_at(execution_id, seq=int(place))
        if _MOMENT.fullmatch(place):
            return await client.state_at(execution_id, at=place)
        raise


async def show_at(desk: Desk, execution_id: str, place: str) -> Exit:
    """Print the state as of a place."""
    found = await found_at(desk, execution_id, place)
    if desk.out.json:
        desk.out.document(found)
    else:
        desk.out.show(highlighted(text.pretty(found)))
    return Exit.OK


async def show_diff(desk: Desk, execution_id: str, one: str, other: str) -> Exit:
    """Print what changed between two places."""
    changed = history.changes(
        await found_at(desk, execution_id, one), await found_at(desk, execution_id, other)
    )
    if desk.out.json:
        desk.out.document(changed)
        return Exit.OK
    for each in changed:
        desk.out.show(_line(each))
    if not changed:
        output.note("no difference")
    return Exit.OK


async def show_history(desk: Desk, execution_id: str) -> Exit:
    """Print every recorded state, or what it changed."""
    entries: list[dict[str, Any]] = []
    after = -1
    while page := await desk.client.state_history(execution_id, after=after, limit=PAGE):
        entries += page
        after = page[-1]["seq"]
    if desk.out.json:
        desk.out.document(entries)
        return Exit.OK
    if not entries:
        output.note("no state was recorded")
        return Exit.OK
    table = Grid("SEQ", "STEP", "WHEN", "CHANGES", flexible={"STEP", "CHANGES"}, right={"SEQ"})
    now = desk.now()
    for each in entries:
        changes = ", ".join(_line(change).plain for change in each["changes"])
        table.add_row(
            str(each["seq"]),
            step_of(each, first=entries[0]["seq"]),
            desk.out.time(each["at"], now),
            text.cut(changes, CHANGES_MAX),
        )
    desk.out.show(table)
    return Exit.OK


async def show_blame(desk: Desk, execution_id: str, path: str) -> Exit:
    """Print what set a place last."""
    found = await desk.client.blame_state(execution_id, path)
    if desk.out.json:
        desk.out.document(found)
        return Exit.OK
    desk.out.show(f"{text.clean(path)} = {text.compact(found['value'], VALUE_MAX)}")
    rows = [
        # Without an attempt nobody's code set it: it was there when the run began.
        ("step", step_of(found, first=found["seq"] if found["attempt"] is None else 0)),
        ("seq", found["seq"]),
        ("at", desk.out.time(found["at"], desk.now())),
        ("attempt", found["attempt"]),
        ("worker", found["worker_id"]),
        ("code version", found["code_version"]),
    ]
    if "who" in found:
        rows[3:] = [("by", found["who"]), ("why", found["why"])]
    for name, value in rows:
        shown = "unknown" if value is None else text.clean(str(value))
        desk.out.show(Text(f"  {name:<13}{shown}"))
    return Exit.OK


async def watch(desk: Desk, execution_id: str) -> Exit:
    """Print the state, then every change as it is recorded, until the execution has ended."""
    entries = 0
    async for each in desk.client.watch_state(execution_id):
        entries += 1
        if desk.out.json:
            desk.out.document(each)
        elif entries == 1:
            desk.out.show(highlighted(text.pretty(each["state"])))
        else:
            changes = ", ".join(_line(change).plain for change in each["changes"])
            at = desk.out.time(each["at"], desk.now())
            shown = f"{each['seq']} {step_of(each)} {at}: {text.cut(changes, CHANGES_MAX)}"
            desk.out.show(Text(shown))
    if not entries:
        output.note("no state was recorded")
    return Exit.OK


def step_of(entry: dict[str, Any], first: int = 0) -> str:
    """Return the step that a state was recorded with, for people; the run began with `first`."""
    if "who" in entry:
        return f"(patch by {text.clean(entry['who'])})" if entry["who"] else "(patch)"
    return text.clean(entry["step_key"] or ("(start)" if entry["seq"] == first else "(end)"))


async def show(
    desk: Desk,
    execution_id: str,
    at: str | None,
    diff: tuple[str, str] | None,
    blame: str | None,
    *,
    whole: bool,
    watched: bool,
) -> Exit:
    """Print the state in the way that was asked for; in none: the latest."""
    target = await desk.resolve(execution_id)
    if at is not None:
        return await show_at(desk, target, at)
    if diff:
        return await show_diff(desk, target, *diff)
    if whole:
        return await show_history(desk, target)
    if blame is not None:
        return await show_blame(desk, target, blame)
    if watched:
        return await watch(desk, target)
    found = await desk.client.get_execution(target)
    if desk.out.json:
        desk.out.document(found["state"])
        return Exit.OK
    desk.out.show(highlighted(text.pretty(found["state"])))
    if found["state"] is None:
        output.note(f"workflow {found['workflow_id']!r} has no state")
    return Exit.OK


def demand_one(
    at: str | None, diff: Any, blame: str | None, values: str | None, *, whole: bool, watched: bool
) -> None:
    """Raise UsageError if several ways of looking, or looking and patching, were asked for."""
    asked = [at is not None, bool(diff), blame is not None, values is not None, whole, watched]
    if sum(asked) > 1:
        raise UsageError(
            "polos state takes one of --at, --diff, --history, --blame, --watch and --set"
        )


def _line(change: dict[str, Any]) -> Text:
    old, new = (text.compact(change[name], VALUE_MAX) for name in ("old", "new"))
    shown = {"add": new, "remove": old, "replace": f"{old} → {new}"}[change["op"]]
    return Text(f"{_SIGNS[change['op']]} {text.clean(change['path'])}: {shown}")
