"""Whether live executions could go on with the code in hand: journals, replayed and no further.

No body runs, nothing is written and no time passes: what the code asks for beyond its journal is
where the replay ends.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from polos.core import failure
from polos.core.clock import Clock
from polos.core.codec import Codec
from polos.core.content import Content
from polos.core.keyed import Keyed, KeyedState
from polos.core.model import Change, Execution, InboxItem, Row, Start, StateEntry, Survey, Work
from polos.core.suspension import Accepted, Answer
from polos.core.triggers import Firing, Trigger, Triggered
from polos.core.upkeep import Offer
from polos.errors import (
    BlobNotFoundError,
    ExecutionNotFoundError,
    InvalidPayloadError,
    NonDeterminismError,
)
from polos.testing.clock import ManualClock
from polos.worker import tasks
from polos.worker.asks import Ask
from polos.worker.attempt import Attempt
from polos.worker.runner import Runner
from polos.workflow.backend import Listener
from polos.workflow.registry import Registry
from polos.workflow.runnable import Workflow

LIMIT_SECONDS = 20.0
"""Real time that the replay of one execution may take: code may hang outside of its steps."""
QUIET_SECONDS = 2.0
"""Virtual time without anything new after which concurrent code is taken to wait for its steps."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the code in hand would make of an execution.

    `step_key` is the step where it leaves the journal, `reason` says how; None where it does not.
    """

    verdict: Literal["ok", "diverges", "unregistered"]
    step_key: str | None = None
    reason: str | None = None


class Checker:
    """Replays executions in memory, one by one: `async with Checker(registry) as checker`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._clock = ManualClock()
        self._backend = _Nowhere(self._clock)
        self._runner: Runner

    async def __aenter__(self) -> Self:
        self._runner = Runner(self._backend, self._registry, Codec(), strict=True)
        tasks.install(self._runner.loop)
        self._clock.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._clock.stop()
        await self._runner.close()

    async def check(self, execution: Execution, work: Work) -> Verdict:
        """Replay an execution that has not ended on the journal and states of `work`."""
        workflow = self._registry.get(execution.workflow_id)
        if workflow is None:
            return Verdict("unregistered", None, "no module registers its workflow")
        # Its time may run out and its cancellation may come: neither has to do with the code.
        still = dataclasses.replace(execution, run_timeout_seconds=None)
        if still.cancel_delivered_at is None:
            still.cancel_requested_at = None
        attempt = _Examined(self._runner, workflow, Work(still, work.rows, work.states, []))
        attempt.begin()
        attempt.watch()
        assert attempt.root is not None
        await asyncio.wait(
            {attempt.root, attempt.stopped},
            timeout=LIMIT_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        verdict = attempt.verdict(self._backend.blocked.pop(execution.id, None))
        attempt.stop()
        attempt.seal()
        await asyncio.wait({attempt.root}, timeout=LIMIT_SECONDS)
        return verdict


class _Examined(Attempt):
    """An attempt that ends where its journal does."""

    __slots__ = ("_beyond", "_last", "_missing", "found", "stopped")

    def __init__(self, runner: Runner, workflow: Workflow[Any], work: Work) -> None:
        super().__init__(runner, workflow, work)
        self.found: NonDeterminismError | None = None
        self.stopped: asyncio.Future[None] = runner.loop.create_future()
        self._beyond: set[Ask] = set()
        self._missing: Ask | None = None
        """What sequential code asked for, and the journal does not have."""
        self._last = (-1, -1)

    # -- where the journal ends ---------------------------------------------------------------

    def is_held(self, moment: float) -> bool:
        return True

    async def recorded(self, ask: Ask) -> bool:
        if ask.row is None or ask.row.turn is None:
            await self.go_live(ask)
        return await super().recorded(ask)

    async def go_live(self, ask: Ask) -> None:
        replay = self.pump.replay
        if replay is not None and replay.active and not replay.live(ask):
            await self.pause(ask)
        self._beyond.add(ask)
        if ask.alone:
            self._missing = ask if ask.row is None else None
            self.stop()
        await self.pause(ask)

    def close(self, ask: Ask) -> None:
        super().close(ask)
        self._beyond.discard(ask)

    def tick(self, moment: float, body_seconds: float, state_seconds: float) -> None:
        """Nobody reads what is written here."""

    def watch(self) -> None:
        """Stop as soon as everything that the code waits for is beyond its journal."""
        if self.stopped.done() or self.ended:
            return
        here = (self.handed, self.open_asks)
        waits = bool(self._beyond) and len(self._beyond) == self.open_asks
        if waits and here == self._last and self.pump.idle and not self.pump.replaying:
            self.stop()
            return
        self._last = here
        self.clock.call_later(QUIET_SECONDS, self.watch)

    def stop(self) -> None:
        """There is no more to see."""
        if not self.stopped.done():
            self.stopped.set_result(None)

    # -- what does not fit --------------------------------------------------------------------

    def ask(self, kind: str, key: str, call: str | None = None) -> Ask:
        try:
            return super().ask(kind, key, call)
        except NonDeterminismError as error:
            self.found = self.found or error  # the code may catch it
            raise

    def fail(self, error: BaseException) -> None:
        if isinstance(error, NonDeterminismError):
            self.found = self.found or error
        super().fail(error)

    def verdict(self, blocked: str | None) -> Verdict:
        """Say what was found; `blocked` is why the execution could not even begin."""
        if blocked is not None:
            return Verdict("diverges", None, blocked)
        if self.found is not None:
            return Verdict("diverges", self.found.step_key, self.found.reason)
        error = failure.load(self.execution.error) if self.execution.error is not None else None
        if error is not None and error.type == InvalidPayloadError.__name__:
            return Verdict("diverges", None, error.message)
        row = self._first_unasked()
        if row is not None:
            return self._departed(row, None if error is None else error.message)
        return Verdict("ok", None, None if error is None else f"it would fail: {error.message}")

    def _first_unasked(self) -> Row | None:
        replay = self.pump.replay
        return None if replay is None else next(replay.unasked(), None)

    def _departed(self, row: Row, error: str | None) -> Verdict:
        replay = self.pump.replay
        assert replay is not None
        missing = self._missing
        if missing is not None and replay.is_ahead(row):
            reason = f"the code asks for it where the journal goes on with step {row.key!r}"
            return Verdict("diverges", missing.key, reason)
        if error is not None:
            reason = f"the code fails without asking for it: {error}"
        elif self.ended:
            reason = "the code returns without asking for it"
        elif self.stopped.done():
            reason = "the code does not ask for it"
        else:
            reason = f"the code did not come to it in {LIMIT_SECONDS:g} seconds"
        return Verdict("diverges", row.key, reason)


class _NoTopics:
    """Topics that nobody follows (`polos.workflow.backend.Topics`)."""

    watched: frozenset[str] = frozenset()

    def derive_soon(self, root_id: str) -> None:
        """Nobody reads it."""

    def await_topic(self, topic: str) -> None:
        """Nothing comes."""


class _NoWatching:
    """Recorded states that nobody watches (`polos.workflow.backend.Watching`)."""

    active = False

    def committed(self, change: Change) -> None:
        """Nobody looks."""


class _Nowhere:
    """A backend that takes everything and keeps nothing (`polos.workflow.backend.Backend`)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.worker_id: str | None = None
        self.survey_seconds = 1.0
        self.blocked: dict[str, str] = {}
        self.topics = _NoTopics()
        self.watching = _NoWatching()

    async def keep_blobs(self, contents: Sequence[Content], *, all: bool = False) -> None:
        return

    async def read_blob(self, hash: str) -> AsyncIterator[bytes]:
        raise BlobNotFoundError(hash)
        yield b""

    def submit(self, command: Change | Start) -> None:
        if isinstance(command, Change):
            command.seal()
            asyncio.get_running_loop().call_soon(command.done, None)

    async_transactions = False

    def transact(self, command: Change) -> None:
        """Do nothing: what would run is not run."""

    def commit_now(self, command: Change | Start) -> bool:
        return False

    async def declare(self, places: Sequence[tuple[str, str]]) -> None:
        """See `Backend.declare`; nothing is kept."""

    async def register(self, offer: Offer, listener: Listener) -> str:
        return ""

    async def unregister(self) -> None:
        return

    async def maintain(self, workflows: Sequence[str], takes_queue: bool) -> Survey | None:
        return None

    async def claimable(
        self, workflows: Sequence[str], takes_queue: bool, limit: int
    ) -> list[tuple[str, str, int]]:
        return []

    async def claim(
        self, keys: Sequence[tuple[str, str, int]], parked: dict[str, tuple[int, int]], limit: int
    ) -> list[Work]:
        return []

    async def load(self, work: Work) -> Work:
        return work

    async def is_preceded(
        self, workflow_id: str, execution_id: str, deployment_id: str | None
    ) -> bool:
        return False

    async def enter_key(
        self, execution_id: str, attempt: int, keyed: Keyed
    ) -> list[StateEntry] | None:
        return None

    async def require(self, execution_id: str) -> Execution:
        raise ExecutionNotFoundError(execution_id)

    async def listing(self, filters: dict[str, Any], limit: int) -> list[Execution]:
        return []

    async def latest_states(self, execution: Execution) -> list[StateEntry]:
        return []

    async def keyed_state(self, workflow_id: str, key: str) -> KeyedState | None:
        return None

    async def block(self, execution_id: str, attempt: int, reason: str) -> None:
        self.blocked[execution_id] = reason

    async def inboxes(self, keys: Sequence[tuple[str, str]]) -> list[InboxItem]:
        return []

    async def resume(self, answer: Answer) -> Accepted:
        return Accepted(answer.execution_id, answer.execution_id, answer.key, answer.at, True)

    async def expire(self, root_id: str, execution_id: str, seq: int) -> bool:
        return False

    async def to_cancel(self) -> list[str]:
        return []

    async def next_wake(self, workflows: Sequence[str]) -> int | None:
        return None

    async def cancel_children(self, root_id: str, execution_id: str) -> None:
        return

    async def journal(self, root_id: str, execution_id: str) -> list[Row]:
        return []

    async def register_triggers(self, triggers: Sequence[Trigger]) -> None:
        return

    async def triggered(self, workflow_id: str, topic: str, limit: int) -> Triggered | None:
        return None

    async def fire(self, firing: Firing) -> bool:
        return False

    def foreign_commits(self) -> bool:
        return False

    def finished(self, execution: Execution) -> None:
        return

    def failed_to_write(self, execution_id: str, error: BaseException) -> None:
        return
