"""A short run of chaos: what has to hold holds, and the proof notices when it does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.chaos.plan import Job, expected, faults, jobs
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
