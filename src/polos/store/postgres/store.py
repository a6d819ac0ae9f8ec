"""The PostgreSQL store: the verbs and reads of `polos.store.protocol.Store` on one schema."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Any

from polos.core.amending import Amendment
from polos.core.keyed import Keyed, KeyedState
from polos.core.model import (
    Event,
    Execution,
    InboxItem,
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
from polos.errors import StoreError
from polos.store.postgres import (
    amending,
    batch,
    events,
    queries,
    retention,
    rewinding,
    upkeep,
    verbs,
    waits,
    watching,
)
from polos.store.postgres import keyed as keyed_states
from polos.store.postgres import triggers as triggering
from polos.store.postgres.links import LOST, Link, ServerError, connect
from polos.store.postgres.lookup import Lookup
from polos.store.protocol import CRASHES_MAX, HEAD_START_US, PRUNE_ROWS_MAX, VERSION_MAX

LEAVING_SECONDS = 3.0


class LastLoop(asyncio.SelectorEventLoop):
    """Resolves names by itself: at the end of the interpreter there are no other threads to ask."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """See `asyncio.AbstractEventLoop.getaddrinfo`."""
        return socket.getaddrinfo(host, port, **options)


class PostgresStore(Lookup):
    """Keeps everything in one schema of a PostgreSQL database."""

    survey_seconds = 0.6
    """With one statement each, an idle worker costs fewer than two a second."""
    death_seconds = 1.0
    poll_seconds = 0.5
    sees_others = False

    def ring(self, bells: set[str]) -> None:
        """Ring for other processes."""
        if not self.read_only:
            self.session.ring(bells)

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
        most = len(keys) if limit is None else limit
        return await self.do(
            lambda link, again: verbs.claim(
                link, worker_id, keys, parked, now, limit=most, again=again
            )
        )

    async def cancel(self, execution_id: str, now: int) -> dict[str, str]:
        """Ask for the cancellation of an execution and its descendants."""
        verdicts, workers = await self.do(
            lambda link, _: verbs.cancel(link, execution_id, now, self.lining)
        )
        self.session.ring({f"worker:{each}" for each in workers} | {"ended", "queue"})
        return verdicts

    async def force_cancel(self, deadline: int, now: int) -> list[str]:
        """End what was asked to cancel before `deadline` and did not."""
        if not await self.read(lambda link: queries.overdue(link, deadline)):
            return []
        forced = await self.do(lambda link, _: verbs.force_cancel(link, deadline, now, self.lining))
        self.session.ring({"ended", "queue"})
        return forced

    async def block(self, execution_id: str, attempt: int, reason: str) -> bool:
        """Park an execution as waiting, with a reason."""
        return await self.do(lambda link, _: verbs.block(link, execution_id, attempt, reason))

    async def amend(self, execution_id: str, amendment: Amendment) -> str | None:
        """Change the state of an execution that nobody runs."""
        worker = await self.do(
            lambda link, again: amending.amend(
                link, execution_id, amendment, self.lining, again=again
            )
        )
        self.session.ring({"queue"} | ({f"worker:{worker}"} if worker is not None else set()))
        return worker

    async def is_preceded(
        self, workflow_id: str, execution_id: str, deployment_id: str | None
    ) -> bool:
        """Say whether one that was started earlier has yet to take its place."""
        return await self.read(
            lambda link: keyed_states.is_preceded(link, workflow_id, execution_id, deployment_id)
        )

    async def enter_key(
        self, execution_id: str, attempt: int, keyed: Keyed
    ) -> list[StateEntry] | None:
        """Let an execution that was started without its state key take its place."""
        return await self.do(
            lambda link, _: verbs.enter_key(link, execution_id, attempt, keyed, self.lining)
        )

    async def keyed_state(self, workflow_id: str, key: str) -> KeyedState | None:
        """Read the state of a key; None if it has none."""
        return await self.read(
            lambda link: keyed_states.read(link, (workflow_id, key), self.lining)
        )

    async def write_keyed_state(
        self, workflow_id: str, key: str, entry: StateEntry | None, if_version: int | None
    ) -> KeyedState | None:
        """Set the state of a key, or remove it (None); returns what was there before."""
        place = (workflow_id, key)
        return await self.do(
            lambda link, again: keyed_states.write(
                link, place, entry, if_version, self.lining, again=again
            )
        )

    async def state_keys(self, workflow_id: str, prefix: str, after: str, limit: int) -> list[str]:
        """Read keys that have state, in the order of their bytes."""
        return await self.read(
            lambda link: keyed_states.state_keys(link, workflow_id, prefix, after, limit)
        )

    async def retry(self, execution_id: str, now: int) -> None:
        """Queue a failed execution from its failed step, or release a blocked one."""
        await self.do(lambda link, _: verbs.retry(link, execution_id, now))
        self.session.ring({"queue"})

    async def resume(self, answer: Answer) -> Accepted:
        """Answer a suspension, or keep the answer until the code suspends."""
        accepted = await self.do(lambda link, _: waits.resume(link, answer, self.lining))
        owner = accepted.worker_id
        self.session.ring({"queue"} if owner is None else {f"worker:{owner}", "queue"})
        return accepted

    async def expire(self, root_id: str, execution_id: str, seq: int, now: int) -> bool:
        """Let the time of a suspension be over, unless it has its answer; False: it is not due."""
        return await self.do(lambda link, _: waits.expire(link, root_id, execution_id, seq, now))

    async def register_worker(self, worker: WorkerRecord) -> None:
        """Write or refresh a worker's row."""
        await self.do(lambda link, _: verbs.register_worker(link, worker))

    async def stop_worker(
        self, worker_id: str, now: int, *, crashed: bool, again: bool = False
    ) -> int:
        """Mark a worker as gone and hand back what it owned."""
        await self.written()  # what was submitted before comes before
        handed = await self.do(
            lambda link, _: verbs.stop_worker(
                link, worker_id, now, crashed=crashed, crashes_max=CRASHES_MAX, again=again
            )
        )
        self.session.ring({"queue"})
        return handed

    def stop_worker_now(self, worker_id: str, now: int) -> None:
        """Hand back what a worker owns when no event loop runs any more."""
        if self.read_only:
            return

        async def leave() -> None:
            connection = await connect(self.location, self.location.dsn)
            try:
                link = Link(connection, self.location)
                async with link.transaction():
                    await verbs.stop_worker(
                        link, worker_id, now, crashed=False, crashes_max=CRASHES_MAX, again=False
                    )
            finally:
                await connection.close(timeout=1.0)

        def run() -> None:
            # If the server is away the lock goes all the same: others find out by it.
            with (
                contextlib.suppress(*LOST, ServerError, StoreError),
                asyncio.Runner(loop_factory=LastLoop) as runner,
            ):
                runner.run(asyncio.wait_for(leave(), LEAVING_SECONDS))

        self.hang_up()
        # A thread of its own, since the loop of this one may still be running.
        thread = threading.Thread(target=run, name="polos-leaving", daemon=True)
        thread.start()
        thread.join(LEAVING_SECONDS)

    async def sort_out(self, before: int) -> None:
        """Block what is due since `before` and no live worker may run; release what one may."""
        released, _ = await self.do(lambda link, _: verbs.sort_out(link, before))
        if released:
            self.session.ring({"queue"})

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
        """Beat, and see what there is to do, in one round trip."""
        return await self.session.survey(
            worker_id,
            workflows,
            takes_queue=takes_queue,
            now=now,
            head_start=HEAD_START_US,
            queued_before=queued_before,
            asked_before=asked_before,
        )

    async def claimable(
        self, worker_id: str, workflows: Sequence[str], takes_queue: bool, now: int, limit: int
    ) -> list[tuple[str, str, int]]:
        """Find executions that the worker may claim."""
        return await self.read(
            lambda link: queries.claimable(
                link, worker_id, workflows, takes_queue, now, HEAD_START_US, limit
            )
        )

    async def live_workers(self) -> list[WorkerRecord]:
        """Read the workers that have not stopped."""
        return await self.read(queries.live_workers)

    async def worker_stopped(self, worker_id: str) -> bool:
        """Say whether somebody declared this worker dead."""
        return await self.read(lambda link: queries.has_stopped(link, worker_id))

    async def next_wake(self, worker_id: str, workflows: Sequence[str]) -> int | None:
        """Return when the next timer of these workflows is due that the worker may run."""
        return await self.read(lambda link: queries.next_wake(link, worker_id, workflows))

    async def to_cancel(self, worker_id: str) -> list[str]:
        """Find executions of this worker that were asked to cancel."""
        return await self.read(lambda link: queries.to_cancel(link, worker_id))

    # -- reads --------------------------------------------------------------------------------

    async def inboxes(self, keys: Sequence[tuple[str, str]]) -> list[InboxItem]:
        """Read the inbox items of executions given by (root, id)."""
        return await self.read(lambda link: queries.inboxes(link, keys))

    async def execution(self, execution_id: str) -> Execution | None:
        """Read one execution."""
        return await self.read(lambda link: queries.execution(link, execution_id))

    async def steps(self, root_id: str, execution_id: str) -> list[Row]:
        """Read a journal by seq."""
        return await self.read(lambda link: queries.steps(link, root_id, execution_id))

    async def states(self, root_id: str, execution_id: str) -> list[StateEntry]:
        """Read all state entries by version."""
        return await self.read(lambda link: queries.states(link, root_id, execution_id))

    async def latest_states(self, root_id: str, execution_id: str) -> list[StateEntry]:
        """Read what the latest state is made of."""
        return await self.states_up_to(root_id, execution_id, VERSION_MAX)

    async def states_up_to(self, root_id: str, execution_id: str, version: int) -> list[StateEntry]:
        """Read what the state of a version is made of."""
        return await self.read(
            lambda link: queries.states_up_to(link, root_id, execution_id, version)
        )

    async def states_between(
        self, root_id: str, execution_id: str, after: int, until: int
    ) -> list[StateEntry]:
        """Read the entries behind one version, up to and including another."""
        return await self.read(
            lambda link: queries.states_between(link, root_id, execution_id, after, until)
        )

    async def state_version_at(self, root_id: str, execution_id: str, at: int) -> int | None:
        """Return the last version that was recorded up to a moment."""
        return await self.read(
            lambda link: queries.state_version_at(link, root_id, execution_id, at)
        )

    async def state_origin(self, root_id: str, execution_id: str, version: int) -> str | None:
        """Return the last `origin` up to a version."""
        return await self.read(
            lambda link: queries.state_origin(link, root_id, execution_id, version)
        )

    async def watermark(self) -> str:
        """Return text that is another one once anybody has written anything but a beat."""
        return await self.read(watching.watermark)

    async def heads(self, ids: Sequence[str]) -> list[Head]:
        """Read where the recorded states of executions stand."""
        return await self.read(lambda link: watching.heads(link, ids))

    async def current_heads(self, workflow_id: str | None, first_id: str) -> list[Head]:
        """Read where the states stand that have not ended, or whose id is not below another."""
        return await self.read(lambda link: watching.current(link, workflow_id, first_id))

    async def finished(self, ids: Sequence[str]) -> list[Execution]:
        """Read those of the named executions that have ended."""
        return await self.read(lambda link: queries.finished(link, ids))

    async def listing(self, filters: dict[str, Any], limit: int) -> list[Execution]:
        """List executions, newest first."""
        return await self.read(lambda link: queries.listing(link, filters, limit))

    async def suspensions(self, filters: dict[str, str], limit: int, now: int) -> list[Suspension]:
        """List open suspensions, the oldest first."""
        return await self.read(lambda link: waits.suspensions(link, filters, limit, now))

    # -- topics -------------------------------------------------------------------------------

    async def events(self, topic: str, after: int, limit: int) -> list[Event]:
        """Read the events of a topic behind one, in order."""
        return await self.read(lambda link: events.after(link, topic, after, limit))

    async def seq_at(self, topic: str, at: int) -> int:
        """Return the seq behind which a topic has all that was published after a moment."""
        return await self.read(lambda link: events.seq_at(link, topic, at))

    async def last_seqs(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the seqs of the latest events of topics."""
        return await self.read(lambda link: events.last_seqs(link, topics))

    async def topics(self) -> list[Topic]:
        """Read all topics that have, or had, events."""
        return await self.read(events.topics)

    async def derive(self, root_id: str) -> None:
        """Append what is new in the journals of a tree to its topic."""
        if not await self.read(lambda link: events.derived(link, root_id)):
            return
        self.demand_writable()
        published, bells = await self.do(lambda link, _: events.derive(link, root_id))
        self.session.ring(bells)
        self.on_published(published)

    async def watched(self) -> list[str]:
        """Return the topics of workflows that somebody waits for or is triggered by."""
        return await self.read(events.watched)

    async def register_triggers(self, triggers: Sequence[Trigger]) -> None:
        """Enter triggers; one that is new begins with the next event."""
        await self.do(lambda link, _: triggering.register(link, triggers))

    async def triggered(self, workflow_id: str, topic: str, limit: int) -> Triggered | None:
        """Read the events that are to start executions of a workflow."""
        return await self.read(lambda link: triggering.pending(link, workflow_id, topic, limit))

    async def fire(self, firing: Firing) -> bool:
        """Start executions for events, unless somebody has: then False."""
        return await self.do(
            lambda link, again: triggering.fire(link, firing, self.lining, again=again)
        )

    async def prune_events(self, before: int, behind: str = "") -> tuple[int, str]:
        """Remove some events of ordinary topics published before a moment."""
        if not await self.read(events.has_topics):
            return 0, ""
        return await self.do(lambda link, _: events.prune(link, before, behind))

    # -- going back ---------------------------------------------------------------------------

    async def start_with(
        self, start: Start, journal: Sequence[Row], states: Sequence[StateEntry]
    ) -> None:
        """Create an execution that goes on from a journal which was recorded before."""
        await self.do(lambda link, _: batch.start_with(link, start, journal, states))
        self.session.ring({"queue"})

    async def reset(self, execution_id: str, step_key: str, now: int, *, dry_run: bool) -> Rewound:
        """Let an execution go on behind one of its steps."""
        done, workers = await self.do(
            lambda link, _: rewinding.reset(
                link, execution_id, step_key, now, self.lining, dry_run=dry_run
            )
        )
        if not dry_run:
            self.session.ring({f"worker:{each}" for each in workers} | {"ended", "queue"})
        return done

    async def cut_steps(self, root_id: str, execution_id: str) -> list[tuple[int, int, Row]]:
        """Read the rows that resets cut off."""
        return await self.read(lambda link: rewinding.cut_steps(link, root_id, execution_id))

    # -- upkeep -------------------------------------------------------------------------------

    async def workers(self, stopped_after: int) -> list[WorkerSeen]:
        """Read live workers, and those that stopped after a moment, with what they own."""
        found = await self.read(lambda link: upkeep.workers(link, stopped_after))
        live = [each.id for each in found if each.stopped_at is None]
        held = await self.session.held(live)
        owned = await self.read(lambda link: upkeep.owned(link, live))
        return [
            WorkerSeen(
                each,
                each.id in held,
                None,
                owned.get((each.id, "running"), 0),
                owned.get((each.id, "queued"), 0),
            )
            for each in found
        ]

    async def finished_workflows(self) -> list[str]:
        """Return the ids of the workflows that have finished roots."""
        return await self.read(retention.finished_workflows)

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
        return await self.read(
            lambda link: retention.due(link, workflow_id, before, statuses, after, limit)
        )

    async def weigh(self, roots: Sequence[str]) -> Pruned:
        """Count what the removal of these trees would take away."""
        return await self.read(lambda link: retention.weigh(link, roots))

    async def prune(
        self, roots: Sequence[str], before: int, *, rows_max: int = PRUNE_ROWS_MAX
    ) -> Pruned:
        """Remove trees that still are due in one transaction; `left` are the others."""
        return await self.do(lambda link, _: retention.prune(link, roots, before, rows_max))

    async def stats(self) -> StoreStats:
        """Count executions, rows and bytes; it reads whole tables."""
        return await self.read(lambda link: upkeep.stats(link, self.location))

    async def vacuum(self) -> tuple[int, int]:
        """Let the space of removed rows be used again; returns the bytes before and after."""
        self.demand_writable()
        return await upkeep.vacuum(self.location)
