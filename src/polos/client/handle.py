"""`ExecutionHandle`: one execution, from outside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from polos.client.answering import Resumed
from polos.client.streams import ChunkStream
from polos.client.views import moment
from polos.workflow.asking import NO_DATA

if TYPE_CHECKING:
    from pydantic import BaseModel

    from polos.client.watching import StateWatch


class Source(Protocol):
    """The client behind a handle."""

    async def result_of(self, execution_id: str, timeout: float | None = None) -> Any:
        """Wait for the end of an execution."""
        ...

    async def get_execution(self, execution_id: str) -> dict[str, Any]:
        """Return an execution as plain data."""
        ...

    async def get_typed_execution(self, execution_id: str) -> dict[str, Any]:
        """Return an execution with its typed result."""
        ...

    async def cancel_execution(self, execution_id: str) -> bool:
        """Ask for the cancellation of an execution."""
        ...

    async def fork(
        self,
        execution_id: str,
        *,
        at_step: str,
        state: BaseModel | Mapping[str, Any] | None = None,
        payload: Any = None,
    ) -> ExecutionHandle:
        """Start a new execution that goes on behind a step of another one."""
        ...

    async def reset(
        self, execution_id: str, *, to_step: str, dry_run: bool = False
    ) -> dict[str, Any]:
        """Let an execution go on, in place, behind one of its steps."""
        ...

    async def state_history(
        self,
        execution_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return every recorded state of an execution."""
        ...

    async def state_at(
        self,
        execution_id: str,
        *,
        step_key: str | None = None,
        seq: int | None = None,
        at: datetime | str | None = None,
    ) -> dict[str, Any] | None:
        """Return the state as it was recorded with a step, as an entry, or at a moment."""
        ...

    def stream(
        self, execution_id: str, *, offset: int = 0, step_key: str | None = None
    ) -> ChunkStream:
        """Read what the code of an execution streams out."""
        ...

    def watch_state(
        self, execution_id: str, path: str | None = None, *, after_version: int | None = None
    ) -> StateWatch:
        """Return an async iterator over the recorded states of an execution."""
        ...

    async def resume(
        self,
        suspend_workflow_id: str | None = None,
        suspend_execution_id: str | None = None,
        suspend_step_key: str | None = None,
        data: Any = NO_DATA,
    ) -> Resumed:
        """Answer a suspension."""
        ...


class ExecutionHandle:
    """Names an execution and gives access to it; made by starting, or by `client.get_handle(id)`.

    Making a handle does no I/O: an unknown id raises `ExecutionNotFoundError` at first use.
    Facts other than `id` are known where the execution was started in this process, else None.
    """

    def __init__(  # noqa: PLR0917 - the reference's order
        self,
        client: Source,
        id: str,
        workflow_id: str | None = None,
        created_at: int | str | None = None,
        parent_execution_id: str | None = None,
        root_workflow_id: str | None = None,
        root_execution_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        step_key: str | None = None,
    ) -> None:
        self._client = client
        self.id = id
        self.workflow_id = workflow_id
        self._created_at = created_at
        self.parent_execution_id = parent_execution_id
        self.root_workflow_id = root_workflow_id
        self.root_execution_id = root_execution_id
        self.session_id = session_id
        self.user_id = user_id
        self.step_key = step_key

    @property
    def created_at(self) -> str | None:
        """When the execution was started, as ISO 8601 text in UTC."""
        given = self._created_at
        return moment(given) if isinstance(given, int) else given

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the result, with its type.

        Raises `ExecutionFailedError`, `ExecutionCancelledError`, or `WorkflowTimeoutError` if
        `timeout` (seconds) is over, which leaves the execution running, or if the execution
        itself ran out of time.
        """
        return await self._client.result_of(self.id, timeout)

    async def get(self, client: Any = None) -> dict[str, Any]:
        """Return the execution as `client.get_execution` does, with a typed `result`."""
        del client  # the reference's argument; the handle has its own
        return await self._client.get_typed_execution(self.id)

    async def state(self) -> dict[str, Any] | None:
        """Return the state as last recorded; None without a state schema."""
        execution = await self._client.get_execution(self.id)
        return execution["state"]

    async def state_history(
        self, *, after: int | None = None, before: int | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Return every recorded state, oldest first (see `PolosClient.state_history`)."""
        return await self._client.state_history(self.id, after=after, before=before, limit=limit)

    async def state_at(
        self,
        *,
        step_key: str | None = None,
        seq: int | None = None,
        at: datetime | str | None = None,
    ) -> dict[str, Any] | None:
        """Return the state as of a step, an entry or a moment (see `PolosClient.state_at`)."""
        return await self._client.state_at(self.id, step_key=step_key, seq=seq, at=at)

    def watch_state(
        self, path: str | None = None, *, after_version: int | None = None
    ) -> StateWatch:
        """Return an async iterator: the state as it is, then every recorded change.

        See `PolosClient.watch_state`.
        """
        return self._client.watch_state(self.id, path, after_version=after_version)

    async def fork(
        self,
        *,
        at_step: str,
        state: BaseModel | Mapping[str, Any] | None = None,
        payload: Any = None,
    ) -> ExecutionHandle:
        """Start a new execution that goes on behind a step of this one (`PolosClient.fork`)."""
        return await self._client.fork(self.id, at_step=at_step, state=state, payload=payload)

    async def reset(self, *, to_step: str, dry_run: bool = False) -> dict[str, Any]:
        """Let the execution go on, in place, behind one of its steps (`PolosClient.reset`)."""
        return await self._client.reset(self.id, to_step=to_step, dry_run=dry_run)

    async def cancel(self, client: Any = None) -> bool:
        """Ask for the cancellation of the execution and its children; False if it has ended."""
        del client
        return await self._client.cancel_execution(self.id)

    async def resume(self, step_key: str, data: Any = NO_DATA) -> Resumed:
        """Answer the suspension `step_key` of this execution or, of a root, of one below it.

        See `PolosClient.resume`.
        """
        return await self._client.resume(None, self.id, step_key, data)

    def stream(self, *, offset: int = 0, step_key: str | None = None) -> ChunkStream:
        """Read what the code streams out: live, in order, behind `offset` (see `client.stream`)."""
        return self._client.stream(self.id, offset=offset, step_key=step_key)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain data."""
        facts = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {**facts, "created_at": self.created_at}

    def __repr__(self) -> str:
        return f"<ExecutionHandle {self.workflow_id or ''} {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExecutionHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)
