"""What is started, how each of it has to end, and what goes wrong meanwhile; all from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "ledger",
    "family",
    "fan",
    "sleeper",
    "asker",
    "talk",
    "speaker",
    "runner",
    "failing",
    "doomed",
    "doomed_family",
]
KINDS: dict[Kind, int] = {
    "ledger": 30,
    "family": 20,
    "fan": 20,
    "sleeper": 15,
    "asker": 15,
    "talk": 10,
    "speaker": 12,
    "runner": 12,
    "failing": 5,
    "doomed": 6,
    "doomed_family": 4,
}
LEAVES = 4
LEAF_STEPS = 2
BRANCHES = 5
WORDS = 5
"""How many chunks each streaming step has."""
BROKEN = 100
"""What the code adds to its state when a step has failed for good."""

Fault = Literal["kill", "freeze", "nap", "hold", "restart", "away", "terminate"]
FAULTS: dict[Fault, int] = {
    "kill": 35,
    "freeze": 10,
    "nap": 10,
    "hold": 10,
    "restart": 12,
    "away": 5,
    "terminate": 18,
}
"""`freeze` is longer than others wait for a beat, `nap` is shorter; `hold` freezes a worker
between the statements of a transaction and its commit; `away` leaves the server down a while."""


@dataclass(frozen=True)
class Job:
    """One root execution."""

    number: int
    kind: Kind
    steps: int
    cancel_after: float | None = None
    """Seconds from its start to the request to cancel it."""
    answer_after: float | None = None
    """Seconds from its start to the answer to what it asks, which may come before it asks."""

    @property
    def payload(self) -> dict[str, Any]:
        """What its workflow is given."""
        return {"number": self.number, "steps": self.steps, "run": 0}


@dataclass(frozen=True)
class Expected:
    """How an execution has to end; `state` None: it depends on when it was cancelled."""

    status: str
    result: Any = None
    error: str | None = None
    state: dict[str, Any] | None = None
    children: dict[str, int] = field(default_factory=dict[str, int])
    """How many executions of each workflow are under it."""


def jobs(seed: int, count: int) -> list[Job]:
    """Return the executions of a run."""
    chance = random.Random(f"jobs {seed}")
    kinds = chance.choices(list(KINDS), list(KINDS.values()), k=count)
    found: list[Job] = []
    for number, kind in enumerate(kinds):
        doomed = kind.startswith("doomed")
        after = chance.uniform(0.0, 3.0) if doomed else None
        answer = chance.uniform(0.0, 3.0) if kind == "asker" else None
        found.append(Job(number, kind, chance.randint(3, 9), after, answer))
    return found


def faults(seed: int) -> Iterator[tuple[float, Fault, float]]:
    """Yield without end (seconds to the next, what, a number in [0, 1) that picks the victim)."""
    chance = random.Random(f"faults {seed}")
    while True:
        (what,) = chance.choices(list(FAULTS), list(FAULTS.values()))
        yield chance.uniform(0.8, 2.8), what, chance.random()


def expected(job: Job) -> Expected:
    """Return how an execution has to end."""
    keys = [f"s{n}" for n in range(job.steps)]
    if job.kind == "ledger":
        state = {"bodies": job.steps, "code": job.steps + BROKEN, "log": keys}
        return Expected("completed", keys, state=state)
    if job.kind == "family":
        state = {"bodies": 1, "code": LEAVES * 2 * LEAF_STEPS, "log": ["first"]}
        result = [LEAF_STEPS] * (2 * LEAVES)
        return Expected("completed", result, state=state, children={"leaf": 2 * LEAVES})
    if job.kind == "fan":
        log = [f"a{n}" for n in range(BRANCHES)] + [f"b{n}" for n in range(BRANCHES)]
        state = {"bodies": 2 * BRANCHES, "code": 2 * BRANCHES, "log": log}
        return Expected("completed", log, state=state)
    if job.kind == "sleeper":
        log = ["before", "between", "after"]
        return Expected("completed", job.number, state={"bodies": 3, "code": 2, "log": log})
    if job.kind == "asker":
        state = {"bodies": 2, "code": 1, "log": ["before", "after"]}
        return Expected("completed", job.number, state=state)
    if job.kind in {"talk", "speaker", "runner"}:
        return _telling(job, keys)
    return _unhappy(job)


def _telling(job: Job, keys: list[str]) -> Expected:
    if job.kind == "talk":
        state = {"bodies": 1, "code": 1, "log": ["after"]}
        return Expected("completed", [1, job.number, 1], state=state, children={"echo": 1})
    if job.kind == "speaker":
        return Expected("completed", job.steps, state=_steps(keys))
    state = _steps([f"g{run}" for run in range(job.steps)])
    last = job.steps - 1
    return Expected("completed", [last, last], state=state, children={"leaf": job.steps // 2})


def _steps(keys: list[str]) -> dict[str, Any]:
    return {"bodies": len(keys), "code": len(keys), "log": keys}


def _unhappy(job: Job) -> Expected:
    if job.kind == "failing":
        error = f"as it had to: {job.number}"
        return Expected("failed", error=error, state={"bodies": 2, "code": 1, "log": ["x", "y"]})
    children = {"doomed_leaf": 2} if job.kind == "doomed_family" else {}
    return Expected("cancelled", children=children)


LEAF = Expected(
    "completed",
    LEAF_STEPS,
    state={"bodies": LEAF_STEPS, "code": 0, "log": [f"leaf{n}" for n in range(LEAF_STEPS)]},
)
CHILDREN = {
    "leaf": LEAF,
    "echo": Expected("completed", 1, state={"bodies": 1, "code": 0, "log": ["echo"]}),
    "doomed_leaf": Expected("cancelled"),
}
"""How executions that others start have to end."""
