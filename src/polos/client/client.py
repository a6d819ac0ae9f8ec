"""The client: starts, reads and steers executions of one store.

It opens at the first awaited call, on the running event loop, and is a worker for the workflows
that its process has registered: it runs what it starts, and takes over what dead ones left.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from polos.client import carrying, settings, views
from polos.client.answering import Answering
from polos.client.blocking import BlockingRuns, refuse_inside_a_loop
from polos.client.finding import Finding
from polos.client.handle import ExecutionHandle
from polos.client.keyed import KeyedStates
from polos.client.node import Node
from polos.client.past import Past
from polos.client.patching import Patching
from polos.client.rewinding import Rewinding
from polos.client.streams import ChunkStream, open_stream
from polos.client.topics import Audience
from polos.client.watches import Watches
from polos.codecs import PayloadCodec
from polos.core import failure, sealed, where
from polos.core.blob import Blob
from polos.core.model import TERMINAL, Execution, Start, Status
from polos.errors import (
    ExecutionCancelledError,
    ExecutionFailedError,
    ExecutionNotFoundError,
    StoreClosedError,
    UsageError,
    WorkflowNotRegisteredError,
    WorkflowTimeoutError,
)
from polos.workflow import labels
from polos.workflow.batch import BatchWorkflowInput, checked
from polos.workflow.runnable import StartOptions, Workflow, label, time_limit

if TYPE_CHECKING:
    from types import TracebackType


Opener = Callable[["Client"], Coroutine[Any, Any, Node]]


class Client(Answering, Finding, Past, Patching, KeyedStates, Rewinding, Watches):
    """See `polos.PolosClient`."""

    takes_queue = False
    only: Sequence[str] | None = None
    """The workflows (by id) that this client runs; None: all that its process has registered."""
    concurrency: int | None = None
    """Executions that it runs at once; None: what fits an embedded client."""
    match_code = False
    """Whether only executions that were started by the same code are claimed."""
    _open_node: Opener

    def __init__(
        self,
        url: str | None = None,
        *,
        api_url: str | None = None,
        api_key: str | None = None,
        project_id: str | None = None,
        deployment_id: str | None = None,
        codec: PayloadCodec | None = None,
    ) -> None:
        self.url = settings.store_url(url, api_url)
        self.codec = settings.codec(codec)
        """What encrypts values at rest; None: they are stored in clear."""
        self.api_url = api_url
        self.api_key = api_key
        self.project_id = project_id
        self.deployment_id = settings.deployment_id(deployment_id)
        self._node: Node | None = None
        self._opening: asyncio.Future[Node] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._pid = os.getpid()
        self.audience = Audience()
        """Who reads topics through this client."""
        self._blocking = BlockingRuns(self._leave_loop)

    def use_opener(self, opener: Opener) -> None:
        """Open something else behind this client than its URL says; `polos.testing` does."""
        self._open_node = opener

    # -- opening and closing ------------------------------------------------------------------

    async def node(self) -> Node:
        """Open the store if need be, and return what runs behind this client."""
        node, loop = self._node, asyncio.get_running_loop()
        if node is not None and loop is self._loop and not self._closed:
            # A store in this process answers without waiting: who polls it in a loop would keep
            # everything else on the event loop, the execution included, from running.
            await asyncio.sleep(0)
            return node
        self._check_usable(loop)
        if self._opening is None:
            self._loop = loop
            self._opening = loop.create_future()
            try:
                self._node = await self._open_node(self)
            except BaseException as error:
                opening, self._opening = self._opening, None
                self._loop = None
                opening.set_exception(error)
                opening.exception()  # whoever else waits gets it; nobody may
                raise
            self._opening.set_result(self._node)
        return await asyncio.shield(self._opening)

    def _check_usable(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            raise StoreClosedError("this client was closed; make a new PolosClient")
        if os.getpid() != self._pid and self._loop is not None:
            raise UsageError(
                "this client was opened before the process forked; make a new PolosClient in the "
                "child"
            )
        if self._loop is None or self._loop is loop:
            return
        if not self._loop.is_closed():
            raise UsageError(
                "this client is open on another event loop; use one PolosClient per loop"
            )
        if self._node is not None:  # that loop is gone, and what ran on it: open anew
            self._node.leave_now()
        self._node = self._opening = self._loop = None

    async def close(self) -> None:
        """Let running steps end, hand everything back and close; nothing is lost."""
        node, self._node = self._node, None
        self._closed = True
        if node is not None and self._loop is asyncio.get_running_loop():
            await node.close()

    async def __aenter__(self) -> Self:
        await self.node()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def run_blocking(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine function to its end from code without an event loop, of any thread."""
        refuse_inside_a_loop()
        return self._blocking.run(main, self._loop)

    async def _leave_loop(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            await node.close()

    # -- starting -----------------------------------------------------------------------------

    async def start_workflow(
        self, workflow: Workflow[Any], payload: Any, options: StartOptions
    ) -> ExecutionHandle:
        """Store a new execution (see `Workflow.invoke`); it runs in this process."""
        node = await self.node()
        await node.runner.ensure()
        start = node.runner.new_start(
            workflow, payload, options.initial_state, moment=node.engine.clock.now()
        )
        self._apply(start, options)
        if start.contents:
            await node.engine.keep_blobs(start.contents)
            start.contents = [each for each in start.contents if each.in_memory]
        return await self._start(node, start)

    def _apply(self, start: Start, options: StartOptions) -> None:
        start.deployment_id = self.deployment_id
        start.queue_name = options.queue_name
        start.concurrency_key = options.concurrency_key
        start.session_id = options.session_id
        start.user_id = options.user_id
        start.idempotency_key = options.idempotency_key
        start.run_timeout_seconds = options.run_timeout_seconds
        where.tag(start, options.tags)

    async def _start(self, node: Node, start: Start) -> ExecutionHandle:
        held = await node.engine.start(start)
        if held == start.id:
            return ExecutionHandle(
                self,
                start.id,
                start.workflow_id,
                start.created_at,
                start.parent_id,
                start.root_workflow_id,
                start.root_id,
                start.session_id,
                start.user_id,
            )
        try:
            return self._handle(await node.engine.require(held))
        except ExecutionNotFoundError:  # the one with this key was removed at this moment
            return await self._start(node, start)

    def _handle(self, record: Execution) -> ExecutionHandle:
        return ExecutionHandle(
            self,
            record.id,
            record.workflow_id,
            record.created_at,
            record.parent_id,
            record.root_workflow_id,
            record.root_id,
            record.session_id,
            record.user_id,
            record.parent_key,
        )

    async def invoke(  # noqa: PLR0917 - the reference's order
        self,
        workflow_id: str | Workflow[Any],
        payload: Any = None,
        queue_name: str | None = None,
        queue_concurrency_limit: int | None = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: BaseModel | dict[str, Any] | None = None,
        run_timeout_seconds: float | None = None,
        *,
        idempotency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ExecutionHandle:
        """Start a workflow by its id and return the handle of its execution.

        The workflow is registered in this process, or by a worker that is running: else
        `WorkflowNotRegisteredError`, and nothing is stored.
        """
        if isinstance(workflow_id, Workflow):
            workflow_id = workflow_id.id
        node = await self.node()
        workflow = node.registry.get(workflow_id)
        if workflow is not None:
            options = workflow.start_options(
                queue_name,
                concurrency_key=concurrency_key,
                session_id=session_id,
                user_id=user_id,
                initial_state=initial_state,
                run_timeout_seconds=run_timeout_seconds,
                idempotency_key=idempotency_key,
                tags=tags,
            )
            return await self.start_workflow(workflow, payload, options)
        start = await self._remote_start(node, workflow_id, payload, initial_state)
        start.queue_name = label("queue_name", queue_name) or workflow_id
        start.concurrency_key = label("concurrency_key", concurrency_key)
        start.session_id = label("session_id", session_id)
        start.user_id = label("user_id", user_id)
        start.run_timeout_seconds = time_limit(run_timeout_seconds)
        start.idempotency_key = label("idempotency_key", idempotency_key)
        where.tag(start, labels.tags(tags))
        del queue_concurrency_limit
        return await self._start(node, start)

    async def _remote_start(
        self, node: Node, workflow_id: str, payload: Any, initial_state: Any
    ) -> Start:
        await node.engine.require_registered(workflow_id, self.deployment_id)
        if initial_state is not None:
            raise WorkflowNotRegisteredError(
                f"workflow {workflow_id!r} is not registered in this process, so initial_state "
                "cannot be checked; import the module that defines it"
            )
        encoded = node.codec.encode(payload, what="payload")
        contents = node.codec.take_contents()
        start = node.engine.remote_start(
            workflow_id, encoded.body, encoded.type, self.deployment_id
        )
        start.contents = contents
        return start

    async def batch_invoke(
        self,
        workflows: Sequence[BatchWorkflowInput],
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> list[ExecutionHandle]:
        """Start many workflows at once; all are checked before the first is stored."""
        members = checked(workflows)
        node = await self.node()
        await node.runner.ensure()
        now = node.engine.clock.now()
        starts: list[Start] = []
        for number, each in enumerate(members):
            workflow = node.registry.get(each.id)
            if workflow is None:
                raise WorkflowNotRegisteredError(
                    f"workflow {each.id!r} is not registered in this process; import the module "
                    "that defines it"
                )
            start = node.runner.new_start(
                workflow, each.payload, each.initial_state, moment=now + number
            )
            options = workflow.start_options(
                session_id=session_id,
                user_id=user_id,
                initial_state=each.initial_state,
                run_timeout_seconds=each.run_timeout_seconds,
                tags=each.tags,
            )
            self._apply(start, options)
            starts.append(start)
        return list(await asyncio.gather(*(self._start(node, start) for start in starts)))

    # -- reading ------------------------------------------------------------------------------

    def get_handle(self, execution_id: str) -> ExecutionHandle:
        """Return the handle of an execution; does no I/O."""
        return ExecutionHandle(self, execution_id)

    async def get_execution(self, execution_id: str) -> dict[str, Any]:
        """Return an execution as plain data; `ExecutionNotFoundError` if there is none."""
        node = await self.node()
        record = await node.engine.require(execution_id)
        return views.execution(record, await node.engine.latest_states(record))

    async def get_typed_execution(self, execution_id: str) -> dict[str, Any]:
        """Return an execution with its result as the type that the workflow returned."""
        node = await self.node()
        record = await node.engine.require(execution_id)
        shown = views.execution(record, await node.engine.latest_states(record))
        if record.status is Status.COMPLETED:
            shown["result"] = self._decode(node, record)
        return shown

    async def get_steps(self, execution_id: str) -> list[dict[str, Any]]:
        """Return the steps of an execution in commit order; open ones last."""
        node = await self.node()
        record = await node.engine.require(execution_id)
        return views.steps(await node.engine.steps(record), record)

    async def result_of(self, execution_id: str, timeout: float | None = None) -> Any:
        """Wait for the end of an execution (see `ExecutionHandle.result`)."""
        node = await self.node()
        waiting = node.engine.wait_finished(execution_id)
        if timeout is None:
            record = await waiting
        else:
            try:
                async with asyncio.timeout(timeout):
                    record = await waiting
            except TimeoutError as error:
                raise WorkflowTimeoutError(execution_id, timeout) from error
        return self._result(node, record)

    def stream(
        self, execution_id: str, *, offset: int = 0, step_key: str | None = None
    ) -> ChunkStream:
        """Read what the code of an execution streams out with `ctx.emit` and `ctx.step.stream`.

        ```python
        async for chunk in client.stream(handle.id):
            print(chunk.data)
        ```
        An async iterator of `Chunk`: everything behind `offset` (that of the last chunk that you
        have; 0: from the beginning), then live, in order. It ends when the execution has ended and
        all was read, however it ended: `handle.result()` tells that. With `step_key` it yields the
        chunks of that step only, and ends with the step. Of type `reset` are marks that the chunks
        of `step_key` so far are void: its body starts again. Readers of one process share the
        `data`: do not change them. Raises `ExecutionNotFoundError` at first use.
        """
        return open_stream(self, execution_id, offset, step_key)

    def _result(self, node: Node, record: Execution) -> Any:
        assert record.status in TERMINAL
        if record.status is Status.COMPLETED:
            return self._decode(node, record)
        if record.status is Status.CANCELLED:
            raise ExecutionCancelledError(execution_id=record.id)
        sealed.demand_open(record.error)
        failed = failure.load(record.error or "{}")
        if failed.type == "WorkflowTimeoutError":
            raise WorkflowTimeoutError(record.id, record.run_timeout_seconds)
        raise ExecutionFailedError(failed.message, record.id)

    def _decode(self, node: Node, record: Execution) -> Any:
        sealed.demand_open(record.result)
        workflow = node.registry.get(record.workflow_id)
        hint = None if workflow is None else workflow.result_hint
        return node.codec.decode(record.result or "null", record.result_type, hint)

    async def list_workers(self, *, stopped_within: float = 0.0) -> list[dict[str, Any]]:
        """List the workers of the store with what they own, the latest start first.

        `stopped_within` seconds: also those that stopped so recently. Their `status` is `live`,
        `lost` (the process is dead, and nobody took over yet) or `stopped`.
        """
        if not stopped_within >= 0:
            raise UsageError(f"stopped_within={stopped_within!r}: expected seconds, 0 or more")
        node = await self.node()
        return [views.worker(each) for each in await node.engine.workers(stopped_within)]

    # -- blobs and files ----------------------------------------------------------------------

    async def store_blob(self, blob: Blob) -> Blob:
        """Store a blob ahead of the executions that will refer to it; returns the stored one.

        One that none refers to within a day is removed.
        """
        return await carrying.store_blob(await self.node(), blob)

    async def get_blob(self, blob: Blob | str | dict[str, Any]) -> Blob:
        """Return the stored blob of a hash, of another blob or of what `get_execution` shows of it.

        `BlobNotFoundError` if the store does not have it.
        """
        return await carrying.get_blob(await self.node(), blob)

    async def export_execution(self, execution_id: str, path: str | PurePath) -> dict[str, Any]:
        """Write an execution, with its whole tree, to one file; returns what its manifest says.

        The file has journals, the history of states, blobs and code versions. What is encrypted
        stays so. The execution goes on as before.
        """
        return await carrying.export(await self.node(), execution_id, path)

    async def import_execution(
        self, path: str | PurePath, *, resume: bool = False
    ) -> ExecutionHandle:
        """Store what `export_execution` wrote; returns the handle of the exported execution.

        With `resume` what has not ended goes on here, else it is parked until it is retried. Ids
        stay, unless one is taken here: then all are new. `ImportFileError` refuses a file that was
        changed or that a newer release wrote.
        """
        node = await self.node()
        done = await carrying.restore(node, path, resume=resume)
        return self._handle(await node.engine.require(done.id))

    # -- steering -----------------------------------------------------------------------------

    async def cancel_execution(self, execution_id: str) -> bool:
        """Ask for the cancellation of an execution and its children; False if it has ended.

        Its code gets an `asyncio.CancelledError` and 30 seconds to clean up.
        """
        node = await self.node()
        return await node.engine.cancel(execution_id)

    async def retry_execution(self, execution_id: str) -> ExecutionHandle:
        """Let a failed execution go on from the step that failed it, or release a blocked one.

        Of a root that was imported, all that the import parked is released. `ConflictError` if it
        is neither.
        """
        node = await self.node()
        await node.runner.ensure()
        await carrying.release(node, execution_id)
        await node.engine.retry(execution_id)
        return self._handle(await node.engine.require(execution_id))
