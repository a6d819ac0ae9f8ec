"""The port between what an author calls (`ctx.step`) and the attempt that runs the code."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from polos.core.content import Dumped
from polos.core.model import Kind
from polos.core.retry import RetryPolicy
from polos.workflow.effects import Effect
from polos.workflow.emission import Emission
from polos.workflow.event import EventPayload
from polos.workflow.reading import StateOf
from polos.workflow.runnable import Workflow


@dataclass(slots=True, frozen=True)
class Child:
    """A child workflow to start."""

    workflow: Workflow[Any]
    payload: Any
    initial_state: Any = None
    queue_name: str | None = None
    concurrency_key: str | None = None
    run_timeout_seconds: float | None = None
    tags: Mapping[str, str] | None = None


class EventPort(Protocol):
    """What `ctx.step` needs to publish events and to wait for them."""

    async def publish(
        self, key: str, topic: str | None, event_type: str | None, dumped: Dumped
    ) -> None:
        """Publish an event with the step's own row; without a topic on that of the tree."""
        ...

    async def wait_for(
        self,
        key: str,
        topic: str,
        timeout: float | None,
        filter_: str | None,
        predicate: Callable[[EventPayload], object] | None,
    ) -> Any:
        """Wait for an event that is published after this is recorded."""
        ...


class StreamPort(Protocol):
    """What `ctx` needs to stream out."""

    def emit(self, data: Any) -> Emission:
        """Stream a chunk out, from any thread."""
        ...

    def run(
        self,
        key: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        collect: Callable[[list[Any]], Any] | None,
        policy: RetryPolicy,
        timeout: float | None,
    ) -> Coroutine[Any, Any, Any]:
        """Run a generator once over all attempts, and stream out what it yields."""
        ...


class SuspensionPort(Protocol):
    """What `ctx.step` needs to ask people and other workflows, and to answer them."""

    async def suspend(self, key: str, data: Any, timeout: float | None) -> Any:
        """Wait for an answer."""
        ...

    async def resume(self, key: str, answer: Mapping[str, Any]) -> None:
        """Answer a suspension of another execution."""
        ...


class EffectPort(Protocol):
    """What `ctx` asks for beside steps: transactions, undoing by hand, and the next run."""

    def transaction(
        self,
        key: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Coroutine[Any, Any, Any]:
        """Run a function inside the transaction that records its step."""
        ...

    def renew(self, payload: Any, state: Any, *, drop_compensations: bool) -> NoReturn:
        """Leave this run of the execution for the next one."""
        ...

    def compensate(self) -> Coroutine[Any, Any, list[str]]:
        """Undo what was done so far."""
        ...


class AttemptPort(Protocol):
    """What `ctx` needs of a running attempt."""

    state: Any
    identity: str
    """What the keys of this run are derived from."""
    handed: int
    """Rows of the journal that were handed to the code."""

    @property
    def streams(self) -> StreamPort:
        """What it streams out."""
        ...

    @property
    def events(self) -> EventPort:
        """What it publishes, and waits for on topics."""
        ...

    @property
    def effects(self) -> EffectPort:
        """Transactions, undoing by hand, and the next run."""
        ...

    @property
    def suspensions(self) -> SuspensionPort:
        """What asks people and other workflows, and answers them."""
        ...

    def workflow_named(self, workflow_id: str) -> Workflow[Any] | None:
        """Look a workflow up in the registry of this worker."""
        ...

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
        ...

    def value(self, kind: Kind, key: str) -> Coroutine[Any, Any, Any]:
        """Return a recorded uuid, time or random number."""
        ...

    def wait_until(
        self, kind: Kind, key: str, due: int | None, fault: str
    ) -> Coroutine[Any, Any, None]:
        """Wait for a moment, or record the fault."""
        ...

    def invoke(
        self, kind: Kind, key: str, children: Sequence[Child]
    ) -> Coroutine[Any, Any, list[Any]]:
        """Start children."""
        ...

    def invoke_and_wait(
        self, kind: Kind, key: str, children: Sequence[Child]
    ) -> Coroutine[Any, Any, Any]:
        """Start children and wait for their ends."""
        ...

    def read_state(self, kind: Kind, key: str, target: StateOf) -> Coroutine[Any, Any, Any]:
        """Read the state of others, once over all attempts."""
        ...

    def patched(self, patch_id: str) -> bool:
        """Say whether the code behind a patch runs in this execution."""
        ...

    def now(self) -> int:
        """Return the clock's microseconds."""
        ...

    def decode(self, value: Any, type_: str | None) -> Any:
        """Give a value that is part of a recorded one its type back."""
        ...

    def handle(self, facts: dict[str, Any]) -> Any:
        """Return the handle of a child that was started."""
        ...
