"""The worker of a process: claims executions, runs their attempts, parks, resumes and drains them.

One per client. It owns what it started or claimed; everything it writes is fenced, so that losing
an execution to another worker costs nothing but the attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import Any

from polos.core.blob import current_reader
from polos.core.clock import Clock
from polos.core.codec import Codec
from polos.core.model import Change, Execution, Start, Status, Work
from polos.worker import keyed, tasks
from polos.worker.attempt import Attempt
from polos.worker.code import run_code
from polos.worker.jobs import Jobs
from polos.worker.news import News
from polos.worker.offering import Offering
from polos.worker.plain import PlainThreads
from polos.worker.reconciling import leave
from polos.worker.results import ResultHints
from polos.worker.starting import execution_of, prepare_start
from polos.worker.threads import Threads
from polos.worker.ticker import Ticker
from polos.worker.triggers import Triggers
from polos.workflow.backend import Backend
from polos.workflow.registry import Registry
from polos.workflow.runnable import Workflow

log = logging.getLogger("polos.worker")

STALE_SECONDS = 5.0
"""A worker that could not beat for half the limit starts no new body (DESIGN §3)."""
CLAIM_MAX = 200


class Runner:
    """Runs attempts; `polos.workflow.backend.Listener` for the engine."""

    def __init__(
        self,
        backend: Backend,
        registry: Registry,
        codec: Codec,
        *,
        takes_queue: bool = False,
        concurrency: int = 1000,
        parked_max: int = 10_000,
        threads: int = 32,
        cancel_seconds: float = 30.0,
        drain_seconds: float = 10.0,
        history_max: int = 50_000,
        strict: bool = False,
        prove_state: bool = False,
        only: Sequence[str] | None = None,
        deployment_id: str | None = None,
        match_code: bool = False,
        approval_url: str | None = None,
        handle: Callable[[dict[str, Any]], Any] = dict,
    ) -> None:
        self.backend = backend
        self.clock: Clock = backend.clock
        self.registry = registry
        self.codec = codec
        self.results = ResultHints(codec)
        self.offering = Offering(
            registry,
            takes_queue=takes_queue,
            only=only,
            deployment_id=deployment_id,
            match_code=match_code,
        )
        self.handle = handle
        self.approval_url = approval_url
        """The server whose pages answer suspensions, if there is one."""
        self.strict = strict
        self.prove_state = prove_state
        """Whether each state is read back and compared, as tests do (JOURNAL 18)."""
        self.cancel_seconds = cancel_seconds
        self.history_max = history_max
        self.threads = Threads(threads)
        self.plain = PlainThreads(concurrency, self.evict)
        self.loop = asyncio.get_running_loop()
        self.context = copy_context()
        self.context.run(current_reader.set, backend)
        self._concurrency = concurrency
        self._parked_max = parked_max
        self.drain_seconds = drain_seconds
        self._attempts: dict[str, Attempt] = {}
        self._parked: OrderedDict[str, Attempt] = OrderedDict()
        self._waking: set[str] = set()
        self._watched = backend.topics.watched
        self.news = News(self)
        self.triggers = Triggers(self)
        self._registered: frozenset[str] = frozenset()
        self.stale_from = 0.0
        """From when on this worker may have been declared dead without knowing it."""
        self._last_start = 0
        self._jobs = Jobs(self.loop, self.context, self.clock)
        self._scanning = self._scan_again = self._closing = False
        self._drained: asyncio.Future[None] | None = None
        self._due: Any = None
        self._due_at: int | None = None
        self.entrances: dict[str, dict[str, asyncio.Event]] = {}
        """By workflow: those that have yet to take their place, by id, and what wakes them."""
        self._unsaved: dict[str, Attempt] = {}
        """Attempts that the store refused to write for: handed back once it takes writes again."""
        self._ticker = Ticker(self)

    # -- life ---------------------------------------------------------------------------------

    async def ensure(self) -> bool:
        """Enter as a worker if there is anything this process can run; refresh when it changes."""
        present = self.offering.workflows
        if not present:
            return False
        first = self.backend.worker_id is None
        if first or present != self._registered or self.offering.is_stale():
            self._registered = present
            # A caller that gives up in the middle of it must not leave half a worker behind.
            entering = self._enter(present, first=first)
            context = self.context.copy()
            await asyncio.shield(asyncio.Task(entering, loop=self.loop, context=context))
        return True

    async def _enter(self, present: frozenset[str], *, first: bool) -> None:
        self.stale_from = self.clock.monotonic() + STALE_SECONDS
        await self.backend.register(self.offering.current(), self)
        await self.backend.declare(self.offering.indexed())
        await self.triggers.register(present)
        if first:
            tasks.install(self.loop)
            await self.verify()
            if not self._jobs.has_timers:
                self._jobs.every(self.backend.survey_seconds, self.verify)

    async def serve(self, only: Sequence[str] | None, concurrency: int) -> None:
        """Take queued work as well, of all or of the named workflows."""
        self.offering.takes_queue = True
        self.offering.only = only or self.offering.only
        self._concurrency = concurrency
        self._registered = frozenset()
        await self.ensure()
        self._ticker.keep_on()
        self.on_queue()

    def spawn(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine of the worker itself."""
        return self._jobs.spawn(job)

    async def close(self) -> None:
        """Let running steps end, park the rest, hand back everything; nothing is lost."""
        if self._closing:
            return
        self._closing = True
        self._jobs.close()
        self.triggers.close()
        for attempt in list(self._attempts.values()):
            self._drain(attempt)
        if self._attempts:
            self._drained = self.loop.create_future()
            handle = self.clock.call_later(self.drain_seconds, self._give_up_draining)
            await self._drained
            handle.cancel()
        if self._due is not None:
            self._due.cancel()
        self._jobs.stop()
        await self._jobs.ended()
        await self.backend.unregister()
        self.threads.close()
        self.plain.threads.close()
        tasks.uninstall(self.loop)

    def _drain(self, attempt: Attempt) -> None:
        attempt.draining = True
        self.drained(attempt)

    def drained(self, attempt: Attempt) -> None:
        """A step of a draining attempt was recorded: seal it if that was the last."""
        if not attempt.busy:
            leave(attempt)

    def _give_up_draining(self) -> None:
        for attempt in list(self._attempts.values()):
            attempt.seal()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def kill(self) -> None:
        """Stop as death would: nothing is written or handed back (for crash tests)."""
        self._closing = True
        if self._due is not None:
            self._due.cancel()
        self._jobs.stop()
        for attempt in list(self._attempts.values()):
            attempt.seal()

    # -- starting -----------------------------------------------------------------------------

    @property
    def active(self) -> int:
        """How many attempts are running, not parked."""
        return len(self._attempts) - len(self._parked)

    @property
    def sole(self) -> bool:
        """Say whether at most one execution is running in this process."""
        return self.active <= 1

    @property
    def closing(self) -> bool:
        """Say whether `close` or `kill` was called."""
        return self._closing

    def has_room(self) -> bool:
        """Say whether one more execution may run now."""
        return self.active < self._concurrency and not self._closing

    def new_start(
        self,
        workflow: Workflow[Any],
        payload: Any,
        initial_state: Any,
        *,
        moment: int,
        root_id: str | None = None,
        root_workflow_id: str | None = None,
    ) -> Start:
        """Return the command that starts a workflow; payload and state are checked first."""
        self._last_start = moment = max(moment, self._last_start + 1)  # ids keep their order
        start = prepare_start(self.codec, workflow, payload, initial_state, moment)
        if root_id is not None:
            start.root_id = root_id
            start.root_workflow_id = root_workflow_id or workflow.id
        worker_id = self.backend.worker_id
        if worker_id is not None and workflow.id in self._registered and not self._closing:
            start.worker_id = worker_id
            start.attempt = 1 if self.has_room() else 0
        if not start.attempt:
            start.loaded = None  # it would lie in memory until somebody claims the execution
        return start

    def run_started(self, start: Start) -> None:
        """Run an execution whose start, owned by this worker, is durable."""
        if start.worker_id is None or start.worker_id != self.backend.worker_id:
            return
        if start.attempt == 0:
            self.on_queue()
            return
        states = [] if start.state is None else [start.first_entry()]
        self._begin(Work(execution_of(start), [], states, [], loaded=start.loaded))

    def _begin(self, work: Work) -> None:
        workflow = self.registry.get(work.execution.workflow_id)
        if workflow and not (self._closing or keyed.comes_late(self, workflow, work)):
            self.run(workflow, work)

    def run(self, workflow: Workflow[Any], work: Work) -> None:
        """Begin an attempt of an execution that this worker owns."""
        self.news.catch_up(work.execution)
        self._attempts[work.execution.id] = attempt = Attempt(self, workflow, work)
        attempt.begin()
        self._ticker.keep_on()

    def main(self, attempt: Attempt) -> Coroutine[Any, Any, None]:
        """Run user code once, and write how it ended: the root task of an attempt."""
        return run_code(self, attempt)

    # -- what commits bring -------------------------------------------------------------------

    def committed(self, attempt: Attempt, change: Change) -> None:
        """A change of an attempt is durable: run its children, ring who waits for its end."""
        watched = self._watched
        if watched and change.root_id in watched:
            self.backend.topics.derive_soon(change.root_id)
        if change.ending is None and change.status is None and not change.starts:
            return
        for start in change.starts:
            if start.worker_id is not None:
                self.run_started(start)
        if change.ending is not None:
            self.forget(attempt)
            self.backend.finished(attempt.execution)
            if change.ending.parent_id is not None:
                self.news.ring(change.ending.parent_id)
            if change.ending.key is not None:
                self.on_queue()  # the next one with its state key may be ours
        elif change.status is Status.QUEUED:
            self.forget(attempt)
            delay = ((change.wake_at or 0) - self.clock.now()) / 1e6
            self.clock.call_later(max(delay, 0.0), self.on_queue)

    def store_failed(self, attempt: Attempt, error: BaseException) -> None:
        """The store refused a change: the attempt is sealed, those who wait are told."""
        log.error("execution %s stops here: %s", attempt.execution_id, error)
        self._unsaved[attempt.execution_id] = attempt
        self.backend.failed_to_write(attempt.execution_id, error)

    def forget(self, attempt: Attempt) -> None:
        """An attempt is over: make room."""
        if self._attempts.get(attempt.execution_id) is attempt:
            del self._attempts[attempt.execution_id]
            self._parked.pop(attempt.execution_id, None)
        if self._drained is not None and not self._attempts and not self._drained.done():
            self._drained.set_result(None)
        if self._scan_again and self.has_room():
            self.on_queue()

    # -- parking ------------------------------------------------------------------------------

    def park(self, attempt: Attempt, *, woken: bool) -> None:
        """Keep the coroutine of a waiting execution, as long as there is room for it."""
        self._parked[attempt.execution_id] = attempt
        if self._closing:
            attempt.seal()
        elif woken:
            self.wake(attempt)
        else:
            if len(self._parked) > self._parked_max:
                self.evict(next(iter(self._parked.values())))
            self.plain.parked(attempt)
        if self._scan_again:
            self.on_queue()

    def evict(self, attempt: Attempt) -> None:
        """Let go of a parked coroutine: the execution is replayed when it goes on."""
        due = attempt.waiting.wake_at()
        attempt.seal()
        if due is not None and (self._due_at is None or due < self._due_at):
            self._arm_due(due)

    def wake(self, attempt: Attempt) -> None:
        """Claim a parked execution again: it may go on."""
        if not self._waking:
            self.loop.call_soon(lambda: self.spawn(self._claim_parked()))
        self._waking.add(attempt.execution_id)

    async def _claim_parked(self) -> None:
        woken, self._waking = self._waking, set()
        found = [self._parked[e] for e in woken if e in self._parked]
        if not found or self._closing:
            return
        keys = [(a.execution.root_id, a.execution_id, a.number) for a in found]
        await self._claim(keys, len(keys))
        for attempt, (_, id_, number) in zip(found, keys, strict=True):
            # Whoever moved it on meanwhile has it; this copy of the coroutine is worthless. Unless
            # another call claimed it, and it is parked again, under the next number.
            if self._parked.get(id_) is attempt and attempt.number == number:
                attempt.seal()

    async def _claim(self, keys: Sequence[tuple[str, str, int]], limit: int) -> None:
        mine = [(k[1], self._parked[k[1]]) for k in keys if k[1] in self._parked]
        parked = {e: (a.number, a.writer.seq) for e, a in mine}
        for claimed in await self.backend.claim(keys, parked, limit):
            work = claimed
            here = self._attempts.get(work.execution.id)
            if here is not None and here.number == work.execution.attempt:
                continue  # claimed by two calls at once, one of them sent again
            attempt = self._parked.pop(work.execution.id, None)
            if attempt is not None and work.resumed_from is not None:
                attempt.resume(work)
                continue
            if attempt is not None:
                attempt.seal()
            if work.resumed_from is not None:  # the coroutine was evicted meanwhile
                work = await self.backend.load(work)
            self._begin(work)

    # -- looking around -----------------------------------------------------------------------

    def on_queue(self) -> None:
        """Something may be claimable: look, once at a time."""
        if self._scanning or self._closing:
            self._scan_again = True
            return
        self._scanning = True
        self.spawn(self._scan())

    async def _scan(self) -> None:
        try:
            self._scan_again = False
            room = min(self._concurrency - self.active, CLAIM_MAX)
            workflows = sorted(self._registered)
            keys = await self.backend.claimable(workflows, self.offering.takes_queue, CLAIM_MAX)
            if len(keys) > max(room, 0) or len(keys) == CLAIM_MAX:
                self._scan_again = True  # never False: it may have been asked for meanwhile
            if keys and room > 0:
                await self._claim(keys, room)
            due = await self.backend.next_wake(workflows)
            if due is not None:
                self._arm_due(due)
        finally:
            self._scanning = False
        if self._scan_again and self.has_room():
            self.on_queue()

    def _arm_due(self, due: int) -> None:
        if self._due is not None:
            self._due.cancel()
        seconds = max((due - self.clock.now()) / 1e6, 0.001)
        self._due_at = due
        self._due = self.clock.call_later(seconds, self._on_due)

    def _on_due(self) -> None:
        self._due_at = None
        self.on_queue()

    def attempt_of(self, execution_id: str) -> Attempt | None:
        """Return the attempt of an execution that is in this process."""
        return self._attempts.get(execution_id)

    def owns(self, execution_id: str) -> bool:
        """Say whether an attempt of this execution is in this process, and will ring its end."""
        return execution_id in self._attempts

    def on_item(self, execution_id: str) -> None:
        """Something came into an execution's inbox from this process."""
        attempt = self._attempts.get(execution_id)
        if attempt is None:
            self.on_queue()
        elif attempt.parking:
            attempt.waiting.rung = True
        else:
            self.news.ring(execution_id)

    def on_cancel(self, ids: Sequence[str]) -> None:
        """These executions were asked to cancel."""
        self.news.on_cancel(ids)
        self.on_queue()

    def on_topics(self, is_meant: Callable[[str], bool]) -> None:
        """Events were published on the topics that are meant."""
        self.triggers.on_topics(is_meant)

    def cancel_children(self, execution: Execution) -> asyncio.Task[Any]:
        """A cancellation or timeout was delivered: it reaches the children too."""
        return self.spawn(self.backend.cancel_children(execution.root_id, execution.id))

    async def verify(self) -> None:
        """Look around, and find out whether this worker still owns what it thinks."""
        if self.backend.worker_id is None:
            return
        asked = self.clock.monotonic()  # an answer that came late, behind a freeze, proves nothing
        survey = await self.backend.maintain(sorted(self._registered), self.offering.takes_queue)
        if survey is None:
            log.warning("this worker was declared dead; it starts again under a new id")
            for attempt in list(self._attempts.values()):
                attempt.seal()
            self._registered = frozenset()
            await self.ensure()
            return
        self.stale_from = asked + STALE_SECONDS
        unsaved, self._unsaved = self._unsaved, {}
        for attempt in unsaved.values():
            attempt.ending.hand_back(0, forget=[], retry_count=None)
        await self.news.deliver(survey.to_cancel)
        if survey.next_wake is not None:
            self._arm_due(survey.next_wake)
        if survey.triggered:
            self.triggers.look()
        if survey.claimable or self._scan_again:
            self._scan_again = True
            self.on_queue()

    def on_bell(self) -> None:
        """Another process rang for this worker: look what it brought."""
        if not self._closing:
            self.spawn(self._look())

    async def _look(self) -> None:
        self._scan_again = True
        self.triggers.look()
        await self.news.look()
        self.on_queue()

    def look_if_foreign(self) -> None:
        """Look around if another process may have committed something."""
        if self.backend.foreign_commits():
            self.spawn(self._look())

    def attempts(self) -> list[Attempt]:
        """Return the attempts of this worker, running and parked."""
        return list(self._attempts.values())
