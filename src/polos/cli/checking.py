"""`polos check`: which live executions the code in hand would leave behind."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from rich.text import Text

from polos.cli import loading, output, tables, text
from polos.cli.desk import Desk
from polos.cli.exits import Exit
from polos.cli.grid import Grid
from polos.core.model import TERMINAL, Execution, Status, Work
from polos.testing.checking import Checker, Verdict
from polos.workflow import registry as registries

PAGE = 200
STYLES = {"ok": "green", "diverges": "bold red", "unregistered": "yellow"}
Finding = tuple[Execution, Verdict]


async def check(desk: Desk, modules: Sequence[str], workflow: str | None, limit: int) -> Exit:
    """Replay live executions, at most `limit`, print what was found, and return the exit code."""
    found: list[Finding] = []
    # What the code prints is not ours: standard output is for the findings.
    with contextlib.redirect_stdout(sys.stderr):
        chosen = {each.id for each in loading.load(modules)}
        some = all(":" in each for each in modules)
        async with Checker(registries.default) as checker:
            node: Any = await desk.client.node()
            async for execution in live(node, workflow, limit):
                if some and execution.workflow_id not in chosen:
                    continue
                work = await node.engine.load(Work(execution, [], [], []))
                found.append((execution, await checker.check(execution, work)))
    if desk.out.json:
        for execution, verdict in found:
            desk.out.document(_facts(execution, verdict))
    elif any(verdict.verdict != "ok" for _, verdict in found):
        desk.out.show(_table(desk, found))
    counts = Counter(verdict.verdict for _, verdict in found)
    told = ", ".join(f"{counts[name]} {name}" for name in STYLES if counts[name])
    told = f"{len(found)} live executions{': ' if told else ''}{told}"
    output.note(told if len(found) < limit else f"{told}; --limit {limit} is reached")
    return Exit.DIVERGES if counts["diverges"] else Exit.OK


async def live(node: Any, workflow: str | None, limit: int) -> AsyncIterator[Execution]:
    """Read the executions that have not ended, at most `limit`, each once."""
    filters = {} if workflow is None else {"workflow_id": workflow}
    left = limit
    seen: set[str] = set()
    for status in Status:
        before: dict[str, str] = {}
        while status not in TERMINAL and left > 0:
            wanted = min(PAGE, left)
            page = await node.engine.listing({**filters, "status": status, **before}, wanted)
            for each in page:
                if each.id not in seen:  # it may have moved on from one status to the next
                    seen.add(each.id)
                    yield each
            left -= len(page)
            if len(page) < wanted:
                break
            before = {"before": page[-1].id}


def _facts(execution: Execution, verdict: Verdict) -> dict[str, Any]:
    return {
        "execution_id": execution.id,
        "workflow_id": execution.workflow_id,
        "status": str(execution.status),
        "deployment_id": execution.deployment_id,
        "code_version": execution.code_version,
        "verdict": verdict.verdict,
        "step_key": verdict.step_key,
        "reason": verdict.reason,
    }


def _table(desk: Desk, found: Sequence[Finding]) -> Grid:
    table = Grid(
        *("ID", "WORKFLOW", "STATUS", "VERDICT", "STEP", "REASON"),
        flexible={"WORKFLOW", "STEP", "REASON"},
        right=set(),
    )
    for execution, verdict in found:
        if verdict.verdict == "ok":
            continue
        table.add_row(
            Text(execution.id[-tables.SHORT :] if desk.out.narrow else execution.id, "dim"),
            Text(text.clean(execution.workflow_id)),
            tables.status(str(execution.status), symbol=desk.out.terminal),
            Text(verdict.verdict, STYLES[verdict.verdict]),
            Text(text.clean(verdict.step_key or "")),
            Text(text.clean(" ".join((verdict.reason or "").split()))),
        )
    return table
