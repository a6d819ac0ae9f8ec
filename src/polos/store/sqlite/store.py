"""The SQLite store: the verbs and reads of `polos.store.protocol.Store` on one database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from polos.core.amending import Amendment
from polos.core.keyed import Keyed, KeyedState
from polos.core.model import (
    Event,
    Execution,
    InboxItem,
    Neighbour,
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
from polos.store.protocol import CRASHES_MAX, HEAD_START_US, PRUNE_ROWS_MAX, VERSION_MAX
from polos.store.sqlite import (
    amending,
    events,
    finding,
    queries,
    retention,
    rewinding,
    upkeep,
    verbs,
    waits,
    watching,
)
from polos.store.sqlite import keyed as keyed_states
from polos.store.sqlite import triggers as triggering
from polos.store.sqlite.committer import Crashed, MemoryDatabase
from polos.store.sqlite.connection import connect, translated
from polos.store.sqlite.depot import Depot

__all__ = ["CRASHES_MAX", "Crashed", "MemoryDatabase", "SqliteStore"]


class SqliteStore(Depot):
    """Keeps everything in one SQLite file, or in memory."""

    survey_seconds = 0.5
    death_seconds = 0.0
    poll_seconds = 0.025
    sees_others = True

    def ring(self, bells: set[str]) -> None:
        """Ring for nobody: other processes see each commit (see `foreign_count`)."""

    # -- verbs --------------------------------------------------------------------------------

    async def claim(
        self,
        worker_id: str,
        keys: Sequence[tuple[str, str, int]],
        parked: dict[str, tuple[int, int]],
        now: int,
        limit: int | None = None,
    ) -> list[Work]:
        """Own those that are still free, and read their work."""
        here = [key for key in keys if key[1] in parked]
        some = here + [key for key in keys if key[1] not in parked][:limit]
        return await self.do(lambda c: verbs.claim(c, worker_id, some, parked, now))

    async def cancel(self, execution_id: str, now: int) -> dict[str, str]:
        """Ask for the cancellation of an execution and its descendants."""
        return await self.do(lambda c: verbs.cancel(c, execution_id, now, self.lining))

    async def force_cancel(self, deadline: int, now: int) -> list[str]:
        """End what was asked to cancel before `deadline` and did not."""
        overdue = queries.overdue_cancel(self.reader, deadline)
        if not overdue and not queries.overdue_time(self.reader, deadline):
            return []
        return await self.do(lambda c: verbs.force_cancel(c, deadline, now, self.lining))

    async def block(self, execution_id: str, attempt: int, reason: str) -> bool:
        """Park an execution as waiting, with a reason."""
        return await self.do(lambda c: verbs.block(c, execution_id, attempt, reason))

    async def amend(self, execution_id: str, amendment: Amendment) -> str | None:
        """Change the state of an execution that nobody runs."""
        return await self.do(lambda c: amending.amend(c, execution_id, amendment, self.lining))

    async def is_preceded(
        self, workflow_id: str, execution_id: str, deployment_id: str | None
    ) -> bool:
        """Say whether one that was started earlier has yet to take its place."""
        return self.read(keyed_states.is_preceded, workflow_id, execution_id, deployment_id)

    async def enter_key(
        self, execution_id: str, attempt: int, keyed: Keyed
    ) -> list[StateEntry] | None:
        """Let an execution that was started without its state key take its place."""
        return await self.do(
            lambda c: verbs.enter_key(c, execution_id, attempt, keyed, self.lining)
        )

    async def keyed_state(self, workflow_id: str, key: str) -> KeyedState | None:
        """Read the state of a key; None if it has none."""
        return self.read(keyed_states.read, (workflow_id, key), self.lining)

    async def write_keyed_state(
        self, workflow_id: str, key: str, entry: StateEntry | None, if_version: int | None
    ) -> KeyedState | None:
        """Set the state of a key, or remove it (None); returns what was there before."""
        place = (workflow_id, key)
        return await self.do(lambda c: keyed_states.write(c, place, entry, if_version, self.lining))

    async def state_keys(self, workflow_id: str, prefix: str, after: str, limit: int) -> list[str]:
        """Read keys that have state, in the order of their bytes."""
        return self.read(keyed_states.state_keys, workflow_id, prefix, after, limit)

    async def retry(self, execution_id: str, now: int) -> None:
        """Queue a failed execution from its failed step, or release a blocked one."""
        await self.do(lambda c: verbs.retry(c, execution_id, now))

    async def resume(self, answer: Answer) -> Accepted:
        """Answer a suspension, or keep the answer until the code suspends."""
        return await self.do(lambda c: waits.resume(c, answer, self.lining))

    async def expire(self, root_id: str, execution_id: str, seq: int, now: int) -> bool:
        """Let the time of a suspension be over, unless it has its answer; False: it is not due."""
        return await self.do(lambda c: waits.expire(c, root_id, execution_id, seq, now))

    async def register_worker(self, worker: WorkerRecord) -> None:
        """Write or refresh a worker's row."""
        await self.do(lambda c: verbs.register_worker(c, worker))

    async def stop_worker(
        self, worker_id: str, now: int, *, crashed: bool, again: bool = False
    ) -> int:
        """Mark a worker as gone and hand back what it owned."""
        return await self.do(
            lambda c: verbs.stop_worker(
                c, worker_id, now, crashed=crashed, crashes_max=CRASHES_MAX, again=again
            )
        )

    @translated
    def stop_worker_now(self, worker_id: str, now: int) -> None:
        """Hand back what a worker owns when no event loop runs any more."""
        if self.read_only or self.location.memory:
            return
        connection = connect(self.location)
        connection.set_busy_timeout(1000)
        with connection:
            verbs.stop_worker(connection, worker_id, now, crashed=False, crashes_max=CRASHES_MAX)
        connection.close()
        self.liveness.leave()

    async def sort_out(self, before: int) -> None:
        """Block what is due since `before` and no live worker may run; release what one may."""
        if any(self.read(verbs.to_sort_out, before)):
            await self.do(lambda c: verbs.sort_out(c, before))

    # -- looking around -----------------------------------------------------------------------

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
        """Beat, and see what there is to do."""
        await self.liveness.beat()
        neighbours: list[Neighbour] = []
        for each in self.read(queries.live_workers):
            if each.id != worker_id:
                counter = await self.liveness.look(each.id)
                neighbours.append(Neighbour(each, counter or 0, locked=counter is not None))
        return Survey(
            self.read(queries.has_stopped, worker_id),
            neighbours,
            any(self.read(verbs.to_sort_out, queued_before)),
            self.read(queries.overdue_cancel, asked_before)
            or bool(self.read(queries.overdue_time, asked_before)),
            self.read(queries.to_cancel, worker_id),
            bool(await self.claimable(worker_id, workflows, takes_queue, now, 1)),
            self.read(queries.next_wake, worker_id, workflows),
            self.read(triggering.is_due, workflows),
        )

    # -- reads --------------------------------------------------------------------------------

    async def claimable(
        self, worker_id: str, workflows: Sequence[str], takes_queue: bool, now: int, limit: int
    ) -> list[tuple[str, str, int]]:
        """Find executions that the worker may claim."""
        return self.read(
            queries.claimable, worker_id, workflows, takes_queue, now, HEAD_START_US, limit
        )

    async def live_workers(self) -> list[WorkerRecord]:
        """Read the workers that have not stopped."""
        return self.read(queries.live_workers)

    async def worker_stopped(self, worker_id: str) -> bool:
        """Say whether somebody declared this worker dead."""
        return self.read(queries.has_stopped, worker_id)

    async def next_wake(self, worker_id: str, workflows: Sequence[str]) -> int | None:
        """Return when the next timer of these workflows is due that the worker may run."""
        return self.read(queries.next_wake, worker_id, workflows)

    async def to_cancel(self, worker_id: str) -> list[str]:
        """Find executions of this worker that were asked to cancel."""
        return self.read(queries.to_cancel, worker_id)

    async def inboxes(self, keys: Sequence[tuple[str, str]]) -> list[InboxItem]:
        """Read the inbox items of executions given by (root, id)."""
        return [item for key in keys for item in self.read(queries.inbox, *key)]

    async def execution(self, execution_id: str) -> Execution | None:
        """Read one execution."""
        return self.read(queries.execution, execution_id)

    async def steps(self, root_id: str, execution_id: str) -> list[Row]:
        """Read a journal by seq."""
        return self.read(queries.steps, root_id, execution_id)

    async def states(self, root_id: str, execution_id: str) -> list[StateEntry]:
        """Read all state entries by version."""
        return self.read(queries.states, root_id, execution_id)

    async def latest_states(self, root_id: str, execution_id: str) -> list[StateEntry]:
        """Read what the latest state is made of."""
        return self.read(queries.states_up_to, root_id, execution_id, VERSION_MAX)

    async def states_up_to(self, root_id: str, execution_id: str, version: int) -> list[StateEntry]:
        """Read what the state of a version is made of."""
        return self.read(queries.states_up_to, root_id, execution_id, version)

    async def states_between(
        self, root_id: str, execution_id: str, after: int, until: int
    ) -> list[StateEntry]:
        """Read the entries behind one version, up to and including another."""
        return self.read(queries.states_between, root_id, execution_id, after, until)

    async def state_version_at(self, root_id: str, execution_id: str, at: int) -> int | None:
        """Return the last version that was recorded up to a moment."""
        return self.read(queries.state_version_at, root_id, execution_id, at)

    async def state_origin(self, root_id: str, execution_id: str, version: int) -> str | None:
        """Return the last `origin` up to a version."""
        return self.read(queries.state_origin, root_id, execution_id, version)

    async def watermark(self) -> str:
        """Return text that is another one once another process has committed."""
        return str(self.foreign_count())

    async def heads(self, ids: Sequence[str]) -> list[Head]:
        """Read where the recorded states of executions stand."""
        return self.read(watching.heads, ids)

    async def current_heads(self, workflow_id: str | None, first_id: str) -> list[Head]:
        """Read where the states stand that have not ended, or whose id is not below another."""
        return self.read(watching.current, workflow_id, first_id)

    async def finished(self, ids: Sequence[str]) -> list[Execution]:
        """Read those of the named executions that have ended."""
        return self.read(queries.finished, ids)

    async def listing(self, filters: dict[str, Any], limit: int) -> list[Execution]:
        """List executions, newest first."""
        return self.read(queries.listing, filters, limit)

    async def suspensions(self, filters: dict[str, str], limit: int, now: int) -> list[Suspension]:
        """List open suspensions, the oldest first."""
        return self.read(waits.suspensions, filters, limit, now)

    # -- topics -------------------------------------------------------------------------------

    async def events(self, topic: str, after: int, limit: int) -> list[Event]:
        """Read the events of a topic behind one, in order."""
        return self.read(events.after, topic, after, limit)

    async def seq_at(self, topic: str, at: int) -> int:
        """Return the seq behind which a topic has all that was published after a moment."""
        return self.read(events.seq_at, topic, at)

    async def last_seqs(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the seqs of the latest events of topics."""
        return self.read(events.last_seqs, topics)

    async def topics(self) -> list[Topic]:
        """Read all topics that have, or had, events."""
        return self.read(events.topics)

    async def derive(self, root_id: str) -> None:
        """Append what is new in the journals of a tree to its topic."""
        if not self.read(events.is_behind, root_id):
            return
        self.demand_writable()
        published = Published()
        await self.do(lambda c: events.derive(c, root_id, published))
        self.on_published(published)

    async def watched(self) -> list[str]:
        """Return the topics of workflows that somebody waits for or is triggered by."""
        return self.read(events.watched)

    async def register_triggers(self, triggers: Sequence[Trigger]) -> None:
        """Enter triggers; one that is new begins with the next event."""
        await self.do(lambda c: triggering.register(c, triggers))

    async def triggered(self, workflow_id: str, topic: str, limit: int) -> Triggered | None:
        """Read the events that are to start executions of a workflow."""
        return self.read(triggering.pending, workflow_id, topic, limit)

    async def fire(self, firing: Firing) -> bool:
        """Start executions for events, unless somebody has: then False."""
        return await self.do(lambda c: triggering.fire(c, firing, self.lining))

    async def prune_events(self, before: int, behind: str = "") -> tuple[int, str]:
        """Remove some events of ordinary topics published before a moment."""
        if not self.read(events.has_topics):
            return 0, ""
        return await self.do(lambda c: events.prune(c, before, behind))

    async def find(self, query: Query, limit: int) -> list[Execution]:
        """List the executions that a query finds, newest first."""
        return self.read(finding.find, query, limit)

    async def floor(self, query: Query, skip: int) -> str | None:
        """Return the id behind so many newest executions of a workflow."""
        return self.read(finding.floor, query, skip)

    async def count_entries(self, query: Query, most: int) -> int:
        """Count what is looked up by a place, up to so many."""
        return self.read(finding.count_entries, query, most)

    async def count_values(self, query: Query, most: int) -> int:
        """Count the values that are looked up at a place, up to so many."""
        return self.read(finding.count_values, query, most)

    async def tally(self, query: Query, group: str | None, total: str | None) -> list[Tally]:
        """Count what a query finds."""
        return self.read(finding.tally, query, group, total)

    async def latest_states_of(
        self, keys: Sequence[tuple[str, str]]
    ) -> dict[str, list[StateEntry]]:
        """Read what the latest states of executions are made of."""
        return self.read(finding.latest_states, keys)

    async def workflow_ids(self) -> list[str]:
        """Return the ids of the workflows that have executions."""
        return self.read(finding.workflow_ids)

    async def declare(self, places: Sequence[tuple[str, str]], since: str) -> None:
        """Note which places of states are indexed from now on."""
        await self.do(lambda c: finding.declare(c, places, since))

    async def declared(self) -> list[tuple[str, str, str]]:
        """Return the places that are indexed."""
        return self.read(finding.all_declared)

    # -- going back ---------------------------------------------------------------------------

    async def start_with(
        self, start: Start, journal: Sequence[Row], states: Sequence[StateEntry]
    ) -> None:
        """Create an execution that goes on from a journal which was recorded before."""
        await self.do(
            lambda c: rewinding.start_with(c, start, list(journal), list(states), self.lining)
        )

    async def reset(self, execution_id: str, step_key: str, now: int, *, dry_run: bool) -> Rewound:
        """Let an execution go on behind one of its steps."""
        return await self.do(
            lambda c: rewinding.reset(c, execution_id, step_key, now, self.lining, dry_run=dry_run)
        )

    async def cut_steps(self, root_id: str, execution_id: str) -> list[tuple[int, int, Row]]:
        """Read the rows that resets cut off."""
        return self.read(rewinding.cut_steps, root_id, execution_id)

    # -- upkeep -------------------------------------------------------------------------------

    async def workers(self, stopped_after: int) -> list[WorkerSeen]:
        """Read live workers, and those that stopped after a moment, with what they own."""
        return self.read(upkeep.workers, self.liveness, stopped_after)

    async def finished_workflows(self) -> list[str]:
        """Return the ids of the workflows that have finished roots."""
        return self.read(retention.finished_workflows)

    async def due(
        self,
        workflow_id: str,
        before: int,
        *,
        statuses: Sequence[str] | None = None,
        after: tuple[int, str] | None = None,
        limit: int,
    ) -> list[tuple[int, str]]:
        """Find ended trees whose root, of this workflow, ended before a moment."""
        return self.read(retention.due, workflow_id, before, statuses, after, limit)

    async def weigh(self, roots: Sequence[str]) -> Pruned:
        """Count what the removal of these trees would take away."""
        return self.read(retention.weigh, roots)

    async def prune(
        self, roots: Sequence[str], before: int, *, rows_max: int = PRUNE_ROWS_MAX
    ) -> Pruned:
        """Remove trees that still are due in one transaction; `left` are the others."""
        return await self.do(lambda c: retention.prune(c, roots, before, rows_max))

    async def stats(self) -> StoreStats:
        """Count executions, rows and bytes; it reads the whole database."""
        return self.read(upkeep.stats, self.location)

    async def vacuum(self) -> tuple[int, int]:
        """Give the pages of removed rows back to the machine; returns the bytes before and after.

        Others read meanwhile; what they write waits until it is done.
        """
        self.demand_writable()
        if self.location.memory:
            return self.read(upkeep.vacuum_memory)
        return await asyncio.to_thread(upkeep.vacuum, self.location)
