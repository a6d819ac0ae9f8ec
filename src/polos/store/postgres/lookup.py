"""The part of the store that finds executions by what is indexed."""

from __future__ import annotations

from collections.abc import Sequence

from polos.core.model import Execution, StateEntry
from polos.core.where import Query, Tally
from polos.store.postgres import finding
from polos.store.postgres.depot import Depot


class Lookup(Depot):
    """Finds and counts executions."""

    async def find(self, query: Query, limit: int) -> list[Execution]:
        """List the executions that a query finds, newest first."""
        return await self.read(lambda link: finding.find(link, query, limit))

    async def floor(self, query: Query, skip: int) -> str | None:
        """Return the id behind so many newest executions of a workflow."""
        return await self.read(lambda link: finding.floor(link, query, skip))

    async def count_entries(self, query: Query, most: int) -> int:
        """Count what is looked up by a place, up to so many."""
        return await self.read(lambda link: finding.count_entries(link, query, most))

    async def count_values(self, query: Query, most: int) -> int:
        """Count the values that are looked up at a place, up to so many."""
        return await self.read(lambda link: finding.count_values(link, query, most))

    async def tally(self, query: Query, group: str | None, total: str | None) -> list[Tally]:
        """Count what a query finds."""
        return await self.read(lambda link: finding.tally(link, query, group, total))

    async def latest_states_of(
        self, keys: Sequence[tuple[str, str]]
    ) -> dict[str, list[StateEntry]]:
        """Read what the latest states of executions are made of."""
        return await self.read(lambda link: finding.latest_states(link, keys))

    async def workflow_ids(self) -> list[str]:
        """Return the ids of the workflows that have executions."""
        return await self.read(finding.workflow_ids)

    async def declare(self, places: Sequence[tuple[str, str]], since: str) -> None:
        """Note which places of states are indexed from now on."""
        await self.do(lambda link, _: finding.declare(link, places, since))

    async def declared(self) -> list[tuple[str, str, str]]:
        """Return the places that are indexed."""
        return await self.read(finding.all_declared)
