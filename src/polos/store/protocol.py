"""The store as the engine sees it: commands in, records out; SQLite and PostgreSQL satisfy it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from polos.core.amending import Amendment
from polos.core.keyed import Keyed, KeyedState
from polos.core.model import (
    Change,
    Event,
    Execution,
    InboxItem,
    Published,
    Row,
    Start,
    StateEntry,
    Survey,
    Topic,
    Work,
    WorkerRecord,
    WorkerSeen,
)
from polos.core.rewind import Rewound
from polos.core.suspension import Accepted, Answer, Suspension
from polos.core.triggers import Firing, Trigger, Triggered
from polos.core.upkeep import Pruned, StoreStats
from polos.core.watching import Head
from polos.core.where import Query, Tally
from polos.store.commands import Command
from polos.store.depot import Depot
from polos.store.lining import Lining

HEAD_START_US = 1_000_000
"""How long the preferred worker may take before another fetches a queued execution."""
CRASHES_MAX = 10
"""So many attempts in a row may die without a new row in the journal (JOURNAL 10)."""
VERSION_MAX = 2**62
"""Behind every version of a state."""
EVENTS_AGE_ROWS_MAX = 2_000
"""Events of ordinary topics that one transaction removes for their age."""
TOPICS_MAX = 200
"""Topics that it looks at for that."""
PRUNE_ROWS_MAX = 2_000
"""Rows that one transaction removes, more or less: nobody waits for it for long."""


class Liveness(Protocol):
    """Proof that a worker lives: a lock that dies with its process, and a counter that moves."""

    async def hold(self, worker_id: str) -> None:
        """Take the lock of a new worker of this process."""
        ...

    async def beat(self) -> None:
        """Move the counter on."""
        ...

    async def look(self, worker_id: str) -> int | None:
        """Return another worker's counter, or None if its lock is free: it is dead."""
        ...

    async def drop(self) -> None:
        """Give the lock up."""
        ...

    def die(self) -> None:
        """Lose the lock as the death of the process would."""
        ...


class Store(Depot, Protocol):
    """Keeps executions, journals, state and inboxes; every write is fenced and durable.

    All methods are called on one event loop; callbacks of commands come back on it.
    """

    read_only: bool
    lining: Lining
    """What it makes of the values of commands before it writes them."""

    @property
    def liveness(self) -> Liveness:
        """The lock and the counter of this process."""
        ...

    survey_seconds: float
    """Between two looks around."""
    death_seconds: float
    """So long a counter must have stood still before its free lock is a death."""
    poll_seconds: float
    """Between two looks for the results of executions that run elsewhere."""
    sees_others: bool
    """Whether `foreign_count` tells of every commit of another process."""
    on_bell: Callable[[set[str]], None]
    """Called on the loop with what other processes rang for: `queue`, `ended`, `worker:ID`,
    `topic:CRC`, `reads:ROOT`, `all`. Bells may be lost; polling finds the rest."""

    on_published: Callable[[Published], None]
    """Called on the loop after each commit of this process that published or woke anything."""

    async def open(self) -> None:
        """Connect and migrate; StoreError if the database cannot be used."""
        ...

    async def close(self) -> None:
        """Write what was submitted, then close."""
        ...

    def submit(self, command: Command) -> None:
        """Hand over a command for the next batch."""
        ...

    def commit_now(self, command: Command) -> bool:
        """Commit a lone command on the spot, or send it, if that is cheap now; False: submit it."""
        ...

    async_transactions: bool
    """Whether the function of a change's work gets an asynchronous connection."""

    def ring(self, bells: set[str]) -> None:
        """Ring for other processes, where they can hear it (see `on_bell`)."""
        ...

    def transact(self, command: Change) -> None:
        """Fence a change, do its work in the same transaction, then write it.

        Its work is called back on the loop to form it. What else the process writes waits meanwhile
        on SQLite, and goes on beside it on PostgreSQL.
        """
        ...

    def foreign_commits(self) -> bool:
        """Say whether another process may have committed since the last call."""
        ...

    def foreign_count(self) -> int:
        """Count how often another process was seen to have committed."""
        ...

    async def claimable(
        self, worker_id: str, workflows: Sequence[str], takes_queue: bool, now: int, limit: int
    ) -> list[tuple[str, str, int]]:
        """Find executions that the worker may claim: (root, id, attempt), oldest first."""
        ...

    async def claim(
        self,
        worker_id: str,
        keys: Sequence[tuple[str, str, int]],
        parked: dict[str, tuple[int, int]],
        now: int,
        limit: int | None = None,
    ) -> list[Work]:
        """Own those that are still free, at most `limit` beside the parked; read their work."""
        ...

    async def cancel(self, execution_id: str, now: int) -> dict[str, str]:
        """Ask for the cancellation of an execution and its descendants: {id: what happened}."""
        ...

    async def force_cancel(self, deadline: int, now: int) -> list[str]:
        """End what was asked to cancel before `deadline` and did not; returns the ids."""
        ...

    async def block(self, execution_id: str, attempt: int, reason: str) -> bool:
        """Park an execution as waiting, with a reason."""
        ...

    async def amend(self, execution_id: str, amendment: Amendment) -> str | None:
        """Change the state of an execution that nobody runs; `ConflictError` if that cannot be.

        One that is parked because its state could not be loaded is released. Returns the worker
        that has its coroutine, which is worthless now.
        """
        ...

    async def is_preceded(
        self, workflow_id: str, execution_id: str, deployment_id: str | None
    ) -> bool:
        """Say whether one that was started earlier has yet to take its place among its key's.

        It is of the same workflow and deployment, and was started without its state key too: which
        that is nobody knows, until it is claimed.
        """
        ...

    async def enter_key(
        self, execution_id: str, attempt: int, keyed: Keyed
    ) -> list[StateEntry] | None:
        """Let a claimed execution that was started without its state key take its place.

        Returns the states that it begins with; None if it has to wait for others, or is not
        `attempt`'s any more.
        """
        ...

    async def keyed_state(self, workflow_id: str, key: str) -> KeyedState | None:
        """Read the state of a key; None if it has none."""
        ...

    async def write_keyed_state(
        self, workflow_id: str, key: str, entry: StateEntry | None, if_version: int | None
    ) -> KeyedState | None:
        """Set the state of a key, or remove it (None); returns what was there before.

        `ConflictError` while an execution holds the key, or if the version is another one.
        """
        ...

    async def state_keys(self, workflow_id: str, prefix: str, after: str, limit: int) -> list[str]:
        """Read keys that have state, in the order of their bytes."""
        ...

    async def retry(self, execution_id: str, now: int) -> None:
        """Queue a failed execution from its failed step, or release a blocked one."""
        ...

    async def resume(self, answer: Answer) -> Accepted:
        """Answer a suspension, or keep the answer until the code suspends; it is durable then.

        Raises what `core.suspension` refuses it with, and `ExecutionNotFoundError`.
        """
        ...

    async def expire(self, root_id: str, execution_id: str, seq: int, now: int) -> bool:
        """Let the time of a suspension be over, unless it has its answer; False: it is not due."""
        ...

    async def register_worker(self, worker: WorkerRecord) -> None:
        """Write or refresh a worker's row."""
        ...

    async def stop_worker(
        self, worker_id: str, now: int, *, crashed: bool, again: bool = False
    ) -> int:
        """Mark a worker as gone and hand back what it owned; `again` if it was marked before."""
        ...

    def stop_worker_now(self, worker_id: str, now: int) -> None:
        """The same at the end of the process, when no event loop runs any more."""
        ...

    async def sort_out(self, before: int) -> None:
        """Block what is due since `before` and no live worker may run; release what one may."""
        ...

    async def survey(
        self,
        worker_id: str,
        workflows: Sequence[str],
        *,
        takes_queue: bool,
        now: int,
        queued_before: int,
        asked_before: int,
    ) -> Survey:
        """Beat, and see what there is to do, at once.

        Asks for executions queued before one moment that nobody can run, and for those that were
        asked to end before the other.
        """
        ...

    async def live_workers(self) -> list[WorkerRecord]:
        """Read the workers that have not stopped."""
        ...

    async def worker_stopped(self, worker_id: str) -> bool:
        """Say whether somebody declared this worker dead."""
        ...

    async def next_wake(self, worker_id: str, workflows: Sequence[str]) -> int | None:
        """Return when the next timer of these workflows is due that the worker may run."""
        ...

    async def to_cancel(self, worker_id: str) -> list[str]:
        """Find executions of this worker that were asked to cancel."""
        ...

    async def inboxes(self, keys: Sequence[tuple[str, str]]) -> list[InboxItem]:
        """Read the inbox items of executions given by (root, id)."""
        ...

    async def execution(self, execution_id: str) -> Execution | None:
        """Read one execution."""
        ...

    async def steps(self, root_id: str, execution_id: str) -> list[Row]:
        """Read a journal by seq."""
        ...

    async def states(self, root_id: str, execution_id: str) -> list[StateEntry]:
        """Read all state entries by version."""
        ...

    async def latest_states(self, root_id: str, execution_id: str) -> list[StateEntry]:
        """Read what the latest state is made of (see `states_up_to`)."""
        ...

    async def states_up_to(self, root_id: str, execution_id: str, version: int) -> list[StateEntry]:
        """Read what the state of a version is made of: a snapshot, jumps, deltas, by version.

        An entry that is read for its jump has no body (see `core.delta`).
        """
        ...

    async def states_between(
        self, root_id: str, execution_id: str, after: int, until: int
    ) -> list[StateEntry]:
        """Read the entries behind one version, up to and including another."""
        ...

    async def state_version_at(self, root_id: str, execution_id: str, at: int) -> int | None:
        """Return the last version of the state that was recorded up to a moment."""
        ...

    async def state_origin(self, root_id: str, execution_id: str, version: int) -> str | None:
        """Return the last `origin` up to a version: who recorded it."""
        ...

    async def watermark(self) -> str:
        """Return text that is another one once another process may have committed a state."""
        ...

    async def heads(self, ids: Sequence[str]) -> list[Head]:
        """Read where the recorded states of executions stand; those that are gone are left out."""
        ...

    async def current_heads(self, workflow_id: str | None, first_id: str) -> list[Head]:
        """Read where the states stand that have not ended, or whose id is not below another."""
        ...

    async def finished(self, ids: Sequence[str]) -> list[Execution]:
        """Read those of the named executions that have ended."""
        ...

    async def listing(self, filters: dict[str, Any], limit: int) -> list[Execution]:
        """List executions, newest first."""
        ...

    # -- topics -------------------------------------------------------------------------------

    async def events(self, topic: str, after: int, limit: int) -> list[Event]:
        """Read the events of a topic behind one (by seq), in order."""
        ...

    async def seq_at(self, topic: str, at: int) -> int:
        """Return the seq behind which a topic has all that was published after a moment."""
        ...

    async def last_seqs(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the seqs of the latest events of topics; 0 for one without any."""
        ...

    async def topics(self) -> list[Topic]:
        """Read all topics that have, or had, events."""
        ...

    async def derive(self, root_id: str) -> None:
        """Append what is new in the journals of a tree to its topic, if anything is.

        StoreReadOnlyError where that cannot be written.
        """
        ...

    async def watched(self) -> list[str]:
        """Return the topics of workflows that somebody waits for or is triggered by."""
        ...

    async def register_triggers(self, triggers: Sequence[Trigger]) -> None:
        """Enter triggers; one that is new begins with the next event, others keep their place."""
        ...

    async def triggered(self, workflow_id: str, topic: str, limit: int) -> Triggered | None:
        """Read the events that are to start executions of a workflow; None: no such trigger."""
        ...

    async def fire(self, firing: Firing) -> bool:
        """Start executions for events, exactly once; False: somebody else has."""
        ...

    async def prune_events(self, before: int, behind: str = "") -> tuple[int, str]:
        """Remove some events of ordinary topics published before a moment.

        Goes on behind a topic; returns how many, and behind which the next part begins ("": none).
        """
        ...

    async def suspensions(self, filters: dict[str, str], limit: int, now: int) -> list[Suspension]:
        """List open suspensions, the oldest first, without those whose time is over at `now`.

        `filters` has values for `workflow_id`, `root_id` or `execution_id`.
        """
        ...

    async def find(self, query: Query, limit: int) -> list[Execution]:
        """List the executions that a query finds, newest first."""
        ...

    async def floor(self, query: Query, skip: int) -> str | None:
        """Return the id of the newest execution of the query's workflow but `skip`, within its
        bounds; None if there are no more."""
        ...

    async def count_entries(self, query: Query, most: int) -> int:
        """Count what the index holds at the query's place within its spans, or by its status, up
        to `most`."""
        ...

    async def count_values(self, query: Query, most: int) -> int:
        """Count the values that the index holds there, up to `most`."""
        ...

    async def tally(self, query: Query, group: str | None, total: str | None) -> list[Tally]:
        """Count what a query finds, by a column or indexed place, and add an indexed place up."""
        ...

    async def latest_states_of(
        self, keys: Sequence[tuple[str, str]]
    ) -> dict[str, list[StateEntry]]:
        """Read what the latest states of executions, given by (root, id), are made of."""
        ...

    async def workflow_ids(self) -> list[str]:
        """Return the ids of the workflows that have executions."""
        ...

    async def declare(self, places: Sequence[tuple[str, str]], since: str) -> None:
        """Note (workflow, place of its state) that are indexed for executions from an id on."""
        ...

    async def declared(self) -> list[tuple[str, str, str]]:
        """Return the places that are indexed: (workflow, place, first execution's id)."""
        ...

    # -- going back ---------------------------------------------------------------------------

    async def start_with(
        self, start: Start, journal: Sequence[Row], states: Sequence[StateEntry]
    ) -> None:
        """Create an execution that goes on from a journal which was recorded before."""
        ...

    async def reset(self, execution_id: str, step_key: str, now: int, *, dry_run: bool) -> Rewound:
        """Let an execution go on behind one of its steps; what came after is kept as history."""
        ...

    async def cut_steps(self, root_id: str, execution_id: str) -> list[tuple[int, int, Row]]:
        """Read the rows that resets cut off: (number of the reset, its moment, row)."""
        ...

    # -- upkeep -------------------------------------------------------------------------------

    async def workers(self, stopped_after: int) -> list[WorkerSeen]:
        """Read live workers, and those that stopped after a moment, with what they own."""
        ...

    async def finished_workflows(self) -> list[str]:
        """Return the ids of the workflows that have finished roots."""
        ...

    async def due(
        self,
        workflow_id: str,
        before: int,
        *,
        statuses: Sequence[str] | None = None,
        after: tuple[int, str] | None = None,
        limit: int,
    ) -> list[tuple[int, str]]:
        """Find ended trees whose root, of this workflow, ended before a moment, oldest first.

        Each is (completed_at, root); `after` the last one pages on. Nothing is locked.
        """
        ...

    async def weigh(self, roots: Sequence[str]) -> Pruned:
        """Count what the removal of these trees would take away."""
        ...

    async def prune(
        self, roots: Sequence[str], before: int, *, rows_max: int = PRUNE_ROWS_MAX
    ) -> Pruned:
        """Remove trees that still are due in one transaction; `left` are those for a further one.

        It takes no further tree once `rows_max` rows are gone. A tree of more executions than a
        tenth of that goes in parts, its root last and marked with `transitions.REMOVING`.
        """
        ...

    async def stats(self) -> StoreStats:
        """Count executions, rows and bytes; it may read the whole database."""
        ...

    async def vacuum(self) -> tuple[int, int]:
        """Give space back to the machine; returns the bytes before and after."""
        ...
