"""The part of a client that watches recorded states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos.client.node import Node
from polos.client.watching import StateWatch
from polos.client.watching_many import Watch
from polos.workflow.runnable import Workflow, label


class Watches:
    """Gives iterators over recorded states."""

    _node: Node | None

    def watch_state(
        self, execution_id: str, path: str | None = None, *, after_version: int | None = None
    ) -> StateWatch:
        """Return an async iterator: the state as it is now, then every recorded change in order.

        Each item is a dict as in `state_history`; the first, the state as it is, has no `changes`.
        With `after_version`, the `seq` of an item that was seen, it begins with the change behind
        that (-1: with the start) instead. With `path`, such as `total` or `legs[0].to`, it gives
        only changes of what is there, and each item has it as `value` (None if nothing is). It
        ends when the execution has ended and all was read. Changes are pushed, from other
        processes too; whoever is slow loses none. Values that did not change are shared between
        the items.

        At first use: `ExecutionNotFoundError`, and UsageError for a version not recorded yet.
        """
        return StateWatch(self, execution_id, path, after_version)

    def watch(
        self,
        workflow_id: str | Workflow[Any] | None = None,
        where: Mapping[str, Any] | None = None,
        after: str | None = None,
    ) -> Watch:
        """Return an async iterator over the recorded changes of the executions that fit.

        It begins, at this call if the client is open and else at the first look, with the state of
        each execution that has not ended; then comes every recorded
        change, once, and for each execution in order: those that begin later from their start on.
        An item is a dict as in `state_history` with `execution_id`, `workflow_id` and `status` (as
        of when it was read). `where` has conditions as in `list_executions`; those on the state
        are about the state as of the change. `after` is the `cursor` of an earlier iterator: it
        begins with what that one did not give. It never ends by itself.
        """
        if isinstance(workflow_id, Workflow):
            workflow_id = workflow_id.id
        since = None if self._node is None else self._node.engine.clock.now()
        return Watch(self, label("workflow_id", workflow_id), where, after, since)
