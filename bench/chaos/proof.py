"""What must be true at the end: every execution as planned, no step twice, no two owners."""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from bench.chaos import telling
from bench.chaos.director import Blow
from bench.chaos.plan import CHILDREN, Expected, Job, expected
from polos import PolosClient, events

Record = dict[str, Any]
_ROWS = (
    "SELECT execution_id, seq, turn, kind, key, ok, body, attempts, "
    "(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1e6)::bigint AS at "
    'FROM "{schema}".step WHERE turn IS NOT NULL ORDER BY execution_id, turn, seq'
)
_COUNTS = 'SELECT count(*) FROM "{schema}".step'
_RECORDS = (
    "SELECT id, root_id, workflow_id, status, attempt, worker_id, parent_id, idempotency_key "
    'FROM "{schema}".execution'
)
_LEFT = (
    'SELECT (SELECT count(*) FROM "{schema}".inbox), (SELECT count(*) FROM "{schema}".wait), '
    '(SELECT count(*) FROM "{schema}".worker WHERE stopped_at IS NULL)'
)
_EVENTS = (
    'SELECT topic, count(*), min(seq), max(seq) FROM "{schema}".event '
    "WHERE topic LIKE 'talk/%' GROUP BY topic"
)

BODIES = frozenset({"run", "stream"})
"""The kinds of rows that have a body."""
EVENTS_MAX = 10_000
STEADY_US = 6_000_000
"""How long after a restart of the server nobody is taken for dead (see `store.postgres.session`),
and a little more."""


@dataclass
class Effect:
    """A body as its process wrote it down."""

    id: str
    worker: str
    execution: str
    key: str
    attempt: int
    begun: int = 0
    ended: int | None = None


@dataclass
class Facts:
    """What the processes and the database left behind."""

    effects: dict[str, Effect] = field(default_factory=dict[str, Effect])
    rows: list[Record] = field(default_factory=list[Record])
    records: dict[str, Record] = field(default_factory=dict[str, Record])
    shown: dict[str, Record] = field(default_factory=dict[str, Record])
    events: list[tuple[str, int, int, int]] = field(default_factory=list[tuple[str, int, int, int]])
    """Of each topic: how many events, the first number, the last one."""
    streams: dict[str, list[telling.Event]] = field(default_factory=dict[str, list[telling.Event]])
    """What roots streamed, by id."""
    told: dict[str, list[telling.Event]] = field(default_factory=dict[str, list[telling.Event]])
    """What the topics of trees hold, by the id of their root."""
    durable: defaultdict[str, list[tuple[str | None, Any]]] = field(
        default_factory=lambda: defaultdict[str, list[tuple[str | None, Any]]](list)
    )
    """Chunks that code knew to be durable, by execution: (step key, data)."""
    inbox: int = 0
    waits: int = 0
    workers: int = 0


def read_effects(folder: Path) -> dict[str, Effect]:
    """Read what all bodies of all processes wrote."""
    found: dict[str, Effect] = {}
    for path in folder.glob("effects-*"):
        worker = path.name.partition("-")[2]
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if line["phase"] == "durable":
                continue
            effect = found.setdefault(
                line["id"],
                Effect(line["id"], worker, line["execution"], line["key"], line["attempt"]),
            )
            if line["phase"] == "begin":
                effect.begun = line["at"]
            else:
                effect.ended = line["at"]
    return found


def read_durable(folder: Path, facts: Facts) -> None:
    """Read which chunks code knew to be durable."""
    for path in folder.glob("effects-*"):
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if line["phase"] == "durable":
                facts.durable[line["execution"]].append((line["key"], line["chunk"]))


async def _topic(client: PolosClient, name: str) -> list[telling.Event]:
    found = await events.read(client, name, limit=EVENTS_MAX)
    return [{"seq": e.sequence_id, "type": e.event_type, "data": e.data} for e in found]


async def read(url: str, dsn: str, schema: str, folder: Path) -> Facts:
    """Read all facts: the database as it is, and through the public API."""
    driver: Any = asyncpg
    connection = await driver.connect(dsn)
    facts = Facts(read_effects(folder))
    try:
        facts.rows = [dict(r) for r in await connection.fetch(_ROWS.replace("{schema}", schema))]
        records = await connection.fetch(_RECORDS.replace("{schema}", schema))
        facts.records = {r["id"]: dict(r) for r in records}
        left = await connection.fetchrow(_LEFT.replace("{schema}", schema))
        facts.inbox, facts.waits, facts.workers = left
        facts.events = [
            tuple(r) for r in await connection.fetch(_EVENTS.replace("{schema}", schema))
        ]
    finally:
        await connection.close()
    async with PolosClient(url) as client:
        before = None
        while page := await client.list_executions(limit=500, before=before):
            facts.shown |= {each["id"]: each for each in page}
            before = page[-1]["id"]
        for id_, record in facts.records.items():
            if record["workflow_id"] in {"speaker", "runner"}:
                facts.streams[id_] = await _topic(client, f"stream/{id_}/{id_}")
            if record["workflow_id"] == "runner":
                facts.told[id_] = await _topic(client, f"workflow/runner/{id_}")
    read_durable(folder, facts)
    return facts


def violations(facts: Facts, jobs: list[Job]) -> list[str]:
    """Return every sentence that should be true and is not."""
    found = [*_ends(facts, jobs), *_twice(facts), *_two_owners(facts)]
    talks = sum(job.kind == "talk" for job in jobs)
    if len(facts.events) != talks:
        found.append(f"{len(facts.events)} topics have events, not {talks}")
    found += [
        f"{topic} has {n} events" for topic, n, *ends in facts.events if [n, *ends] != [1] * 3
    ]
    found += _telling(facts, jobs)
    if facts.waits:
        found.append(f"{facts.waits} waits were left behind")
    if facts.inbox:
        found.append(f"{facts.inbox} inbox items were left behind")
    if facts.workers:
        found.append(f"{facts.workers} workers are marked as running")
    return found


def _telling(facts: Facts, jobs: list[Job]) -> list[str]:
    """Find what is missing in streams and in what executions tell."""
    steps = {str(job.number): job.steps for job in jobs}
    found: list[str] = []
    for id_, stream in facts.streams.items():
        record = facts.records[id_]
        kind, count = record["workflow_id"], steps[record["idempotency_key"]]
        name = f"{kind} {id_}"
        found += telling.streams(name, kind, count, stream, facts.durable[id_])
        if id_ in facts.told:
            found += telling.runs(name, id_, count, facts.told[id_])
    return found


def _ends(facts: Facts, jobs: list[Job]) -> list[str]:
    found: list[str] = []
    roots: defaultdict[str, list[str]] = defaultdict(list)
    under: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in facts.records.values():
        if record["parent_id"] is None:
            roots[record["idempotency_key"]].append(record["id"])
        else:
            under[record["root_id"]][record["workflow_id"]] += 1
    done = Counter(row["execution_id"] for row in facts.rows if row["kind"] == "run" and row["ok"])
    for job in jobs:
        ids = roots.pop(str(job.number), [])
        if len(ids) != 1:
            found.append(f"job {job.number} ({job.kind}) has {len(ids)} executions: {ids}")
        for id_ in ids:
            wanted = expected(job)
            found += _differences(facts.shown[id_], wanted, done[id_])
            children = dict(under[id_])
            # What was cancelled early has not started all of its children.
            early = wanted.status == "cancelled" and children.items() <= wanted.children.items()
            if (
                children != wanted.children
                and not early
                and not (
                    wanted.status == "cancelled"
                    and all(count <= wanted.children.get(w, 0) for w, count in children.items())
                )
            ):
                found.append(f"{job.kind} {id_}: children {children}, not {wanted.children}")
    found += [f"executions of nobody: {key} {ids}" for key, ids in roots.items()]
    for id_, record in facts.records.items():
        if record["parent_id"] is not None:
            wanted = CHILDREN[record["workflow_id"]]
            found += _differences(facts.shown[id_], wanted, done[id_])
    return found


def _differences(shown: Record, wanted: Expected, done: int) -> list[str]:
    found: list[str] = []
    name = f"{shown['workflow_id']} {shown['id']}"
    if shown["status"] != wanted.status:
        found.append(
            f"{name} is {shown['status']}, not {wanted.status}; {shown.get('error')} "
            f"{shown.get('blocked_reason') or ''}"
        )
        return found
    if shown["result"] != wanted.result:
        found.append(f"{name} returned {shown['result']!r}, not {wanted.result!r}")
    if wanted.error is not None and wanted.error not in (shown["error"] or ""):
        found.append(f"{name} failed with {shown['error']!r}, not {wanted.error!r}")
    # Started from a process without the code, and cancelled before any worker had it: no state.
    state: Record = dict(shown["state"] or {"bodies": 0, "code": 0, "log": []})
    if wanted.state is None:
        if state["bodies"] != done or len(state["log"]) != done:
            found.append(f"{name} has state {state}, but {done} steps were recorded")
        return found
    exact = {**state, "log": sorted(state["log"])} == {
        **wanted.state,
        "log": sorted(wanted.state["log"]),
    }
    ordered = shown["workflow_id"] == "fan" or state["log"] == wanted.state["log"]
    if not (exact and ordered):
        found.append(f"{name} has state {state}, not {wanted.state}")
    return found


def _twice(facts: Facts) -> list[str]:
    """Find bodies that began although their step was committed before."""
    committed = {(r["execution_id"], r["key"]): r["at"] for r in facts.rows if r["kind"] in BODIES}
    found: list[str] = []
    for effect in facts.effects.values():
        at = committed.get((effect.execution, effect.key))
        if at is not None and effect.begun > at:
            found.append(
                f"step {effect.key} of {effect.execution} was recorded, and ran again "
                f"{effect.begun - at} us later in attempt {effect.attempt} of {effect.worker}"
            )
    return found


def _two_owners(facts: Facts) -> list[str]:
    """Find rows that an attempt wrote after a later one had begun to run bodies."""
    begun: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for effect in facts.effects.values():
        begun[effect.execution].append((effect.attempt, effect.begun))
    found: list[str] = []
    last: dict[str, int] = {}
    for row in facts.rows:
        if row["kind"] not in BODIES or not row["ok"]:
            continue
        value = json.loads(row["body"])
        id_, attempt = row["execution_id"], value["attempt"]
        effect = facts.effects.get(value["by"])
        if effect is None or effect.ended is None or effect.execution != id_:
            found.append(f"step {row['key']} of {id_} was recorded, but its body did not end")
        if attempt < last.get(id_, 0):
            found.append(f"step {row['key']} of {id_}: attempt {attempt} wrote behind {last[id_]}")
        last[id_] = max(attempt, last.get(id_, 0))
        later = [at for number, at in begun[id_] if number > attempt and at < row["at"]]
        if later:
            found.append(
                f"step {row['key']} of {id_} was written by attempt {attempt} "
                f"{row['at'] - min(later)} us after a later attempt ran"
            )
    return found


def takeovers(
    facts: Facts, blows: list[Blow], outages: list[tuple[int, int]], what: str
) -> list[float]:
    """Return seconds from a blow until a body that it interrupted began in another attempt.

    What the blow did not interrupt is left out: a body whose execution went on elsewhere before,
    and one that nobody could take over because the server was away, or had been so lately that
    others still waited for those who had lost their connections with it.
    """
    by_worker: defaultdict[str, list[Effect]] = defaultdict(list)
    by_step: defaultdict[tuple[str, str], list[Effect]] = defaultdict(list)
    for effect in facts.effects.values():
        by_worker[effect.worker].append(effect)
        by_step[effect.execution, effect.key].append(effect)
    in_order = deque(sorted(facts.effects.values(), key=lambda effect: effect.begun))
    last: defaultdict[str, int] = defaultdict(int)
    found: list[float] = []
    for blow in sorted(blows, key=lambda blow: blow.at_us):
        if blow.what != what:
            continue
        while in_order and in_order[0].begun < blow.at_us:
            effect = in_order.popleft()
            last[effect.execution] = max(last[effect.execution], effect.attempt)
        for effect in by_worker[blow.name]:
            open_ = effect.begun < blow.at_us and (effect.ended or blow.at_us + 1) > blow.at_us
            if not open_ or effect.attempt < last[effect.execution]:
                continue
            later = [
                each.begun
                for each in by_step[effect.execution, effect.key]
                if each.attempt > effect.attempt
            ]
            if later and not any(
                begun < min(later) and ended + STEADY_US > blow.at_us for begun, ended in outages
            ):
                found.append((min(later) - blow.at_us) / 1e6)
    return found


def summary(facts: Facts) -> Record:
    """Count what was done."""
    attempts = sum(record["attempt"] for record in facts.records.values())
    runs = [row for row in facts.rows if row["kind"] == "run"]
    return {
        "executions": len(facts.records),
        "by_status": dict(Counter(each["status"] for each in facts.records.values())),
        "steps": len(runs),
        "rows": len(facts.rows),
        "bodies": len(facts.effects),
        "attempts": attempts,
    }
