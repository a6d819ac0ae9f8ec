"""Finding executions: conditions as SQL, for both databases; every value is bound, none spliced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from polos.core.model import Status
from polos.core.spans import Span
from polos.core.where import (
    ORDERED,
    TEXTS,
    TIMES,
    VALUES_MAX,
    Condition,
    Query,
    Tally,
    rank,
    rank_range,
    unranked,
)
from polos.store import rows

OPEN = {Status.QUEUED, Status.RUNNING, Status.WAITING}
IN_ERROR = {Status.FAILED, Status.CANCELLED}
_INDEXED = {"workflow_id", "before"}
_COLUMNS = ", ".join(f"e.{name}" for name in rows.EXECUTION_COLUMNS.split(", "))
_JOIN = "ON e.root_id = d.root_id AND e.id = d.execution_id"
FILTERS = frozenset(
    {
        *("workflow_id", "status", "parent_id", "root_id", "session_id", "before"),
    }
)


class Dialect(Protocol):
    """What the databases write differently."""

    cross_join: str
    """A join whose left side is read first."""
    is_open: str
    """Holds for executions that have not ended, as their index has it."""
    use_open: str
    use_in_error: str
    """Behind a table: read by the index of what has not ended, or has failed."""
    has_lateral: bool
    """Knows LATERAL."""
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

    def each_of(self, number: int, kind: str) -> str:
        """Return the rows that an argument's values are."""
        ...

    def many(self, values: Sequence[Any]) -> Any:
        """Return values as the argument of `any_of` and `each_of`."""
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
            if column == "status" and value in OPEN:
                found.append(self.dialect.is_open)
            if column == "status" and value in IN_ERROR:
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

    def _indexed(self, each: Condition, number: int, of: str = "e.root_id, e.id") -> str:
        # By a subquery for one row, which is never made a join: who walks reads what it needs.
        name = f"x{number}"
        same = f"({name}.root_id, {name}.execution_id) = ({of})"
        path = self._bind(each.name)
        found = f"FROM {{s}}.field_index {name} WHERE {same} AND {name}.path = {path}"
        if each.op == "exists":
            return f"(SELECT 1 {found}) IS {'NOT ' if each.value else ''}NULL"
        return f"(SELECT {self._value(each, name)} {found})"

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
        """Return the conditions on executions; not those on the place they are looked up by."""
        query = self.query
        found = self._filters(query.filters)
        found += [self._column(each) for each in query.columns]
        if query.place is None:
            found += [self._indexed(each, n) for n, each in enumerate(query.indexed)]
            found += [f"e.{each}" for each in self._bounds("id")]
        if query.unfinished:
            found.append("e.completed_at IS NULL")
        return found

    def _bounds(self, column: str) -> list[str]:
        found: list[str] = []
        if self.query.since is not None:
            found.append(f"{column} >= {self._bind(self.query.since)}")
        if self.query.until is not None:
            found.append(f"{column} < {self._bind(self.query.until)}")
        return found

    # -- statements ---------------------------------------------------------------------------

    def find(self, limit: int) -> str:
        """Return the statement that lists executions, newest first."""
        query = self.query
        head, source, order = "", f"{{s}}.execution e{self._hint()}", "e.id"
        conditions: list[str] = []
        if query.place is not None:
            source = f"d {self.dialect.cross_join} {{s}}.execution e {_JOIN}"
            order = "d.execution_id"
            if len(query.spans) == 1 and query.spans[0].is_point:
                source = f"{{s}}.field_index {source}"
                conditions = self._looked_up("d", query.spans[0])
            elif query.merged:
                head = self._merged(limit)
            else:
                head = f"WITH d AS MATERIALIZED ({self._gathered(limit)}) "
        conditions += self._others()
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        return (
            f"{head}SELECT {_COLUMNS} FROM {source} {where}ORDER BY {order} DESC "
            f"LIMIT {self._bind(limit, 'bigint')}"
        )

    def floor(self, skip: int) -> str:
        """Return the statement for the id behind so many newest executions of the workflow."""
        query = self.query
        conditions = [f"e.workflow_id = {self._bind(query.filters['workflow_id'])}"]
        if "before" in query.filters:
            conditions.append(f"e.id < {self._bind(query.filters['before'])}")
        conditions += [f"e.{each}" for each in self._bounds("id")]
        return (
            f"SELECT e.id FROM {{s}}.execution e WHERE {' AND '.join(conditions)} "
            f"ORDER BY e.id DESC LIMIT 1 OFFSET {self._bind(skip, 'bigint')}"
        )

    def count_entries(self, most: int) -> str:
        """Return the statement that counts what is looked up, up to so many."""
        if self.query.by_status:
            where = " AND ".join(self._filters(self.query.filters))
            members = f"SELECT 1 FROM {{s}}.execution e{self._hint()} WHERE {where}"
        else:
            members = self._members("1", self._place("d"))
        return f"SELECT count(*) FROM ({members} LIMIT {self._bind(most, 'bigint')}) m"

    def count_values(self, most: int) -> str:
        """Return the statement that counts the values that are looked up, up to so many."""
        return f"WITH RECURSIVE {self._values(most)} SELECT count(*) FROM v WHERE value IS NOT NULL"

    def _hint(self) -> str:
        if not self.query.by_status:
            return ""
        is_open = self.query.filters["status"] in OPEN
        return self.dialect.use_open if is_open else self.dialect.use_in_error

    # -- looking up by a place ----------------------------------------------------------------

    def _place(self, name: str) -> list[str]:
        workflow, path = self._bind(self.query.filters["workflow_id"]), self._bind(self.query.place)
        return [f"{name}.workflow_id = {workflow}", f"{name}.path = {path}"]

    def _within(self, name: str, span: Span) -> list[str]:
        if span.is_point:
            return [f"{name}.value = {self._bind(span.low)}"]
        found: list[str] = []
        if span.low or not span.with_low:
            found.append(f"{name}.value {'>=' if span.with_low else '>'} {self._bind(span.low)}")
        if span.high is not None:
            found.append(f"{name}.value {'<=' if span.with_high else '<'} {self._bind(span.high)}")
        return found

    def _ids(self, name: str) -> list[str]:
        """Return the conditions on ids, and those that the index answers."""
        found = [f"{name}.{each}" for each in self._bounds("execution_id")]
        if "before" in self.query.filters:
            found.append(f"{name}.execution_id < {self._bind(self.query.filters['before'])}")
        key = f"{name}.root_id, {name}.execution_id"
        return found + [self._indexed(each, n, key) for n, each in enumerate(self.query.indexed)]

    def _looked_up(self, name: str, span: Span) -> list[str]:
        return self._place(name) + self._within(name, span) + self._ids(name)

    def _members(self, columns: str, conditions: Sequence[str]) -> str:
        """Return a select for each span, and one for all that are points, in one."""
        points = [each.low for each in self.query.spans if each.is_point]
        ways = [self._within("d", each) for each in self.query.spans if not each.is_point]
        ways += [[f"d.value {self._any(points)}"]] if points else []
        return " UNION ALL ".join(
            f"SELECT {columns} FROM {{s}}.field_index d WHERE {' AND '.join([*conditions, *each])}"
            for each in ways
        )

    def _gathered(self, limit: int) -> str:
        members = self._members("d.root_id, d.execution_id", self._place("d") + self._ids("d"))
        end = f" LIMIT {self._bind(limit, 'bigint')}" if is_plain(self.query) else ""
        return f"SELECT * FROM ({members}) m ORDER BY execution_id DESC{end}"

    def _values(self, most: int) -> str:
        """Return `v`: the values that are looked up, each by one probe behind the one before."""
        spans = self.query.spans
        if all(each.is_point for each in spans):
            self.arguments.append(self.dialect.many([each.low for each in spans]))
            return f"v (value) AS ({self.dialect.each_of(len(self.arguments), 'text')})"
        low, high = spans[0], spans[-1]
        place = self._place("f")
        first = place + self._within("f", Span(low.low, None, low.with_low))
        end = self._within("f", Span("", high.high, with_high=high.with_high))
        rest = [*place, "f.value > w.value", *end]
        first += end
        value = "(SELECT f.value FROM {s}.field_index f WHERE %s ORDER BY f.value LIMIT 1)"
        within = [" AND ".join(self._within("w", each) or ["w.value >= ''"]) for each in spans]
        return (
            f"w (value, n) AS (SELECT {value % ' AND '.join(first)}, 1 UNION ALL "
            f"SELECT {value % ' AND '.join(rest)}, w.n + 1 FROM w "
            f"WHERE w.value IS NOT NULL AND w.n < {self._bind(most, 'bigint')}), "
            f"v (value) AS (SELECT w.value FROM w WHERE {' OR '.join(within)})"
        )

    def _merged(self, limit: int) -> str:
        """Return the newest ids of each value, merged: of no more values than ids are wanted."""
        id_of = (
            "(SELECT f.execution_id FROM {s}.field_index f WHERE %s "
            "ORDER BY f.execution_id DESC LIMIT 1%s)"
        )
        bound = self._bind(limit, "bigint")
        values = self._values(VALUES_MAX)
        conditions = [*self._place("f"), *self._ids("f")]
        mine = " AND ".join([*conditions, "f.value = v.value"])
        return (
            f"WITH RECURSIVE {values}, "
            f"newest (value, id) AS MATERIALIZED (SELECT v.value, {id_of % (mine, '')} FROM v "
            f"WHERE v.value IS NOT NULL), {self._top(id_of, mine, bound)}"
            f"ORDER BY f.execution_id DESC LIMIT {bound}) "
        )

    def _top(self, id_of: str, mine: str, bound: str) -> str:
        """Return the ids of those values whose newest are the newest."""
        top = f"FROM newest v WHERE v.id IS NOT NULL ORDER BY v.id DESC LIMIT {bound})"
        found = "d AS MATERIALIZED (SELECT f.root_id, f.execution_id FROM top v"
        if self.dialect.has_lateral:
            return (
                f"top (value) AS MATERIALIZED (SELECT v.value {top}, {found} CROSS JOIN LATERAL "
                f"(SELECT f.root_id, f.execution_id FROM {{s}}.field_index f WHERE {mine} "
                f"ORDER BY f.execution_id DESC LIMIT {bound}) f "
            )
        least = id_of % (mine, f" OFFSET {bound} - 1")
        return (
            f"top (value, least) AS MATERIALIZED (SELECT v.value, {least} {top}, {found} "
            f"{self.dialect.cross_join} {{s}}.field_index f ON {mine} "
            "AND f.execution_id >= coalesce(v.least, '') "
        )

    # -- counting -----------------------------------------------------------------------------

    def tally(self, group: str | None, total: str | None) -> str:
        """Return the statement that counts by a column or indexed place, and adds a place up."""
        query = self.query
        source, by, key = "{s}.execution e", "NULL", "({0}.root_id, {0}.execution_id) = "
        conditions: list[str] = []
        if query.place is None:
            key += "(e.root_id, e.id)"
            conditions = self._others()
        else:
            key += "(d.root_id, d.execution_id)"
            found = self._members("d.root_id, d.execution_id", self._place("d") + self._ids("d"))
            source = f"({found}) d"
            if group in TEXTS or not is_plain(query):
                source += f" {self.dialect.cross_join} {{s}}.execution e {_JOIN}"
                conditions = self._others()
        if group in TEXTS:
            by = f"e.{group}"
        elif group is not None:
            by = "g.value"
            source += f" JOIN {{s}}.field_index g ON {key.format('g')}"
            conditions += [f"g.path = {self._bind(group)}", "g.value < '4'"]
        number = "NULL"
        if total is not None:
            number = "sum(t.number)"
            source += (
                f" LEFT JOIN {{s}}.field_index t ON {key.format('t')} "
                f"AND t.path = {self._bind(total)}"
            )
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


def is_plain(query: Query) -> bool:
    """Say whether it asks for nothing but a workflow's executions by what is indexed."""
    return not (query.columns or query.unfinished or query.filters.keys() - _INDEXED)


def tally_text(
    dialect: Dialect, query: Query, group: str | None, total: str | None
) -> tuple[str, list[Any]]:
    """Return the statement that counts, and its arguments."""
    text = Text(dialect, query)
    everything = set(query.filters) == {"workflow_id"} and not (
        query.columns or query.indexed or query.place or query.until
    )
    if everything and group is not None and group not in TEXTS:
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
