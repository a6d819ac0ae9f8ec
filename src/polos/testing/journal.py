"""Journal files: an execution's journal as JSON, and its replay against the code in hand."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from polos.core.model import Execution, Row, Start, StateEntry
from polos.errors import AlreadyResumedError, PolosError, UsageError
from polos.store.lining import Lining
from polos.store.sqlite import batch
from polos.store.sqlite.committer import MemoryDatabase
from polos.testing.simulation import Simulation
from polos.workflow.registry import Registry

FORMAT = 1
REPLAY_SECONDS = 30.0


@dataclass
class ReplayOutcome:
    """What the code made of a journal."""

    status: str
    result: Any
    error: str | None
    state: dict[str, Any] | None
    new_steps: list[str]
    """Keys of steps that the journal did not have: their bodies ran."""


@dataclass
class JournalFile:
    """One execution with its journal and recorded states; the format is a promise (JOURNAL)."""

    execution: dict[str, Any]
    rows: list[dict[str, Any]]
    states: list[dict[str, Any]]

    @classmethod
    async def of(cls, client: Any, execution_id: str) -> Self:
        """Read the journal of an execution from the store of a client."""
        node = await client.node()
        record = await node.engine.require(execution_id)
        rows = await node.store.steps(record.root_id, execution_id)
        states = await node.store.states(record.root_id, execution_id)
        return cls(
            dataclasses.asdict(record),
            [dataclasses.asdict(row) for row in rows],
            [dataclasses.asdict(entry) for entry in states],
        )

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file that `write` wrote."""
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data.get("format") != FORMAT:
            raise UsageError(
                f"{path}: journal file of format {data.get('format')!r}, expected {FORMAT}"
            )
        return cls(data["execution"], data["rows"], data["states"])

    def write(self, path: str | Path) -> None:
        """Write the journal as readable JSON, one row a line."""
        lines = ",\n  ".join(json.dumps(row) for row in self.rows)
        states = ",\n  ".join(json.dumps(entry) for entry in self.states)
        Path(path).write_text(
            f'{{"format": {FORMAT},\n "execution": {json.dumps(self.execution)},\n'
            f' "rows": [\n  {lines}\n ],\n "states": [\n  {states}\n ]}}\n',
            encoding="utf-8",
        )


async def replay(
    journal: JournalFile | str | Path,
    *,
    registry: Registry | None = None,
    strict: bool = True,
    answers: Mapping[str, Any] | None = None,
) -> ReplayOutcome:
    """Run the registered workflow of a journal on top of it, in memory and on virtual time.

    `answers` are for suspensions that the journal leaves open, by step key. Recorded steps are
    handed over without running their bodies. With `strict` every departure from the journal fails
    the execution with `NonDeterminismError`.
    """
    file = journal if isinstance(journal, JournalFile) else JournalFile.read(journal)
    database = MemoryDatabase()
    async with Simulation(
        database=database,
        registry=registry,
        strict=strict,
        deployment_id=file.execution["deployment_id"],
    ) as simulation:
        execution_id = _load(database, file)
        for key, data in (answers or {}).items():
            with contextlib.suppress(AlreadyResumedError):
                await simulation.client.resume(None, execution_id, key, data)
        simulation.node.engine.ring()
        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                result = await simulation.client.get_handle(execution_id).result()
            error = None
        except PolosError as raised:
            result, error = None, str(raised)
        shown = await simulation.client.get_execution(execution_id)
        known = {row["key"] for row in file.rows if row["turn"] is not None}
        steps = await simulation.client.get_steps(execution_id)
        new = [s["step_key"] for s in steps if s["step_key"] not in known]
        return ReplayOutcome(shown["status"], result, error, shown["state"], new)


def _load(database: MemoryDatabase, file: JournalFile) -> str:
    record = Execution(**file.execution)
    start = Start(
        record.id,
        record.root_id,
        record.workflow_id,
        record.root_workflow_id,
        record.payload,
        record.payload_type,
        record.created_at,
        session_id=record.session_id,
        user_id=record.user_id,
        deployment_id=record.deployment_id,
        code_version=record.code_version,
    )
    connection = database.connection
    with connection:
        batch.write(connection, [start], Lining())
        connection.execute("UPDATE execution SET generation = ?", (record.generation,))
        batch.write_journal(
            connection,
            record.root_id,
            record.id,
            [Row(**row) for row in file.rows],
            [StateEntry(**entry) for entry in file.states],
        )
        # Free for the taking, by whoever registers the workflow.
        connection.execute(
            "UPDATE execution SET wake_at = 0, worker_id = 'recorded' WHERE id = ?", (record.id,)
        )
    return record.id
