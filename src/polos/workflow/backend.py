"""The port: what running code needs of the records; the engine satisfies it structurally."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol

from polos.core.clock import Clock
from polos.core.content import Content
from polos.core.keyed import Keyed, KeyedState
from polos.core.model import Change, Execution, InboxItem, Row, Start, StateEntry, Survey, Work
from polos.core.suspension import Accepted, Answer
from polos.core.triggers import Firing, Trigger, Triggered
from polos.core.upkeep import Offer


class Listener(Protocol):
    """The worker, as far as the backend rings it."""

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


class Topics(Protocol):
    """What a worker needs of the topics of workflows."""

    @property
    def watched(self) -> Collection[str]:
        """The roots whose journals somebody follows."""
        ...

    def derive_soon(self, root_id: str) -> None:
        """Something was committed in a tree that is watched."""
        ...

    def await_topic(self, topic: str) -> None:
        """An execution of this process begins to wait for a topic."""
        ...


class Watching(Protocol):
    """What a worker needs of those who watch recorded states."""

    active: bool
    """Whether anybody does."""

    def committed(self, change: Change) -> None:
        """A change of an execution is durable."""
        ...


class Backend(Protocol):
    """Verbs on records that a worker calls; all on its event loop."""

    clock: Clock
    worker_id: str | None
    survey_seconds: float
    """Between two calls of `maintain`."""

    @property
    def topics(self) -> Topics:
        """The topics of workflows."""
        ...

    @property
    def watching(self) -> Watching:
        """Those who watch recorded states."""
        ...

    def submit(self, command: Change | Start) -> None:
        """Hand over a command for the next commit; its callback comes after it."""
        ...

    def commit_now(self, command: Change | Start) -> bool:
        """Commit a lone command on the spot, or send it, if that is cheap now; False: submit it."""
        ...

    @property
    def async_transactions(self) -> bool:
        """Say whether the connection that `transact` gives to a function is asynchronous."""
        ...

    def transact(self, command: Change) -> None:
        """Hand over a change with work, which is done in its transaction before it is formed."""
        ...

    async def register(self, offer: Offer, listener: Listener) -> str:
        """Enter this process as a worker, or refresh what it can run; returns its id."""
        ...

    async def declare(self, places: Sequence[tuple[str, str]]) -> None:
        """Note the (workflow, place of its state) that this worker keeps in the index."""
        ...

    async def unregister(self) -> None:
        """Hand back what this worker owns, and leave."""
        ...

    async def maintain(self, workflows: Sequence[str], takes_queue: bool) -> Survey | None:
        """Look around and after the others; None if this worker itself was declared dead."""
        ...

    async def claimable(
        self, workflows: Sequence[str], takes_queue: bool, limit: int
    ) -> list[tuple[str, str, int]]:
        """Find what this worker may claim now: (root, id, attempt)."""
        ...

    async def claim(
        self, keys: Sequence[tuple[str, str, int]], parked: dict[str, tuple[int, int]], limit: int
    ) -> list[Work]:
        """Own those that are still free, at most `limit` beside the parked; read their work."""
        ...

    async def load(self, work: Work) -> Work:
        """Read journal and states of a claim that came without them."""
        ...

    async def is_preceded(
        self, workflow_id: str, execution_id: str, deployment_id: str | None
    ) -> bool:
        """Say whether one that was started earlier has yet to take its place among its key's."""
        ...

    async def enter_key(
        self, execution_id: str, attempt: int, keyed: Keyed
    ) -> list[StateEntry] | None:
        """Let a claimed execution that came without its state key take its place.

        Returns the states that it begins with; None if it has to wait for others.
        """
        ...

    async def require(self, execution_id: str) -> Execution:
        """Read an execution that must exist."""
        ...

    async def listing(self, filters: dict[str, Any], limit: int) -> list[Execution]:
        """Read executions by their columns, newest first."""
        ...

    async def latest_states(self, execution: Execution) -> list[StateEntry]:
        """Read what the latest state is made of."""
        ...

    async def keyed_state(self, workflow_id: str, key: str) -> KeyedState | None:
        """Read the state of a key."""
        ...

    async def block(self, execution_id: str, attempt: int, reason: str) -> None:
        """Park an execution as waiting, with a reason."""
        ...

    async def inboxes(self, keys: Sequence[tuple[str, str]]) -> list[InboxItem]:
        """Read what came from outside for running executions, by (root, id)."""
        ...

    async def resume(self, answer: Answer) -> Accepted:
        """Answer a suspension, of any execution; it is durable then."""
        ...

    async def expire(self, root_id: str, execution_id: str, seq: int) -> bool:
        """Let the time of a suspension be over, unless it has its answer; False: it is not due."""
        ...

    async def to_cancel(self) -> list[str]:
        """Find executions of this worker that were asked to cancel."""
        ...

    async def next_wake(self, workflows: Sequence[str]) -> int | None:
        """Return when the next timer of these workflows is due."""
        ...

    async def cancel_children(self, root_id: str, execution_id: str) -> None:
        """Ask for the cancellation of all descendants of an execution."""
        ...

    async def journal(self, root_id: str, execution_id: str) -> list[Row]:
        """Read a journal by seq."""
        ...

    async def keep_blobs(self, contents: Sequence[Content], *, all: bool = False) -> None:
        """Store contents that are too large to ride with a commit, or are not in memory, or all."""
        ...

    def read_blob(self, hash: str) -> AsyncIterator[bytes]:
        """Yield a blob chunk by chunk."""
        ...

    async def register_triggers(self, triggers: Sequence[Trigger]) -> None:
        """Enter triggers; one that is new begins with the next event, others keep their place."""
        ...

    async def triggered(self, workflow_id: str, topic: str, limit: int) -> Triggered | None:
        """Read the events that are to start executions of a workflow; None: no such trigger."""
        ...

    def fire(self, firing: Firing) -> Awaitable[bool]:
        """Start executions for events, exactly once; False: somebody else has."""
        ...

    def foreign_commits(self) -> bool:
        """Say whether another process may have committed since the last call."""
        ...

    def finished(self, execution: Execution) -> None:
        """Ring those who wait for this execution; its end is durable."""
        ...

    def failed_to_write(self, execution_id: str, error: BaseException) -> None:
        """Tell those who wait that the store cannot go on."""
        ...


Future = asyncio.Future
