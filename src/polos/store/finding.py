"""Finding executions: conditions as SQL, for both databases; every value is bound, none spliced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from polos.core.model import Status
from polos.core.where import (
    ORDERED,
    TEXTS,
    TIMES,
    Condition,
    Query,
    Tally,
    rank,
    rank_range,
    unranked,
)
from polos.store import rows

_OPEN = {Status.QUEUED, Status.RUNNING, Status.WAITING}
_IN_ERROR = {Status.FAILED, Status.CANCELLED}
_COLUMNS = ", ".join(f"e.{name}" for name in rows.EXECUTION_COLUMNS.split(", "))
_SAME = "{0}.root_id = e.root_id AND {0}.execution_id = e.id"
FILTERS = frozenset(
    {
        *("workflow_id", "status", "parent_id", "root_id", "session_id", "before"),
    }
)


class Dialect(Protocol):
    """What the databases write differently."""

    cross_join: str
    """A join whose left side is read first."""
    by_bytes: str
    """Behind a column of text: compared byte by byte."""
    position: str
    """A function: where in a text another one begins, from 1 on, or 0."""

    def one(self, number: int, kind: str) -> str:
        """Return the place of an argument."""
        ...

    def any_of(self, number: int, kind: str) -> str:
        """Return what follows a column that is to be one of an argument's values."""
        ...

    def many(self, values: Sequence[Any]) -> Any:
        """Return values as the argument of `any_of`."""
        ...


class Text:
    """A statement in the making, with its arguments."""

    def __init__(self, dialect: Dialect, query: Query) -> None:
        self.dialect = dialect
        self.arguments: list[Any] = []
        self.query = query

    def _bind(self, value: Any, kind: str = "text") -> str:
        self.arguments.append(value)
        return self.dialect.one(len(self.arguments), kind)

    def _any(self, values: Sequence[Any], kind: str = "text") -> str:
        self.arguments.append(self.dialect.many(values))
        return self.dialect.any_of(len(self.arguments), kind)

    # -- conditions ---------------------------------------------------------------------------

    def _filters(self, filters: Mapping[str, Any]) -> list[str]:
        found: list[str] = []
        for column, value in filters.items():
            assert column in FILTERS, column
            place = self._bind(value)
            found.append(f"e.id < {place}" if column == "before" else f"e.{column} = {place}")
            if column == "status" and value in _OPEN:
                found.append("e.completed_at IS NULL")
            if column == "status" and value in _IN_ERROR:
                found.append("e.error IS NOT NULL")
            if column == "parent_id" and "root_id" not in filters:
                root = f"(SELECT p.root_id FROM {{s}}.execution p WHERE p.id = {self._bind(value)})"
                found.append(f"e.root_id = {root}")
        return found

    def _column(self, each: Condition) -> str:
        assert each.source in TIMES or each.source in TEXTS, each.source
        column = f"e.{each.source}"
        kind = "bigint" if each.source in TIMES else "text"
        if each.op == "exists" or each.value is None:
            holds = each.value if each.op == "exists" else each.op == "!="
            return f"{column} IS {'NOT ' if holds else ''}NULL"
        if each.op == "in":
            return f"{column} {self._any(each.value, kind)}"
        if each.op == "contains":
            return f"{self.dialect.position}({column}, {self._bind(each.value)}) > 0"
        bytewise = self.dialect.by_bytes if kind == "text" and each.op in ORDERED else ""
        return f"{column}{bytewise} {_SQL_OPS[each.op]} {self._bind(each.value, kind)}"

    def _indexed(self, each: Condition, number: int) -> str:
        name = f"x{number}"
        negated = each.op == "exists" and not each.value
        path = self._bind(each.name)
        value = "" if each.op == "exists" else f" AND {self._value(each, name)}"
        return (
            f"{'NOT ' if negated else ''}EXISTS (SELECT 1 FROM {{s}}.field_index {name} "
            f"WHERE {_SAME.format(name)} AND {name}.path = {path}{value})"
        )

    def _value(self, each: Condition, name: str) -> str:
        column = f"{name}.value"
        if each.op == "in":
            return f"{column} {self._any([rank(value) for value in each.value])}"
        if each.op == "contains":
            needle = self._bind(rank(each.value)[1:])
            return f"{column} >= '3' AND {self.dialect.position}({column}, {needle}) > 1"
        text = f"{column} {_SQL_OPS[each.op]} {self._bind(rank(each.value))}"
        if each.op not in ORDERED:
            return text
        low, high = (self._bind(end) for end in rank_range(each))
        return f"{text} AND {column} >= {low} AND {column} < {high}"

    def _others(self) -> list[str]:
        """Return the conditions on executions; not those of the driving one and its workflow."""
        query = self.query
        found = self._filters(query.filters)
        found += [self._column(each) for each in query.columns]
        rest = [each for each in query.indexed if each is not query.driving]
        found += [self._indexed(each, n) for n, each in enumerate(rest)]
        if query.since is not None:
            found.append(f"e.id >= {self._bind(query.since)}")
        if query.until is not None:
            found.append(f"e.id < {self._bind(query.until)}")
        if query.unfinished:
            found.append("e.completed_at IS NULL")
        if query.newest is not None:
            workflow = self._bind(query.filters["workflow_id"])
            found.append(
                "e.id >= coalesce((SELECT n.id FROM {s}.execution n "
                f"WHERE n.workflow_id = {workflow} ORDER BY n.id DESC LIMIT 1 "
                f"OFFSET {self._bind(query.newest, 'bigint')}), '')"
            )
        return found

    # -- statements ---------------------------------------------------------------------------

    def find(self, limit: int) -> str:
        """Return the statement that lists executions, newest first."""
        query = self.query
        source, order = "{s}.execution e", "e.id"
        conditions: list[str] = []
        if query.driving is not None:
            source = (
                f"{{s}}.field_index d {self.dialect.cross_join} {{s}}.execution e "
                "ON e.root_id = d.root_id AND e.id = d.execution_id"
            )
            order = "d.execution_id"
            conditions = self._driving(query.driving)
        conditions += self._others()
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        return (
            f"SELECT {_COLUMNS} FROM {source} {where}ORDER BY {order} DESC "
            f"LIMIT {self._bind(limit, 'bigint')}"
        )

    def _driving(self, each: Condition) -> list[str]:
        query = self.query
        found = [
            f"d.workflow_id = {self._bind(query.filters['workflow_id'])}",
            f"d.path = {self._bind(each.name)}",
            self._value(each, "d"),
        ]
        if "before" in query.filters:
            found.append(f"d.execution_id < {self._bind(query.filters['before'])}")
        return found

    def tally(self, group: str | None, total: str | None) -> str:
        """Return the statement that counts by a column or indexed place, and adds a place up."""
        query = self.query
        source, by = "{s}.execution e", "NULL"
        conditions: list[str] = []
        if query.driving is not None:
            source = (
                f"{{s}}.field_index d {self.dialect.cross_join} {{s}}.execution e "
                "ON e.root_id = d.root_id AND e.id = d.execution_id"
            )
            conditions = self._driving(query.driving)
        if group in TEXTS:
            by = f"e.{group}"
        elif group is not None:
            by = "g.value"
            source += f" JOIN {{s}}.field_index g ON {_SAME.format('g')}"
            conditions += [f"g.path = {self._bind(group)}", "g.value < '4'"]
        number = "NULL"
        if total is not None:
            number = "sum(t.number)"
            source += (
                f" LEFT JOIN {{s}}.field_index t ON {_SAME.format('t')} "
                f"AND t.path = {self._bind(total)}"
            )
        conditions += self._others()
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        grouped = "" if group is None else f" GROUP BY {by}"
        return f"SELECT {by}, count(*), {number} FROM {source}{where}{grouped}"

    def tally_fields(self, group: str, total: str | None) -> str:
        """Return the statement that does so without a look at the executions themselves."""
        workflow = self._bind(self.query.filters["workflow_id"])
        path = self._bind(group)
        number, join = "NULL", ""
        if total is not None:
            number = "sum(t.number)"
            join = (
                " LEFT JOIN {s}.field_index t ON t.root_id = g.root_id "
                f"AND t.execution_id = g.execution_id AND t.path = {self._bind(total)}"
            )
        since = ""
        if self.query.since is not None:
            since = f" AND g.execution_id >= {self._bind(self.query.since)}"
        return (
            f"SELECT g.value, count(*), {number} FROM {{s}}.field_index g{join} "
            f"WHERE g.workflow_id = {workflow} AND g.path = {path} AND g.value < '4'{since} "
            "GROUP BY g.value"
        )


def tally_text(
    dialect: Dialect, query: Query, group: str | None, total: str | None
) -> tuple[str, list[Any]]:
    """Return the statement that counts, and its arguments."""
    text = Text(dialect, query)
    plain = set(query.filters) == {"workflow_id"} and not (
        query.columns or query.indexed or query.until
    )
    if plain and group is not None and group not in TEXTS:
        return text.tally_fields(group, total), text.arguments
    return text.tally(group, total), text.arguments


def tallies(found: Sequence[Sequence[Any]], group: str | None) -> list[Tally]:
    """Read what such a statement returned."""
    ranked = group is not None and group not in TEXTS
    return [
        Tally(unranked(value) if ranked else value, count, None if total is None else float(total))
        for value, count, total in found
        if count
    ]


_SQL_OPS = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
