"""The engine: one method a verb, over one store; it also rings those who wait in this process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from polos.core import ages, ids, sealed, versions
from polos.core.clock import Clock
from polos.core.model import (
    TERMINAL,
    Execution,
    InboxItem,
    Row,
    Start,
    Survey,
    Work,
    WorkerRecord,
    WorkerSeen,
)
from polos.core.upkeep import Need, Offer, Pruned
from polos.engine.answers import Answers
from polos.engine.asking import Asking
from polos.engine.blobs import Blobs
from polos.engine.recovery import (
    CANCEL_DEADLINE_US,
    CANCEL_GRACE_US,
    UNREGISTERED_GRACE_US,
    Recovery,
)
from polos.engine.retention import Retention
from polos.engine.rewinding import Rewinding, check_id
from polos.engine.states import States
from polos.engine.topics import Topics
from polos.engine.watching import Watching
from polos.errors import (
    ExecutionNotFoundError,
    StoreClosedError,
    StoreError,
    StoreReadOnlyError,
    WorkflowNotRegisteredError,
)
from polos.store.protocol import Store

log = logging.getLogger("polos.engine")

LEAVING_SECONDS = 5.0
"""So long a worker that leaves tries to hand back what it owns."""


class Listener(Protocol):
    """The worker of this process, as far as the engine rings it."""

    def on_cancel(self, ids: Sequence[str]) -> None:
        """These executions were asked to cancel."""
        ...

    def on_item(self, execution_id: str) -> None:
        """Something came into an execution's inbox from this process."""
        ...

    def on_queue(self) -> None:
        """Something may be claimable."""
        ...

    def on_bell(self) -> None:
        """Another process rang for this worker."""
        ...

    def on_topics(self, is_meant: Callable[[str], bool]) -> None:
        """Events were published on the topics that are meant."""
        ...

    def run_started(self, start: Start) -> None:
        """A start is durable: run it if it is this worker's."""
        ...

    def owns(self, execution_id: str) -> bool:
        """Say whether an attempt of this execution is in this process, and will ring its end."""
        ...


class Engine:
    """Verbs on records for the worker (`workflow.backend.Backend`) and for clients."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.worker_id: str | None = None
        self.survey_seconds = store.survey_seconds
        self.submit = store.submit
        self.commit_now = store.commit_now
        self.states = States(store)
        self.latest_states = self.states.latest
        self.asking = Asking(store)
        self.watching = Watching(store, clock)
        self.rewinding = Rewinding(store, clock, self._tell_cancelled, self.ring)
        self.retry = self.rewinding.retry
        self.transact = store.transact
        self.async_transactions = store.async_transactions
        self.enter_key, self.is_preceded = store.enter_key, store.is_preceded
        self.keyed_state = store.keyed_state
        self.register_triggers = store.register_triggers
        self.triggered = store.triggered
        self.fire = self.watching.after(store.fire)
        self.answers = Answers(store, clock, self._came)
        self.resume = self.answers.resume
        self.listing = store.listing
        self.blobs = Blobs(store, clock)
        self.keep_blobs = self.blobs.keep
        self.read_blob = self.blobs.read
        self.expire = self.answers.expire
        self._recovery = Recovery(store, clock)
        self._retention = Retention(store, clock)
        self.topics = Topics(store, clock, self._woken, self._on_topics)
        self._listener: Listener | None = None
        self._waiters: dict[str, list[asyncio.Future[Execution]]] = {}
        self._poller: Any = None
        self._poked: asyncio.Future[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Open the store."""
        self.store.on_bell = self._heard
        self.store.on_published = self.topics.published
        await self.store.open()

    async def close(self) -> None:
        """Close the store; whoever still waits for a result is told."""
        self._closed = True
        for each in list(self._waiters):
            closed = "the client was closed while a result was awaited; the execution goes on when "
            self.failed_to_write(each, StoreClosedError(f"{closed}its workflow is run again"))
        if self._poller is not None:
            self._poller.cancel()
        self.topics.close()
        self.watching.close()
        await self.store.close()

    # -- workers ------------------------------------------------------------------------------

    async def register(self, offer: Offer, listener: Listener) -> str:
        """Enter this process as a worker, or refresh what it can run; returns its id."""
        if self.store.read_only:
            raise StoreReadOnlyError(
                "the store was opened with mode=ro, which only looks; open it without to run "
                "anything"
            )
        if self.worker_id is None:
            self.worker_id = ids.new_id(self.clock.now())
            await self.store.liveness.hold(self.worker_id)
        self._listener = listener
        await self.store.register_worker(
            WorkerRecord(
                self.worker_id,
                socket.gethostname(),
                os.getpid(),
                self.clock.now(),
                None,
                offer.takes_queue,
                json.dumps(sorted(offer.workflows)),
                offer.deployment_id,
                None if offer.versions is None else json.dumps(dict(offer.versions)),
            )
        )
        return self.worker_id

    async def declare(self, places: Sequence[tuple[str, str]]) -> None:
        """Note the (workflow, place of its state) that this worker keeps in the index."""
        await self.asking.declare(places, self.clock.now())

    async def unregister(self) -> None:
        """Hand back what this worker owns, and leave."""
        if self.worker_id is not None:
            worker_id, self.worker_id = self.worker_id, None
            try:
                async with asyncio.timeout(LEAVING_SECONDS):
                    now = self.clock.now()
                    handed = await self.store.stop_worker(worker_id, now, crashed=False)
                log.info("worker %s stopped; executions handed back: %s", worker_id, handed)
            except (StoreError, TimeoutError) as error:
                # The lock goes all the same: others find out by it.
                log.warning("leaving without handing back: %s", error or "the database is away")
            await self.store.liveness.drop()

    def die(self) -> None:
        """Forget everything without a word, as death would (for crash tests)."""
        self._closed = True
        self.topics.close()
        self.watching.close()
        self.worker_id = None
        if self._poller is not None:
            self._poller.cancel()
        for waiting in self._waiters.values():
            for future in list(waiting):
                future.cancel()

    def unregister_now(self) -> None:
        """The same at the end of the process, when no event loop runs any more."""
        if self.worker_id is not None:
            worker_id, self.worker_id = self.worker_id, None
            self.store.stop_worker_now(worker_id, self.clock.now())

    async def maintain(self, workflows: Sequence[str], takes_queue: bool) -> Survey | None:
        """Look around, recover, sort out and force; None if this worker was declared dead."""
        assert self.worker_id is not None
        now = self.clock.now()
        queued_before = now - UNREGISTERED_GRACE_US
        asked_before = now - CANCEL_DEADLINE_US - CANCEL_GRACE_US
        survey = await self.store.survey(
            self.worker_id,
            workflows,
            takes_queue=takes_queue,
            now=now,
            queued_before=queued_before,
            asked_before=asked_before,
        )
        if survey.stopped:
            dead, self.worker_id = self.worker_id, None
            await self.store.liveness.drop()
            await self.store.stop_worker(dead, now, crashed=False, again=True)
            return None
        if await self._recovery.run_once(survey):
            survey.claimable = True
        if self._recovery.lost:
            self.topics.look_up_soon()
        await self.topics.survey()
        if survey.unregistered:
            await self.store.sort_out(queued_before)
            survey.claimable = True
        if survey.overdue:
            await self._tell_finished(await self.store.force_cancel(asked_before, now))
        return survey

    async def prune(self, kept: Mapping[str, float]) -> Pruned:
        """Remove a part of what is older than its workflow's seconds in `kept`."""
        return await self._retention.run_once(kept)

    async def claimable(
        self, workflows: Sequence[str], takes_queue: bool, limit: int
    ) -> list[tuple[str, str, int]]:
        """Find what this worker may claim now."""
        if self.worker_id is None:
            return []
        now = self.clock.now()
        return await self.store.claimable(self.worker_id, workflows, takes_queue, now, limit)

    async def claim(
        self, keys: Sequence[tuple[str, str, int]], parked: dict[str, tuple[int, int]], limit: int
    ) -> list[Work]:
        """Own those that are still free, at most `limit` beside the parked."""
        if self.worker_id is None:
            return []
        return await self.store.claim(self.worker_id, keys, parked, self.clock.now(), limit)

    async def load(self, work: Work) -> Work:
        """Read journal and states of a claim that came without them."""
        record = work.execution
        rows = await self.journal(record.root_id, record.id)
        states = await self.store.states(record.root_id, record.id)
        return Work(record, rows, states, work.inbox)

    async def block(self, execution_id: str, attempt: int, reason: str) -> None:
        """Park an execution as waiting with a reason."""
        await self.store.block(execution_id, attempt, reason)

    async def inboxes(self, keys: Sequence[tuple[str, str]]) -> list[InboxItem]:
        """Read what came from outside for running executions."""
        return await self.store.inboxes(keys)

    async def to_cancel(self) -> list[str]:
        """Find executions of this worker that were asked to cancel."""
        return [] if self.worker_id is None else await self.store.to_cancel(self.worker_id)

    async def next_wake(self, workflows: Sequence[str]) -> int | None:
        """Return when the next timer of these workflows is due."""
        if self.worker_id is None:
            return None
        return await self.store.next_wake(self.worker_id, workflows)

    def foreign_commits(self) -> bool:
        """Say whether another process may have committed since the last call."""
        return self.store.foreign_commits()

    def _heard(self, topics: set[str]) -> None:
        if self._closed:
            return
        everything = "all" in topics
        if self._waiters and (everything or "ended" in topics):
            self._poke()
        self.topics.heard(topics, works=self._listener is not None)
        if self._listener is None:
            return
        if everything or f"worker:{self.worker_id}" in topics:
            self._listener.on_bell()
        elif "queue" in topics:
            self._listener.on_queue()

    def _woken(self, execution_ids: Iterable[str]) -> None:
        if self._listener is not None and not self._closed:
            for each in execution_ids:
                self._listener.on_item(each)

    def _on_topics(self, is_meant: Callable[[str], bool]) -> None:
        if self._listener is not None and not self._closed:
            self._listener.on_topics(is_meant)

    # -- verbs --------------------------------------------------------------------------------

    def start(self, start: Start) -> asyncio.Future[str]:
        """Create an execution; the future holds its id (another's for a known idempotency key)."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def done(result: str | BaseException) -> None:
            if result == start.id and self.watching.active:
                self.watching.came([start.id])
            if result == start.id and self._listener is not None:
                self._listener.run_started(start)  # also if its caller gave up meanwhile
            if future.cancelled():
                return
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        start.done = done
        if not self.store.commit_now(start):
            self.store.submit(start)
        return future

    async def require_registered(self, workflow_id: str, deployment_id: str | None) -> None:
        """Raise unless a live worker can run the workflow for this deployment."""
        need = Need(workflow_id, deployment_id, None)
        why = versions.why_nobody(await self.store.live_workers(), need)
        if why is not None:
            raise WorkflowNotRegisteredError(
                f"workflow {workflow_id!r} is registered neither in this process nor by a running "
                f"worker ({why}); import the module that defines it, or start a worker for it"
            )

    async def cancel(self, execution_id: str) -> bool:
        """Ask for the cancellation of an execution and its descendants; False if it has ended."""
        check_id(execution_id)
        verdicts = await self.store.cancel(execution_id, self.clock.now())
        await self._tell_cancelled(verdicts)
        return bool(verdicts)

    async def _tell_cancelled(self, verdicts: Mapping[str, str]) -> None:
        ended = [each for each, verdict in verdicts.items() if verdict == "cancelled"]
        await self._tell_finished(ended)
        if self._listener is not None:
            self._listener.on_cancel([e for e, v in verdicts.items() if v != "cancelled"])

    def _came(self, execution_id: str) -> None:
        if self._listener is not None:
            self._listener.on_item(execution_id)

    def ring(self) -> None:
        """Something may be claimable, or was changed from outside: tell who is in this process."""
        self.watching.ring()
        if self._listener is not None:
            self._listener.on_queue()

    async def cancel_children(self, root_id: str, execution_id: str) -> None:
        """Ask for the cancellation of all descendants of an execution."""
        for child in await self.store.listing({"root_id": root_id, "parent_id": execution_id}, -1):
            if child.status not in TERMINAL:
                await self.cancel(child.id)

    def remote_start(
        self, workflow_id: str, payload: str, payload_type: str | None, deployment_id: str | None
    ) -> Start:
        """Return the command that queues a workflow for another process."""
        now = self.clock.now()
        execution_id = ids.new_id(now)
        start = Start(
            execution_id, execution_id, workflow_id, workflow_id, payload, payload_type, now
        )
        start.deployment_id = deployment_id
        return start

    # -- results ------------------------------------------------------------------------------

    def expect(self, execution_id: str) -> asyncio.Future[Execution]:
        """Return a future for the end of an execution that this process is about to run."""
        future: asyncio.Future[Execution] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(execution_id, []).append(future)
        future.add_done_callback(lambda f: self._forget(execution_id, f))
        return future

    def _forget(self, execution_id: str, future: asyncio.Future[Execution]) -> None:
        waiting = self._waiters.get(execution_id, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._waiters.pop(execution_id, None)

    async def wait_finished(self, execution_id: str) -> Execution:
        """Return the execution once it has ended, wherever it runs."""
        future = self.expect(execution_id)
        if self._is_here(execution_id):
            self._poll_later()
            return await future
        found = await self.require(execution_id)
        if found.status in TERMINAL:
            future.cancel()
            return found
        self._poll_later()
        return await future

    def finished(self, execution: Execution) -> None:
        """Ring those who wait for this execution; its end is durable."""
        if execution.root_id in self.topics.watched:
            self.topics.derive_soon(execution.root_id)
        for future in self._waiters.pop(execution.id, ()):
            if not future.done():
                future.set_result(execution)

    def failed_to_write(self, execution_id: str, error: BaseException) -> None:
        """Tell those who wait that the store cannot go on; the execution has not ended."""
        for future in self._waiters.pop(execution_id, ()):
            if not future.done():
                future.set_exception(error)

    async def _tell_finished(self, execution_ids: Sequence[str]) -> None:
        if execution_ids:
            for found in await self.store.finished(execution_ids):
                self.finished(found)
            self.ring()

    def _is_here(self, execution_id: str) -> bool:
        return self._listener is not None and self._listener.owns(execution_id)

    def _poll_later(self) -> None:
        if self._poller is None and self._waiters and not self._closed:
            self._poller = asyncio.get_running_loop().create_task(self._poll())

    async def _poll(self) -> None:
        # Only results of executions that run elsewhere need this: the worker rings for its own.
        try:
            while self._waiters and not self._closed:
                asleep = self.clock.monotonic()
                await self._sleep(self.store.poll_seconds)
                elsewhere = [each for each in self._waiters if not self._is_here(each)]
                if self.clock.monotonic() - asleep > ages.SECONDS_MIN / 2:
                    await self._tell_removed(elsewhere)
                for found in await self.store.finished(elsewhere) if elsewhere else ():
                    self.finished(found)
        finally:
            self._poller = None

    async def _tell_removed(self, execution_ids: Sequence[str]) -> None:
        # This process slept for so long that an execution may have ended and been removed.
        for each in execution_ids:
            if await self.store.execution(each) is None:
                self.failed_to_write(each, ExecutionNotFoundError(each))

    async def _sleep(self, seconds: float) -> None:
        self._poked = future = asyncio.get_running_loop().create_future()
        self.clock.call_periodically(seconds, self._poke)
        await future

    def _poke(self) -> None:
        if self._poked is not None and not self._poked.done():
            self._poked.set_result(None)

    async def journal(self, root_id: str, execution_id: str) -> list[Row]:
        """Read a journal by seq; `EncryptionKeyError` without its key."""
        rows = await self.store.steps(root_id, execution_id)
        sealed.demand_open(*(row.body for row in rows))
        return rows

    # -- reads --------------------------------------------------------------------------------

    async def require(self, execution_id: str) -> Execution:
        """Read an execution that must exist."""
        check_id(execution_id)
        found = await self.store.execution(execution_id)
        if found is None:
            raise ExecutionNotFoundError(execution_id)
        return found

    async def steps(self, execution: Execution) -> list[Row]:
        """Read a journal."""
        return await self.store.steps(execution.root_id, execution.id)

    async def workers(self, stopped_within: float) -> list[WorkerSeen]:
        """Read live workers, and those that stopped within so many seconds."""
        return await self.store.workers(self.clock.now() - round(stopped_within * 1e6))
