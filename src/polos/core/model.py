"""The nouns: one record per durable row, and the commands that write them.

Knows shapes only; rules are in the neighbouring modules. Moments are integer microseconds since
the epoch (`*_at`), values are JSON text with a type descriptor beside it (see `codec`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from polos.core.content import Content
from polos.core.indexed import IndexEntry
from polos.core.keyed import Keyed
from polos.core.work import Renewal, Task


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
    SUSPEND = "suspend"
    RESUME = "resume"
    WAIT_FOR_EVENT = "wait_for_event"
    PUBLISH = "publish"
    STREAM = "stream"
    TRANSACTION = "transaction"
    COMPENSATE = "compensate"
    """The undoing of a step, after the execution failed or was cancelled."""
    GET_STATE = "get_state"
    CHILDREN_STATE = "children_state"
    STATE = "state"
    """A change of state that no other row carried in time (JOURNAL 14)."""
    CANCEL = "cancel"
    """The delivery of a cancellation or of the end of the execution's time."""
    PATCH = "patch"
    """What `ctx.patched` answered, for good."""
    PATCH_STATE = "patch_state"
    """A change of state from outside, while nobody ran the execution."""


UNASKED_KINDS = frozenset({Kind.CANCEL, Kind.PATCH_STATE})
"""Rows that have a turn, but that no code asks for."""
HIDDEN_KINDS = frozenset({Kind.STATE, Kind.CANCEL, Kind.PATCH, Kind.PATCH_STATE})
"""Rows that are no steps; readers of steps do not see them."""


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
    contents: Sequence[Content] = ()
    """Blobs in `body` that may not be stored yet; written with the row, no part of it."""


@dataclass(slots=True)
class StateEntry:
    """One recorded change of state: a snapshot (`{…}`) or a delta (`[…]`) against the last."""

    version: int
    step_key: str | None
    at: int
    body: str
    jump: str | None = None
    """The delta against the mark before: the last entry with a jump, or that is a snapshot."""
    attempt: int | None = None
    """The attempt of the execution that recorded it."""
    origin: str | None = None
    """With the first entry of an attempt: JSON of its `worker_id` and `code_version`. Of a change
    from outside: JSON of `who` made it and `why`."""
    schema_version: int | None = None
    """The version of the state schema that recorded it; None is 1."""
    refs: Sequence[str] = ()
    """Blobs that the whole state refers to, where its schema has any; no part of the row."""


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
    schema_version: int | None = None
    """Of the state: see `StateEntry`."""
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
    code_version: str | None = None
    contents: Sequence[Content] = ()
    """Blobs that may not be stored yet."""
    refs: Sequence[str] = ()
    """All blobs (by hash) that it refers to."""
    original: Start | None = None
    """What this one is written in place of, encrypted or with large values apart."""
    tags: str | None = None
    """JSON object of text by text."""
    forked_from: str | None = None
    """JSON of the `execution_id` and `step_key` that it goes on from."""
    index: Sequence[IndexEntry] = ()
    """What it is found by: its tags, and fields of its first state."""
    keyed: Keyed | None = None
    is_behind: bool = False
    """Others with its key have not ended: it is queued until they have."""
    done: Callable[[str | BaseException], None] | None = None
    """Called on the loop with the id that holds (another with a known idempotency key)."""

    def first_entry(self) -> StateEntry:
        """Return the entry of the state that the execution begins with."""
        body = self.state or "{}"
        return StateEntry(0, None, self.created_at, body, schema_version=self.schema_version)


@dataclass(slots=True)
class Ending:
    """How an execution ended."""

    status: Status
    body: str | None
    type: str | None
    at: int
    parent_id: str | None = None
    """The parent that waits for this execution, and gets an inbox item."""
    contents: Sequence[Content] = ()
    """Blobs in `body` that may not be stored yet."""
    with_children: bool = False
    """It ends by a cancellation, or by its time: children that are still open are asked to end."""
    key: tuple[str, str] | None = None
    """Its workflow's id and its state key, if it has one: the next one with it may run."""


@dataclass(slots=True)
class Event:
    """A command's event: what is published on a topic; its `seq` is given by the commit."""

    topic: str
    id: str
    type: str | None
    data: str
    """JSON text."""
    at: int
    seq: int = 0
    """1, 2, … in the topic, without gaps, in the order of the commits."""
    root_id: str | None = None
    """The tree of executions that it is removed with; None: by its age."""
    execution_id: str | None = None
    shown: Any = field(default=None, repr=False, compare=False)  # decoded once, for all readers


@dataclass(slots=True, eq=False)
class Publish:
    """A command: publish events from outside of any execution; their `seq` is given by it."""

    events: Sequence[Event]
    done: Callable[[BaseException | None], None] | None = None
    """Called on the loop after the commit, with an error if there was none."""


@dataclass(slots=True)
class Published:
    """What a commit brought for those who read topics, and for executions that wait."""

    events: list[Event] = field(default_factory=list[Event])
    woken: set[str] = field(default_factory=set[str])
    """Executions that got something into their inboxes."""


@dataclass(slots=True)
class Topic:
    """A topic that has events, or had some."""

    name: str
    last: int
    """The `seq` of its latest event."""
    events: int
    """How many are kept."""
    at: int | None
    """When the latest of them was published."""


@dataclass(slots=True)
class Wait:
    """What an open journal row waits for: an answer, or an event of a topic.

    It stands beside the row so that whoever brings it finds it; it goes when the row closes.
    """

    root_id: str
    execution_id: str
    seq: int
    """The journal row's."""
    kind: str
    """`Kind.SUSPEND` or `Kind.WAIT_FOR_EVENT`."""
    key: str
    at: int
    topic: str | None = None
    filter: str | None = None
    """JSON of what an event must have; None: any event."""
    body: str | None = None
    """JSON of what a suspension tells people, its form included."""
    due_at: int | None = None


class Change:
    """A command: all that one attempt writes of its execution in one batch (JOURNAL 2).

    One is made for every step: what is rarely written is a default of the class.
    """

    at: int = 0
    new: bool = False
    """Its rows were not written before, open: nothing is there that they could close."""
    states: Sequence[StateEntry] = ()
    index: Sequence[IndexEntry] = ()
    """Declared fields of the state that changed with `states`."""
    starts: Sequence[Start] = ()
    consumed: Sequence[str] = ()
    """Inbox items that rows of this change close."""
    seen: int = 0
    """Inbox items that the attempt knows and keeps for later; another one makes it go on."""
    events: Sequence[Event] = ()
    """Published with this commit, in this order."""
    waits: Sequence[Wait] = ()
    """Opened with rows of this change."""
    answered: Sequence[int] = ()
    """Rows (by seq) whose waits are over."""
    contents: Sequence[Content] = ()
    """Blobs that may not be stored yet."""
    refs: Sequence[str] = ()
    """All blobs (by hash) that what it writes refers to."""
    original: Change | None = None
    """What this one is written in place of, encrypted or with large values apart."""
    forget: Sequence[int] = ()
    """Rows (by seq) that a retry of the execution removes."""
    status: Status | None = None
    """RUNNING, WAITING (goes to QUEUED if the inbox is not empty) or QUEUED (handed back)."""
    wake_at: int | None = None
    cancel_delivered: bool = False
    retry_count: int | None = None
    ending: Ending | None = None
    renewal: Renewal | None = None
    """With status QUEUED: the journal is cut, the next run is claimed."""
    work: Task | None = None
    """Given to `Store.transact` only."""

    def __init__(self, root_id: str, execution_id: str, attempt: int) -> None:
        self.root_id = root_id
        self.execution_id = execution_id
        self.attempt = attempt
        self.rows: list[Row] = []

    @classmethod
    def of_state(cls, owner: tuple[str, str], entry: StateEntry) -> Change:
        """Return a state that no attempt made as a change of its owner, (root, id)."""
        change = cls(*owner, 0)
        change.at, change.states = entry.at, [entry]
        return change

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
    """Something from outside for an execution.

    Of kind `child` it is the end of a child (`ref` is its id; status and body are the child's). Of
    another kind `ref` names what it is for and `body` is JSON; its status is `completed`.
    """

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
    code_version: str | None = None
    """What started it: the version or the fingerprint of its workflow's code."""
    tags: str | None = None
    forked_from: str | None = None
    generation: int = 0
    """How often it has continued as new."""
    state_key: str | None = None
    """What it shares its state by with others of its workflow (see `Keyed`)."""


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
    deployment_id: str | None = None
    versions: str | None = None
    """If it runs its own code's executions only: JSON object of code versions by workflow id."""


@dataclass(slots=True)
class WorkerSeen:
    """A worker with what it owns, for those who look from outside."""

    record: WorkerRecord
    held: bool
    """Whether its lock is held: a live record without it belongs to a dead process."""
    beat_at: int | None
    """When it last moved its counter, where that is known."""
    running: int
    queued: int
    """Executions that it owns: running, and started or claimed without a row yet."""


@dataclass(slots=True)
class Neighbour:
    """Another worker, and the signs of its life."""

    worker: WorkerRecord
    counter: int  # moves as long as the process runs
    locked: bool  # its lock is held: the process, or its session, is there


@dataclass(slots=True)
class Survey:
    """What a worker sees when it looks around."""

    stopped: bool
    """Somebody declared this worker dead."""
    neighbours: list[Neighbour]
    unregistered: bool
    """Executions wait for code that nobody has, or waited for code that is here now."""
    overdue: bool
    """Executions were to end long ago, and have not."""
    to_cancel: list[str]
    """Executions of this worker that were asked to cancel."""
    claimable: bool
    next_wake: int | None
    """When the next timer is due of an execution that this worker may claim."""
    triggered: bool = False
    """There are events that are to start executions of this worker's workflows."""
    steady: bool = True
    """False: locks may be free whose owners live, as the server has just come back."""
