"""One attempt: workflow code running on its journal, from the claim to its end or its seal.

It answers what the code asks (`ctx.step`), and joins the parts that do the work: `pump` hands
rows over, `writer` writes them, `waiting` parks, `ending` ends. All is fenced by its number.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from polos.core import ids
from polos.core.model import ClaimLost, Execution, Kind, Row, Work
from polos.core.retry import RetryPolicy
from polos.errors import AttemptSealed, UsageError
from polos.worker import bodies, calls, keys, reading, renewing
from polos.worker.asks import Ask
from polos.worker.effects import Effects
from polos.worker.ending import Endings
from polos.worker.event_calls import EventCalls
from polos.worker.patches import Patches
from polos.worker.pump import Pump
from polos.worker.sagas import Saga
from polos.worker.streams import Streams
from polos.worker.suspending import Suspensions
from polos.worker.tasks import counts, current_owner
from polos.worker.tracking import Tracker
from polos.worker.waiting import Waiting
from polos.worker.writer import Writer
from polos.workflow.effects import Effect
from polos.workflow.port import Child
from polos.workflow.reading import StateOf
from polos.workflow.scope import current_scope

if TYPE_CHECKING:
    from polos.worker.runner import Runner
    from polos.workflow.runnable import Workflow


class Attempt:
    """Runs one execution once; its methods are called on the event loop only.

    What `ctx` may call of it is `polos.workflow.port.AttemptPort`.
    """

    __slots__ = (
        "_asks",
        "_counted",
        "_counts",
        "_spawned",
        "_tasks",
        "backend",
        "blocked_because",
        "bodies",
        "clock",
        "codec",
        "draining",
        "ended",
        "ending",
        "execution",
        "execution_id",
        "fatal",
        "handed",
        "history_mark",
        "identity",
        "loop",
        "number",
        "parked",
        "parking",
        "patches",
        "pump",
        "root",
        "runner",
        "saga",
        "sealed",
        "streams",
        "strict",
        "tracker",
        "waiting",
        "work",
        "workflow",
        "writer",
    )

    def __init__(self, runner: Runner, workflow: Workflow[Any], work: Work) -> None:
        self.runner = runner
        self.workflow = workflow
        self.work = work
        self.execution: Execution = work.execution
        self.execution_id = work.execution.id
        self.identity = ids.identity(work.execution.id, work.execution.generation)
        """What idempotency keys, uuids and random numbers are derived from."""
        self.number = work.execution.attempt
        self.backend = runner.backend
        self.clock = runner.clock
        self.loop = runner.loop
        self.codec = runner.codec
        self.strict = runner.strict
        self.tracker: Tracker | None = None
        self.handed = 0
        """Rows handed to the code so far, by this attempt."""
        self.sealed = False
        self.draining = False
        self.parking = False
        """On its way to be parked: the commit that says so is not durable yet."""
        self.parked = False
        self.ended = False
        self.bodies: dict[Ask, float] = {}
        """Bodies that run now, with their start by the monotonic clock."""
        self.root: asyncio.Task[None] | None = None
        self.blocked_because: str | None = None
        """Why the execution is to be parked, once its bodies have ended."""
        self.saga = Saga(self)
        self.fatal: BaseException | None = None
        """What `fail` was called with."""
        self._counted = True
        """Whether the tasks of the code are counted, so that it can be told who is alone."""
        self._counts: dict[str, int] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self._spawned = 0
        self._asks: set[Ask] = set()
        self.writer = Writer(self, work)
        self.history_mark = renewing.first_mark(self)
        """At how many rows of journal there is something to say."""
        self.pump = Pump(self, work.rows)
        self.patches: Patches | None = None
        self.waiting = Waiting(self)
        self.ending = Endings(self)
        self.streams = Streams(self)

    # -- tasks --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the root task, in the context variables of the worker's start (JOURNAL 11)."""
        self._counted = counts(self.loop)
        context = self.runner.context.copy()
        context.run(current_owner.set, self)
        self.root = asyncio.Task(self.runner.main(self), loop=self.loop, context=context)

    def adopt(self, task: asyncio.Future[Any]) -> None:
        """Count a task that workflow code created."""
        self._tasks.add(task)
        self._spawned += 1
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not self.sealed or task.cancelled():
            return
        # Nobody awaits what the code left behind: the seal that it ends with is no news.
        error = task.exception()
        if error is not None and not isinstance(error, AttemptSealed):
            what = f"a task of execution {self.execution_id} failed after it was stopped"
            facts = {"message": what, "exception": error, "future": task}
            self.loop.call_exception_handler(facts)

    @property
    def alone(self) -> bool:
        """Say whether the root task is the only one of this execution."""
        return not self._tasks

    @property
    def open_asks(self) -> int:
        """How many calls of `ctx.step` have no answer yet."""
        return len(self._asks)

    @property
    def busy(self) -> bool:
        """Say whether a body runs, or a change is on its way to the store."""
        return bool(self.bodies or self.writer.in_flight)

    # -- asking -------------------------------------------------------------------------------

    def ask(self, kind: str, key: str, call: str | None = None) -> Ask:
        """Register one call of `ctx.step`; its `row` is what the journal has for it, if any."""
        self.check_sealed()
        if self.fatal is not None and kind != Kind.COMPENSATE:
            raise self.fatal
        scope = current_scope.get()
        if scope is not None and scope.owner is self:
            raise UsageError(
                f"ctx.step was used inside the body of step {scope.key!r}; a body is one unit "
                "that is recorded as a whole: call it from the workflow function instead"
            )
        count = self._counts.get(key, 0) + 1
        if count == 1 and kind != Kind.COMPENSATE:
            keys.check(key)
        self._counts[key] = count
        numbered = key if count == 1 else f"{key}#{count}"
        alone = self._counted and not self._tasks and not self._asks
        self.pump.interrupts = False
        if alone:
            self.pump.flush_at_ask()
        ask = Ask(kind, numbered, call, self.handed, self._spawned, alone=alone)
        replay = self.pump.replay
        if replay is not None:
            row = replay.find(numbered)
            if row is not None:
                repeated = count > 1 or replay.find(f"{key}#2") is not None
                keys.compare(self.execution_id, ask, row, repeated=repeated)
                ask.row = row
            replay.asked(ask)
        if self.writer.seq >= self.history_mark and ask.row is None:
            renewing.check(self, ask)
        self._asks.add(ask)
        return ask

    def close(self, ask: Ask) -> None:
        """The call is over, with or without an answer."""
        ask.is_over = True
        self._asks.discard(ask)
        self.waiting.discard(ask)
        if ask.timer is not None:
            ask.timer.cancel()

    def is_pinned(self, ask: Ask) -> bool:
        """Say whether nothing else of the execution was alive since the ask (JOURNAL 15)."""
        return ask.alone and ask.spawned == self._spawned and not self._tasks

    async def recorded(self, ask: Ask) -> bool:
        """If the journal has an answer, wait until it is handed over; False: it has none."""
        row, replay = ask.row, self.pump.replay
        if row is None or row.turn is None or replay is None:
            return False
        if not replay.take(ask):
            await self.settled(ask)
        return True

    async def settled(self, ask: Ask) -> None:
        """Wait until the answer is handed over."""
        if not ask.settled:
            await self.pause(ask)

    async def pause(self, ask: Ask) -> None:
        """Wait for an ask to be answered or released; sealing ends it."""
        ask.future = self.loop.create_future()
        try:
            await ask.future
        except asyncio.CancelledError as error:
            self.check_unwinding(error)
            raise

    def check_unwinding(self, error: BaseException) -> None:
        """Raise AttemptSealed in place of an error, if the seal is what the code ends with.

        What an ended attempt leaves behind is only cancelled: nobody has to hear of a seal.
        """
        if not (self.ended and isinstance(error, asyncio.CancelledError)):
            self.check_sealed()

    def check_sealed(self) -> None:
        """Raise AttemptSealed if this attempt may write nothing more."""
        if self.sealed:
            raise self._sealed() from None

    def _sealed(self) -> AttemptSealed:
        if self.ended:
            return AttemptSealed(
                f"this attempt of execution {self.execution_id} has ended: its ctx can record "
                "nothing more; await what uses it before the workflow function returns"
            )
        return AttemptSealed(
            f"this attempt of execution {self.execution_id} was sealed: its claim was lost, handed "
            "back or evicted; let this exception pass, the execution goes on elsewhere from its "
            "last commit"
        )

    def is_held(self, moment: float) -> bool:
        """Say whether something keeps a new step from running at once; `moment`: monotonic."""
        replay = self.pump.replay
        return (
            (replay is not None and replay.active)
            or self.parked
            or self.parking
            or self.draining
            or self.pump.interrupts
            or moment > self.runner.stale_from
            or self.writer.has_riders()
        )

    async def go_live(self, ask: Ask) -> None:
        """Return when a new step may run: replay over, claim held, riders safe, not cancelled."""
        replay = self.pump.replay
        if self.pump.interrupts or (replay and replay.active and not replay.live(ask)):
            self.pump.interrupts = False
            await self.pause(ask)
        if self.parked or self.parking:
            await self.waiting.own()
        if self.writer.has_riders():
            await self.writer.flush()
        if self.draining:
            await self.loop.create_future()  # the seal ends it; nothing new starts
        while self.clock.monotonic() > self.runner.stale_from:
            # Not in this task: what it finds may seal this attempt, and must be seen through.
            await asyncio.shield(self.runner.spawn(self.runner.verify()))
            self.check_sealed()

    def look(self, ask: Ask, moment: float | None = None) -> None:
        """Restore or check the state at an ask of something new (JOURNAL 14, 15, 17)."""
        # Nothing of the state keeps steps from being undone.
        if self.tracker is not None and ask.kind != Kind.COMPENSATE:
            if self.pump.replay is not None:
                self.pump.replay.pin_flushed(ask)
            self.tracker.seen(ask.key, self.clock.monotonic() if moment is None else moment)
            if self.runner.prove_state:
                self.tracker.prove()

    def deaths(self) -> int:
        """Return how many attempts in a row died before this one without recording anything."""
        return 0 if self.writer.has_recorded else self.execution.crashes

    # -- handing over -------------------------------------------------------------------------

    def hand_over(self, ask: Ask | None, row: Row, *, replayed: bool) -> None:
        """Give a row to the code: its change, its recorded state, its answer."""
        self.handed += 1
        if self.tracker is not None:
            self.tracker.take(row, replayed=replayed)
        if row.kind == Kind.CANCEL:
            self.ending.deliver(row)
        elif ask is not None:
            ask.settle(row)

    def pin(self, row: Row) -> None:
        """Set the state to what a row of kind `state` recorded."""
        if self.tracker is not None:
            self.tracker.pin(row.state_version)

    def replayed(self) -> None:
        """The journal is replayed: live from here."""
        self.ending.deliver_due()  # first: the end of a child may be a consequence of it
        self.waiting.take(self.work.inbox)

    def resume(self, work: Work) -> None:
        """Go on in place: the claim found the journal where this coroutine stands."""
        self.parked = False
        self.work = work
        self.execution = work.execution
        self.number = work.execution.attempt
        if self.patches is not None:
            self.patches.write()
        self.waiting.resume(work)

    def tick(self, moment: float, body_seconds: float, state_seconds: float) -> None:
        """Write what readers should see by now."""
        idle = self.sealed or self.parked or self.parking or self.ended
        if not (idle or self.pump.replaying):
            self.writer.tick(moment, body_seconds, state_seconds)

    # -- unwinding ----------------------------------------------------------------------------

    def refused(self, error: BaseException) -> None:
        """The store did not take a change: this attempt is over, the execution is not."""
        self.parking = False
        if self.ended:
            self.runner.forget(self)
        else:
            self.seal()
        if not isinstance(error, ClaimLost):
            self.runner.store_failed(self, error)

    def fail(self, error: BaseException) -> None:
        """Fail the execution from outside its code, as strict replay does."""
        self.fatal = error
        for ask in list(self._asks):
            ask.refuse(error)

    def seal(self) -> None:
        """Nothing may be written any more: unwind the code quietly (JOURNAL 9)."""
        if not self.sealed:
            self.unwind()
            self.runner.forget(self)

    def unwind(self) -> None:
        """Seal, and make every task of the code leave."""
        self.sealed = True
        self.ending.stop_timers()
        self.streams.release()
        error = self._sealed()
        self.waiting.refuse(error)
        pausing = [a for a in self._asks if a.future is not None and not a.future.done()]
        for ask in self._asks:
            if ask.timer is not None:
                ask.timer.cancel()
            ask.refuse(error)
        if not (pausing and self.alone):
            for task in [*self._tasks, self.root]:
                if task is not None:
                    task.cancel()

    async def dismiss(self) -> None:
        """Cancel the tasks that the code left behind, and let them clean up."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self.runner.cancel_seconds)

    def stop_tasks(self) -> None:
        """The root returned: tasks that it left behind are cancelled, and can ask no more."""
        self.sealed = True
        for task in list(self._tasks):
            task.cancel()

    # -- what `ctx` calls ---------------------------------------------------------------------

    @property
    def state(self) -> Any:
        """The live state."""
        return None if self.tracker is None else self.tracker.model

    @state.setter
    def state(self, value: Any) -> None:
        if self.tracker is None:
            raise UsageError(
                f"workflow {self.workflow.id!r} has no state; declare it with "
                "@workflow(state_schema=...)"
            )
        self.tracker.replace(value)

    def workflow_named(self, workflow_id: str) -> Workflow[Any] | None:
        """Look a workflow up in the registry of this worker."""
        return self.runner.registry.get(workflow_id)

    def run(
        self,
        key: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        policy: RetryPolicy,
        timeout: float | None,
        effect: Effect | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Run a body once over all attempts."""
        return bodies.run(self, key, function, args, kwargs, policy, timeout, effect=effect)

    @property
    def effects(self) -> Effects:
        """Transactions, undoing by hand, and the next run."""
        return Effects(self)

    def value(self, kind: Kind, key: str) -> Coroutine[Any, Any, Any]:
        """Return a recorded uuid, time or random number."""
        return calls.value(self, kind, key)

    def wait_until(
        self, kind: Kind, key: str, due: int | None, fault: str
    ) -> Coroutine[Any, Any, None]:
        """Wait for a moment, or record the fault."""
        return calls.wait_until(self, kind, key, due, fault)

    def invoke(
        self, kind: Kind, key: str, children: Sequence[Child]
    ) -> Coroutine[Any, Any, list[Any]]:
        """Start children."""
        return calls.invoke(self, kind, key, children)

    def invoke_and_wait(
        self, kind: Kind, key: str, children: Sequence[Child]
    ) -> Coroutine[Any, Any, Any]:
        """Start children and wait for their ends."""
        return calls.invoke_and_wait(self, kind, key, children)

    @property
    def events(self) -> EventCalls:
        """What it publishes, and waits for on topics."""
        return EventCalls(self)

    @property
    def suspensions(self) -> Suspensions:
        """What asks people and other workflows, and answers them."""
        return Suspensions(self)

    def read_state(self, kind: Kind, key: str, target: StateOf) -> Coroutine[Any, Any, Any]:
        """Read the state of others, once over all attempts."""
        return reading.read_state(self, kind, key, target)

    def patched(self, patch_id: str) -> bool:
        """Say whether the code behind a patch runs in this execution."""
        self.check_sealed()
        if self.fatal is not None:
            raise self.fatal
        if self.patches is None:
            self.patches = Patches(self)
        return self.patches.answer(patch_id)

    def now(self) -> int:
        """Return the clock's microseconds."""
        return self.clock.now()

    def decode(self, value: Any, type_: str | None) -> Any:
        """Give a value that is part of a recorded one its type back."""
        return value if type_ is None else self.codec.decode(json.dumps(value), type_)

    def handle(self, facts: dict[str, Any]) -> Any:
        """Return the handle of a child that was started."""
        return self.runner.handle(facts)
