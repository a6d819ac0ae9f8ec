"""Finding and counting executions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos.client import views
from polos.client.node import Node
from polos.core import ids, paths
from polos.core import where as conditions
from polos.core.model import Status
from polos.errors import UsageError
from polos.workflow.runnable import label

NUMBER_MAX = 2**31 - 1
"""The largest number that every store takes."""


class Listed(list[dict[str, Any]]):
    """What was found; `note` says so if no index answers the question, and what was read."""

    note: str | None = None


def _filters(
    workflow_id: str | None,
    status: str | None,
    parent_execution_id: str | None,
    root_execution_id: str | None,
    session_id: str | None,
) -> dict[str, Any]:
    if status is not None and status not in set(Status):
        raise UsageError(f"status={status!r}: expected one of {', '.join(Status)}")
    given = {
        "workflow_id": workflow_id,
        "status": status,
        "parent_id": parent_execution_id,
        "root_id": root_execution_id,
        "session_id": session_id,
    }
    return {name: label(name, each) for name, each in given.items() if each is not None}


def number(name: str, given: Any, least: int = 1) -> int:
    """Return a number, checked; more than a store can count is as many as it can."""
    if type(given) is not int or given < least:
        raise UsageError(f"{name}={given!r}: expected an int of {least} or more")
    return min(given, NUMBER_MAX)


class Finding:
    """The part of a client that finds executions."""

    async def node(self) -> Node:
        """Return what runs behind this client."""
        raise NotImplementedError

    async def list_executions(
        self,
        *,
        workflow_id: str | None = None,
        status: str | None = None,
        parent_execution_id: str | None = None,
        root_execution_id: str | None = None,
        session_id: str | None = None,
        where: Mapping[str, Any] | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Listed:
        """List executions newest first; `before` an execution's id pages on.

        `where` has conditions that must all hold, each by its place: `state`, `payload`, `result`
        or `tags`, alone or with a path (`state.cart.total`), or a column such as `created_at`:
        `{"state.done": 3, "tags.team": ("in", ["a", "b"]), "created_at": (">", moment)}`. The
        operators are `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `contains` (an array has a member, a
        text a part) and `exists`; all but the last need something at the place. Tags, columns and
        what `@workflow(index_state=…)` declares are found among any number of executions; for the
        rest those that have not ended and the newest 10,000 are read, and the list's `note` says
        so. UsageError for what cannot be read.
        """
        parsed = conditions.parse(where)
        most = number("limit", limit)
        filters = _filters(workflow_id, status, parent_execution_id, root_execution_id, session_id)
        if before is not None:
            # One that retention removed meanwhile still says where the next page begins.
            if not isinstance(before, str) or not ids.is_id(before):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise UsageError(
                    f"before={before!r}: expected the id of an execution, such as that of the last "
                    "one of a page"
                )
            filters["before"] = before.lower()
        node = await self.node()
        if parsed:
            found, note = await node.engine.asking.find(filters, parsed, most)
        else:
            found, note = await node.engine.listing(filters, most), None
        states = await node.engine.states.latest_of(found)
        listed = Listed(views.execution(each, states.get(each.id, [])) for each in found)
        listed.note = note
        return listed

    async def count_executions(
        self,
        *,
        group_by: str | None = None,
        workflow_id: str | None = None,
        status: str | None = None,
        parent_execution_id: str | None = None,
        root_execution_id: str | None = None,
        session_id: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count executions; with `group_by` a dict of numbers by value, the largest first.

        `group_by` is a place as in `list_executions(where=…)`: `status`, `workflow_id`,
        `tags.team`, `state.customer_id`. Executions that have nothing there, or an array or
        object, are not counted.
        """
        found = await self._tallied(
            group_by,
            None,
            where,
            _filters(workflow_id, status, parent_execution_id, root_execution_id, session_id),
        )
        if group_by is None:
            return found[0].count if found else 0
        counts: dict[Any, int] = {}
        for each in found:  # 1 and True are one key of a dict
            counts[each.group] = counts.get(each.group, 0) + each.count
        return counts

    async def aggregate(
        self,
        *,
        sum: str,
        group_by: str | None = None,
        workflow_id: str | None = None,
        status: str | None = None,
        parent_execution_id: str | None = None,
        root_execution_id: str | None = None,
        session_id: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Add a number up over executions: a dict `group`, `count`, `sum` for each group.

        `sum` is a place in the state, payload, result or tags; what is no number there counts, and
        adds nothing (`sum` is None if none was a number). Groups are those of `count_executions`,
        the largest first; without `group_by` there is one, whose `group` is None.
        """
        found = await self._tallied(
            group_by,
            _summed(sum),
            where,
            _filters(workflow_id, status, parent_execution_id, root_execution_id, session_id),
        )
        if group_by is None and not found:
            found = [conditions.Tally(None, 0)]
        return [{"group": t.group, "count": t.count, "sum": _number(t.total)} for t in found]

    async def _tallied(
        self,
        group_by: str | None,
        total: str | None,
        where: Mapping[str, Any] | None,
        filters: dict[str, Any],
    ) -> list[conditions.Tally]:
        parsed = conditions.parse(where)
        group = None if group_by is None else _place("group_by", group_by)
        added = None if total is None else _place("sum", total)
        if added in conditions.TEXTS:
            raise UsageError(f"sum={total!r} is text; expected a place such as state.amount")
        node = await self.node()
        tallies, _ = await node.engine.asking.tally(filters, parsed, group, added)
        return tallies


def _summed(given: Any) -> str:
    if not isinstance(given, str):
        raise UsageError(f"sum={given!r}: expected a place such as state.amount")
    return given


def _place(name: str, given: Any) -> str:
    source, path = conditions.place(given)
    if source in conditions.TIMES:
        raise UsageError(f"{name}={given!r} is a moment; expected text, a tag or a state field")
    return paths.spell((source, *path))


def _number(total: float | None) -> float | None:
    return None if total is None else int(total) if float(total).is_integer() else total
