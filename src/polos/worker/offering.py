"""What the worker of a process runs: workflows, of which deployment, by which code."""

from __future__ import annotations

from collections.abc import Sequence

from polos.core.upkeep import Offer
from polos.workflow.registry import Registry


class Offering:
    """The workflows of a registry, all or some, and the conditions under which they are run."""

    def __init__(
        self,
        registry: Registry,
        *,
        takes_queue: bool = False,
        only: Sequence[str] | None = None,
        deployment_id: str | None = None,
        match_code: bool = False,
    ) -> None:
        self._registry = registry
        self.takes_queue = takes_queue
        self.only = only
        self.deployment_id = deployment_id
        self.match_code = match_code
        self._told: Offer | None = None

    @property
    def workflows(self) -> frozenset[str]:
        """The ids of the workflows that this worker can run."""
        known = self._registry.ids()
        return frozenset(known) if self.only is None else frozenset(self.only).intersection(known)

    def current(self) -> Offer:
        """Return what the worker offers now, and take it as told."""
        present = sorted(self.workflows)
        self._told = Offer(present, self.takes_queue, self.deployment_id, self._versions())
        return self._told

    def indexed(self) -> list[tuple[str, str]]:
        """Return the (workflow, place of its state) that the workflows declare to be found by."""
        known = self._registry.all()
        return [(each, place) for each in self.workflows for place in known[each].index_state]

    def is_stale(self) -> bool:
        """Say whether a workflow has other code than was told, as after a cell of a notebook."""
        told = self._told
        return told is not None and told.versions is not None and told.versions != self._versions()

    def _versions(self) -> dict[str, str] | None:
        if not self.match_code:
            return None
        known = self._registry.all()
        return {each: known[each].code_version for each in self.workflows}
