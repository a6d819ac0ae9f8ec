"""A short run of chaos: what has to hold holds, and the proof notices when it does not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.chaos import telling
from bench.chaos.plan import WORDS, Job, expected, faults, jobs
from bench.chaos.proof import Effect, Facts, violations

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_chaos_leaves_every_execution_as_it_had_to_be(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.chaos", "--workers", "3", "--minutes", "0.3"),
            *("--seed", "5", "--executions", "120", "--json", "--keep", str(tmp_path)),
        ],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    report = json.loads(done.stdout)
    assert report["violations"] == []
    assert done.returncode == 0, done.stderr
    assert report["executions"] >= 120
    assert sum(report["faults"].values()) >= 3


def test_a_plan_comes_from_its_seed() -> None:
    assert jobs(3, 50) == jobs(3, 50) != jobs(4, 50)
    first, second = faults(3), faults(3)
    assert [next(first) for _ in range(20)] == [next(second) for _ in range(20)]


def facts_of(job: Job) -> Facts:
    """Return what a run of one ledger leaves behind if all went well."""
    wanted = expected(job)
    facts = Facts()
    facts.records["e"] = {
        "id": "e",
        "root_id": "e",
        "workflow_id": job.kind,
        "status": "completed",
        "attempt": 2,
        "worker_id": "w",
        "parent_id": None,
        "idempotency_key": "0",
    }
    facts.shown["e"] = {
        "id": "e",
        "workflow_id": job.kind,
        "status": wanted.status,
        "error": None,
        "result": wanted.result,
        "state": wanted.state,
    }
    for n in range(job.steps):
        attempt = 1 if n < 2 else 2
        facts.effects[f"x{n}"] = Effect(f"x{n}", "w1", "e", f"s{n}", attempt, n * 10, n * 10 + 5)
        body = json.dumps({"key": f"s{n}", "by": f"x{n}", "attempt": attempt})
        facts.rows.append(
            {
                "execution_id": "e",
                "seq": n + 1,
                "turn": n + 1,
                "kind": "run",
                "key": f"s{n}",
                "ok": True,
                "body": body,
                "attempts": 1,
                "at": n * 10 + 7,
            }
        )
    return facts


LEDGER = Job(0, "ledger", 4)


def test_what_went_well_violates_nothing() -> None:
    assert violations(facts_of(LEDGER), [LEDGER]) == []


@pytest.mark.parametrize(
    "fault", ["lost", "doubled", "state", "status", "twice", "late", "forged", "inbox"]
)
def test_the_proof_notices(fault: str) -> None:
    facts = facts_of(LEDGER)
    if fault == "lost":
        facts.records.clear()
    elif fault == "doubled":
        facts.records["f"] = facts.records["e"] | {"id": "f"}
        facts.shown["f"] = facts.shown["e"] | {"id": "f"}
    elif fault == "state":
        facts.shown["e"]["state"] = facts.shown["e"]["state"] | {"bodies": 5}
    elif fault == "status":
        facts.shown["e"]["status"] = "failed"
    elif fault == "twice":
        facts.effects["y"] = Effect("y", "w2", "e", "s0", 2, 8, None)
    elif fault == "late":
        facts.rows[1]["at"] = 21  # committed after attempt 2 had begun
    elif fault == "forged":
        facts.effects["x1"].ended = None
    else:
        facts.inbox = 1
    assert violations(facts, [LEDGER])


def numbered(*events: tuple[str, Any]) -> list[telling.Event]:
    return [{"seq": n, "type": type_, "data": data} for n, (type_, data) in enumerate(events, 1)]


def chunk(key: str | None, data: Any) -> tuple[str, Any]:
    return "chunk", {"step_key": key, "data": data}


def spoken() -> list[tuple[str, Any]]:
    """Return what a speaker of one step streams whose first body dies."""
    first, second = ([chunk("s0", [by, n, 1, "s0"]) for n in range(WORDS)] for by in "ab")
    reset, end = ("reset", {"step_key": "s0"}), ("end", {"step_key": "s0"})
    return [chunk(None, ["around", 0]), *first[:2], reset, *second, end]


DURABLE = ("s0", ["a", 1, 1, "s0"])


def test_a_stream_that_is_whole_violates_nothing() -> None:
    assert telling.streams("x", "speaker", 1, numbered(*spoken()), [DURABLE]) == []


@pytest.mark.parametrize("fault", range(10))
def test_what_a_stream_lacks_is_noticed(fault: int) -> None:
    events = spoken()
    del events[fault]
    assert telling.streams(
        "x", "speaker", 1, numbered(*events), [DURABLE, ("s0", ["a", 0, 1, "s0"])]
    )


def test_chunks_in_another_order_and_twice_are_noticed() -> None:
    for changed in (
        [*spoken()[:5], spoken()[4], *spoken()[5:]],
        [*spoken()[:5], spoken()[6], spoken()[5], *spoken()[7:]],
        [*spoken(), spoken()[-2]],
    ):
        assert telling.streams("x", "speaker", 1, numbered(*changed), [])
    gap = numbered(*spoken())
    gap[3]["seq"] = 9
    assert telling.streams("x", "speaker", 1, gap, [])


def told_by_runs() -> list[tuple[str, Any]]:
    """Return what an execution with one run tells."""
    meta = {"_metadata": {"execution_id": "e"}}
    step = {"step_key": "g0", **meta}
    return [
        ("workflow_start", meta),
        ("step_start", step),
        ("step_finish", step),
        ("said", {"run": 0}),
        ("workflow_finish", meta),
    ]


def test_runs_that_told_all_violate_nothing() -> None:
    assert telling.runs("x", "e", 1, numbered(*told_by_runs())) == []


@pytest.mark.parametrize("fault", range(5))
def test_what_runs_did_not_tell_or_told_twice_is_noticed(fault: int) -> None:
    events = told_by_runs()
    assert telling.runs("x", "e", 1, numbered(*events, events[fault]))
    del events[fault]
    assert telling.runs("x", "e", 1, numbered(*events))
