"""Recorded states of executions, as clients read them."""

from __future__ import annotations

from collections.abc import Sequence

from polos.core.amending import Amendment
from polos.core.model import Execution, StateEntry
from polos.store.protocol import VERSION_MAX, Store


class States:
    """Reads what state was recorded, of any version."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def last_version(self, execution: Execution) -> int:
        """Return the latest version, or -1 of an execution without state."""
        key = (execution.root_id, execution.id)
        found = await self._store.state_version_at(*key, VERSION_MAX)
        return -1 if found is None else found

    async def version_at(self, execution: Execution, at: int) -> int | None:
        """Return the last version that was recorded up to a moment."""
        return await self._store.state_version_at(execution.root_id, execution.id, at)

    async def up_to(self, execution: Execution, version: int) -> list[StateEntry]:
        """Read what the state of a version is made of."""
        return await self._store.states_up_to(execution.root_id, execution.id, version)

    async def between(self, execution: Execution, after: int, until: int) -> list[StateEntry]:
        """Read the entries behind one version, up to and including another."""
        return await self._store.states_between(execution.root_id, execution.id, after, until)

    async def latest(self, execution: Execution) -> list[StateEntry]:
        """Read what the latest state is made of."""
        return await self._store.latest_states(execution.root_id, execution.id)

    async def latest_of(self, executions: Sequence[Execution]) -> dict[str, list[StateEntry]]:
        """Read what the latest states of executions are made of, by id."""
        return await self._store.latest_states_of([(e.root_id, e.id) for e in executions])

    async def origin(self, execution: Execution, version: int) -> str | None:
        """Return who recorded a version (see `StateEntry.origin`)."""
        return await self._store.state_origin(execution.root_id, execution.id, version)

    async def amend(self, execution: Execution, amendment: Amendment) -> None:
        """Change the state of an execution that nobody runs; `ConflictError` if that cannot be."""
        await self._store.amend(execution.id, amendment)
