"""One execution on a page: who and when, its state, its latest steps, how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

from polos.cli import tables, text
from polos.cli.output import Output
from polos.cli.tables import Record

STEPS_SHOWN = 20
JSON_LINES = 40
"""Lines of a state or a result that a page shows at most; `--json` has all of it."""


class Page:
    """Draws an execution; with `rows` in so many lines of a terminal."""

    def __init__(self, out: Output, execution: Record, steps: list[Record], now: datetime) -> None:
        self._out = out
        self._execution = execution
        self._steps = steps
        self._now = now

    def draw(self, rows: int | None = None) -> Group:
        """Return the page."""
        facts = self._facts()
        latest = STEPS_SHOWN
        lines = JSON_LINES
        if rows is not None:
            # What is left below the facts is shared: a third for the state, the rest for steps.
            left = max(rows - facts.row_count - 8, 2)
            state = self._execution["state"]
            wanted = 0 if state is None else text.pretty(state).count("\n") + 1
            lines = min(wanted, max(left // 3, left - len(self._steps)))
            latest = max(left - lines, 1)
        return Group(
            self._title(), facts, *self._state(lines), *self._latest(latest), *self._result()
        )

    def _title(self) -> Text:
        record = self._execution
        title = Text(text.clean(record["workflow_id"]), "bold")
        title.append("  ")
        return title.append_text(tables.status(record["status"], symbol=self._out.terminal))

    def _facts(self) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in self._list_facts():
            if value:
                table.add_row(name, value)
        return table

    def _list_facts(self) -> Iterator[tuple[str, str | Text]]:
        record, out, now = self._execution, self._out, self._now
        yield "id", record["id"]
        if record["parent_execution_id"]:
            yield "parent", f"{record['parent_execution_id']} step {record['step_key']!r}"
        if record["root_execution_id"] not in {record["id"], record["parent_execution_id"]}:
            yield "root", record["root_execution_id"]
        yield "created", out.time(record["created_at"], now)
        ended = record["completed_at"]
        yield "took" if ended else "runs for", text.between(record["started_at"], ended, now)
        yield "attempt", self._attempt()
        for name, key in (("session", "session_id"), ("user", "user_id")):
            yield name, text.clean(record[key] or "")
        for name, key in (("deployment", "deployment_id"), ("code", "code_version")):
            yield name, text.clean(record[key] or "")
        yield "key", text.clean(record["idempotency_key"] or "")
        if record["payload"] is not None:
            yield "payload", text.compact(record["payload"], 300)
        if record["status"] == "failed":
            yield "error", Text(text.clean(record["error"] or "", lines=True), "red")
        else:
            note = tables.remark(out, record, now)
            yield "note", Text(note.plain, note.style)

    def _attempt(self) -> str:
        number, retries = self._execution["attempt"], self._execution["retry_count"]
        if number <= 1 and not retries:
            return ""
        return f"{number} ({retries} retries)" if retries else f"{number}"

    def _state(self, lines: int) -> Iterator[RenderableType]:
        record = self._execution
        if record["state"] is not None:
            yield ""
            yield Text.assemble(("State", "bold"), (f"  version {record['state_version']}", "dim"))
            yield from self._json(record["state"], lines)

    def _result(self) -> Iterator[RenderableType]:
        if self._execution["status"] == "completed":
            yield ""
            yield Text("Result", "bold")
            yield from self._json(self._execution["result"], JSON_LINES)

    def _json(self, value: Any, lines: int) -> Iterator[Text]:
        written = text.pretty(value).split("\n")
        yield highlighted("\n".join(written[:lines]), wrap=lines == JSON_LINES)
        if len(written) > lines:
            yield Text(f"  … {len(written) - lines} more lines", "dim")

    def _latest(self, count: int) -> Iterator[RenderableType]:
        steps = self._steps
        if not steps:
            return
        yield ""
        hidden = max(len(steps) - count, 0)
        done = sum(each["completed_at"] is not None for each in steps)
        heading = Text.assemble(("Steps", "bold"), (f"  {done} recorded", "dim"))
        if hidden:
            heading.append(f", the last {len(steps) - hidden} shown", "dim")
        yield heading
        yield tables.steps(self._out, steps[hidden:], self._now, first=hidden + 1)


def highlighted(json_text: str, *, wrap: bool = True) -> Text:
    """Return JSON in colors."""
    shown = Text(json_text, overflow="fold" if wrap else "ellipsis", no_wrap=not wrap)
    JSONHighlighter().highlight(shown)
    return shown
