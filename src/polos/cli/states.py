"""`polos state`: patching a state by hand, and which states the code in hand could not load."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from rich.text import Text

from polos.cli import checking, given, loading, output, text
from polos.cli.desk import Desk
from polos.cli.exits import Exit
from polos.cli.grid import Grid
from polos.core import delta
from polos.core.model import StateEntry
from polos.errors import InvalidStateError, UsageError
from polos.workflow import registry as registries
from polos.workflow.state import StateSchema

MIGRATE = "migrate"
PAGE = 200
STYLES = {"ok": "green", "migrates": "cyan", "fails": "bold red", "unregistered": "yellow"}


@dataclass(slots=True)
class Finding:
    """What the code in hand makes of one state."""

    execution_id: str | None
    workflow_id: str
    key: str | None
    """Of keyed state that no execution holds."""
    from_version: int
    to_version: int | None
    verdict: str
    reason: str | None = None


async def patch(
    desk: Desk,
    execution_id: str,
    written: str,
    if_version: int | None,
    who: str | None,
    why: str | None,
) -> Exit:
    """Patch the state of an execution with a JSON object, and show what it is then."""
    values = given.document("--set", written)
    if not isinstance(values, dict):
        raise UsageError(f'--set: expected a JSON object such as {{"done": 3}}, not {written!r}')
    target = await desk.resolve(execution_id)
    fields = cast("dict[str, Any]", values)
    found = await desk.client.patch_state(target, fields, if_version, who=who, why=why)
    desk.out.document(found["state"])
    output.note(f"{target} is {found['status']}; its state has version {found['state_version']}")
    return Exit.OK


async def migrations(desk: Desk, modules: Sequence[str], *, dry_run: bool) -> Exit:
    """Load the states of all live executions, and of all keys, with the code in hand."""
    if not dry_run or not modules:
        raise UsageError(
            "polos state migrate --dry-run MODULE... only looks: states are migrated when they are "
            "loaded; name the modules with the new code"
        )
    found: list[Finding] = []
    # What the code prints is not ours: standard output is for the findings.
    with contextlib.redirect_stdout(sys.stderr):
        loading.load(modules)
        node: Any = await desk.client.node()
        async for record in checking.live(node, None, sys.maxsize):
            workflow = registries.default.get(record.workflow_id)
            entries: list[StateEntry] = await node.engine.latest_states(record)
            if workflow is None and entries:
                version = entries[-1].schema_version or 1
                why = "no module registers its workflow"
                found.append(
                    Finding(record.id, record.workflow_id, None, version, None, "unregistered", why)
                )
            elif workflow is not None and workflow.schema is not None and entries:
                fields = delta.replay(each.jump or each.body for each in entries)
                finding = _look(workflow.schema, fields, entries[-1].schema_version)
                finding.execution_id, finding.workflow_id = record.id, record.workflow_id
                found.append(finding)
        found += [finding async for finding in _keyed(node)]
    return _report(desk, found)


async def _keyed(node: Any) -> AsyncIterator[Finding]:
    for workflow in registries.default.all().values():
        after = ""
        while workflow.keying is not None and workflow.schema is not None:
            keys = await node.engine.store.state_keys(workflow.id, "", after, PAGE)
            for key in keys:
                record = await node.engine.keyed_state(workflow.id, key)
                if record is not None:
                    fields = delta.split(record.state)
                    finding = _look(workflow.schema, fields, record.schema_version)
                    finding.workflow_id, finding.key = workflow.id, key
                    yield finding
            if len(keys) < PAGE:
                break
            after = keys[-1]


def _look(schema: StateSchema, fields: delta.Fields, version: int | None) -> Finding:
    finding = Finding(None, "", None, version or 1, schema.version, "ok")
    try:
        schema.check(schema.upgraded(fields, version))
    except InvalidStateError as error:
        finding.verdict, finding.reason = "fails", str(error)
    else:
        finding.verdict = "migrates" if schema.is_older(version) else "ok"
    return finding


def _report(desk: Desk, found: Sequence[Finding]) -> Exit:
    if desk.out.json:
        for each in found:
            desk.out.document(asdict(each))
    elif any(each.verdict != "ok" for each in found):
        table = Grid(
            *("ID OR KEY", "WORKFLOW", "FROM", "TO", "VERDICT", "REASON"),
            flexible={"ID OR KEY", "WORKFLOW", "REASON"},
            right={"FROM", "TO"},
        )
        for each in found:
            if each.verdict != "ok":
                table.add_row(
                    Text(text.clean(each.execution_id or repr(each.key)), "dim"),
                    Text(text.clean(each.workflow_id)),
                    Text(str(each.from_version)),
                    Text("" if each.to_version is None else str(each.to_version)),
                    Text(each.verdict, STYLES[each.verdict]),
                    Text(text.clean(" ".join((each.reason or "").split()))),
                )
        desk.out.show(table)
    counts = Counter(each.verdict for each in found)
    told = ", ".join(f"{counts[name]} {name}" for name in STYLES if counts[name])
    output.note(f"{len(found)} states{': ' if told else ''}{told}")
    return Exit.DIVERGES if counts["fails"] else Exit.OK
