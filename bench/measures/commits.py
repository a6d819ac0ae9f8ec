"""Commits per step; each is one wait for the disk, checkpoints aside."""

from __future__ import annotations

import asyncio

from bench.raw import RawLog
from bench.report import Pair
from bench.session import Session, store_of
from bench.workflows import Plan, state_steps, steps
from polos import PolosClient, Workflow

CASES: list[tuple[str, Workflow[int], int, int]] = [
    ("1x1000", steps, 1, 1000),
    ("1x1000_state", state_steps, 1, 1000),
    ("100x10", steps, 100, 10),
    ("1000x10", steps, 1000, 10),
    ("1000x10_state", state_steps, 1000, 10),
]


def measure(session: Session) -> None:
    """Count the commits of all the executions, their starts and endings included."""
    for name, work, size, count in CASES:
        plans = [Plan(steps=count) for _ in range(session.size(size, min(size, 20)))]

        async def once(
            client: PolosClient,
            _: RawLog,
            work: Workflow[int] = work,
            plans: list[Plan] = plans,
        ) -> Pair:
            store = await store_of(client)
            await work(client, Plan(steps=1))
            before = store.commits
            await asyncio.gather(*(work(client, plan) for plan in plans))
            return (store.commits - before) / sum(plan.steps for plan in plans), 1.0

        session.report(name, "commits/step", session.pairs(once), "a commit for each row")
