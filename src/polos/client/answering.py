"""Answering what executions ask: the part of the client that resumes, and lists what is open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from polos.client import views
from polos.client.finding import number
from polos.core import ids
from polos.core.suspension import Answer
from polos.workflow.asking import NO_DATA, check_target
from polos.workflow.runnable import label


@dataclass(slots=True, frozen=True)
class Resumed:
    """An answer that was accepted: it is stored, and no other one will be.

    `execution_id` is the execution that is suspended, or will be; `accepted_at` is ISO 8601 text in
    UTC. `early` says that the code has not suspended with this key yet: the answer is kept until it
    does, or until the execution ends.
    """

    execution_id: str
    step_key: str
    accepted_at: str
    early: bool


class Answering:
    """The methods of `polos.PolosClient` that answer suspensions."""

    async def node(self) -> Any:
        """Open the store if need be, and return what runs behind this client."""
        raise NotImplementedError

    async def resume(
        self,
        suspend_workflow_id: str | None = None,
        suspend_execution_id: str | None = None,
        suspend_step_key: str | None = None,
        data: Any = NO_DATA,
    ) -> Resumed:
        """Answer a suspension, which goes on with `data`; the answer is durable on return.

        Without `data` it goes on with an empty dict.

        The execution is the suspended one, or the root of its tree; the workflow, if given, is
        compared with that execution's, or its root's. An answer to a key that the code has not
        suspended with yet is kept for it.

        Raises `AlreadyResumedError` if somebody answered before, `FormError` if the answer does
        not fit the form (the execution still waits then), `ConflictError` if its time is over, the
        execution has ended or the key is open in several children, `ExecutionNotFoundError`.
        """
        check_target(suspend_workflow_id, suspend_execution_id, suspend_step_key)
        node = await self.node()
        body = node.codec.encode(data, what="data").body
        contents = node.codec.take_contents()
        await node.runner.ensure()
        await node.engine.keep_blobs(contents, all=True)
        now = node.engine.clock.now()
        answer = Answer(
            ids.new_id(now),
            cast("str", suspend_execution_id),
            cast("str", suspend_step_key),
            body,
            now,
            suspend_workflow_id,
        )
        accepted = await node.engine.resume(answer)
        at = cast("str", views.moment(accepted.at))
        return Resumed(accepted.execution_id, accepted.key, at, accepted.early)

    async def list_suspensions(
        self,
        *,
        workflow_id: str | None = None,
        execution_id: str | None = None,
        root_execution_id: str | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """List open suspensions, the oldest first: what can be answered now.

        `root_execution_id` lists those of a whole tree of executions.
        """
        most = number("limit", limit)
        given = {
            "workflow_id": workflow_id,
            "execution_id": execution_id,
            "root_id": root_execution_id,
        }
        filters = {name: label(name, each) for name, each in given.items() if each is not None}
        node = await self.node()
        found = await node.engine.answers.listing(filters, most)
        return [views.suspension(each) for each in found]
