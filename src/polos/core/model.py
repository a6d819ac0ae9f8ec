"""The nouns: one record per durable row, and the commands that write them.

Knows shapes only; rules are in the neighbouring modules. Moments are integer microseconds since
the epoch (`*_at`), values are JSON text with a type descriptor beside it (see `codec`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Where an execution stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class Kind(StrEnum):
    """What a journal row records."""

    RUN = "run"
    UUID = "uuid"
    NOW = "now"
    RANDOM = "random"
    WAIT_FOR = "wait_for"
    WAIT_UNTIL = "wait_until"
    INVOKE = "invoke"
    INVOKE_AND_WAIT = "invoke_and_wait"
    BATCH_INVOKE = "batch_invoke"
    BATCH_INVOKE_AND_WAIT = "batch_invoke_and_wait"
    STATE = "state"
    """A change of state that no other row carried in time (JOURNAL 14)."""
    CANCEL = "cancel"
    """The delivery of a cancellation or of the end of the execution's time."""


HIDDEN_KINDS = frozenset({Kind.STATE, Kind.CANCEL})
"""Rows that no code asked for; readers of steps do not see them."""


@dataclass(slots=True)
class Row:
    """One row of an execution's journal.

    `turn` counts hand-overs to the code (None: still open); `asked` is the number of rows handed
    over when it was asked for; `ok` is True for a value, False for a failure, None while open.
    `body` is the value or failure as JSON. `info` holds what an open row waits for (child ids).
    """

    seq: int
    kind: str
    key: str | None
    asked: int
    call: str | None = None
    turn: int | None = None
    ok: bool | None = None
    body: str | None = None
    type: str | None = None
    pinned: bool = False
    change: str | None = None
    state_version: int = 0
    due_at: int | None = None
    info: str | None = None
    attempts: int = 1
    started_at: int = 0
    completed_at: int | None = None


@dataclass(slots=True)
class StateEntry:
    """One recorded change of state: a snapshot (`{…}`) or a delta (`[…]`) against the last."""

    version: int
    step_key: str | None
    at: int
    body: str


@dataclass(slots=True)
class Failure:
    """An error as data; `type` is the class that is raised again, `cause` the one behind it."""

    type: str
    message: str
    cause: str | None = None
    step_key: str | None = None
    details: dict[str, object] = field(default_factory=dict[str, object])


@dataclass(slots=True, eq=False)
class Start:
    """A command: create an execution, with state entry 0 if it has state.

    With `worker_id` and `attempt` 1 it is owned from the start by the process that starts it;
    with attempt 0 it is queued, for that worker first or, without one, for anyone.
    """

    id: str
    root_id: str
    workflow_id: str
    root_workflow_id: str
    payload: str | None
    payload_type: str | None
    created_at: int
    worker_id: str | None = None
    attempt: int = 0
    state: str | None = None
    loaded: Any = None
    """The same as it was read back when it was checked, for the attempt that begins with it."""
    parent_id: str | None = None
    parent_key: str | None = None
    awaited: bool = False
    session_id: str | None = None
    user_id: str | None = None
    deployment_id: str | None = None
    queue_name: str | None = None
    concurrency_key: str | None = None
    batch_id: str | None = None
    idempotency_key: str | None = None
    run_timeout_seconds: float | None = None
    done: Callable[[str | BaseException], None] | None = None
    """Called on the loop with the id that holds (another with a known idempotency key)."""


@dataclass(slots=True)
class Ending:
    """How an execution ended."""

    status: Status
    body: str | None
    type: str | None
    at: int
    parent_id: str | None = None
    """The parent that waits for this execution, and gets an inbox item."""


class Change:
    """A command: all that one attempt writes of its execution in one batch (JOURNAL 2).

    One is made for every step: what is rarely written is a default of the class.
    """

    at: int = 0
    states: Sequence[StateEntry] = ()
    starts: Sequence[Start] = ()
    consumed: Sequence[str] = ()
    """Inbox items that rows of this change close."""
    seen: int = 0
    """Inbox items that the attempt knows and keeps for later; another one makes it go on."""
    forget: Sequence[int] = ()
    """Rows (by seq) that a retry of the execution removes."""
    status: Status | None = None
    """RUNNING, WAITING (goes to QUEUED if the inbox is not empty) or QUEUED (handed back)."""
    wake_at: int | None = None
    cancel_delivered: bool = False
    retry_count: int | None = None
    ending: Ending | None = None

    def __init__(self, root_id: str, execution_id: str, attempt: int) -> None:
        self.root_id = root_id
        self.execution_id = execution_id
        self.attempt = attempt
        self.rows: list[Row] = []

    def seal(self) -> None:
        """Called on the loop when its batch is formed: nothing is added after it."""

    def done(self, result: BaseException | str | None) -> None:
        """Called on the loop after the commit.

        `result` is `ClaimLost` if the fence refused it, another error if the store did, the status
        that holds if WAITING was asked for, else None.
        """


class ClaimLost(Exception):
    """The fence refused a change: a newer attempt owns the execution."""


@dataclass(slots=True)
class InboxItem:
    """Something from outside for an execution: here the end of a child (`ref` is its id)."""

    id: str
    execution_id: str
    kind: str
    ref: str
    status: Status
    body: str | None
    type: str | None


@dataclass(slots=True)
class Execution:
    """An execution as stored."""

    id: str
    root_id: str
    workflow_id: str
    root_workflow_id: str
    status: Status
    attempt: int
    worker_id: str | None
    wake_at: int | None
    payload: str | None
    payload_type: str | None
    result: str | None
    result_type: str | None
    error: str | None
    blocked_reason: str | None
    parent_id: str | None
    parent_key: str | None
    awaited: bool
    session_id: str | None
    user_id: str | None
    deployment_id: str | None
    queue_name: str | None
    concurrency_key: str | None
    batch_id: str | None
    idempotency_key: str | None
    run_timeout_seconds: float | None
    retry_count: int
    crashes: int
    created_at: int
    started_at: int | None
    completed_at: int | None
    cancel_requested_at: int | None
    cancel_delivered_at: int | None


@dataclass(slots=True, eq=False)
class Work:
    """What a claim hands to a worker: the execution, its journal, states and inbox."""

    execution: Execution
    rows: list[Row]
    states: list[StateEntry]
    inbox: list[InboxItem]
    resumed_from: int | None = None
    """Set when only the inbox was read: the attempt and journal position that the claim found
    were those of the worker's parked coroutine, which goes on in place."""
    loaded: Any = None
    """Of an execution that begins: see `Start.loaded`."""


@dataclass(slots=True)
class WorkerRecord:
    """A worker process, as the others see it."""

    id: str
    host: str
    pid: int
    started_at: int
    stopped_at: int | None
    takes_queue: bool
    workflows: str
    """JSON list of the workflow ids it can run."""
