"""Fills a database with finished executions quickly, by writing rows straight to the schema.

`python -m bench.loader PATH --count 1000000` makes such a file for trying things by hand.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import apsw

from polos.store.sqlite.connection import migrate

# UUIDv7 ids a millisecond apart, so that every B-tree is filled from left to right. What has chance
# in it is materialized, else each use of an id would be another one.
EXECUTIONS = """
WITH RECURSIVE
  n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count),
  made (i, millis, chance) AS MATERIALIZED (
    SELECT i, printf('%012x', :first_ms + i), lower(hex(randomblob(8))) FROM n
  ),
  named (i, id) AS MATERIALIZED (
    SELECT i, substr(millis, 1, 8) || '-' || substr(millis, 9) || '-7' || substr(chance, 1, 3)
      || '-a' || substr(chance, 4, 3) || '-' || substr(chance, 5) FROM made
  )
INSERT INTO execution (
  root_id, id, workflow_id, root_workflow_id, status, attempt, worker_id, payload, payload_type,
  result, result_type, queue_name, created_at, started_at, completed_at
)
SELECT id, id, :workflow, :workflow, 'completed', 1, :worker, '{"steps": 1, "seed": 0}', NULL,
  '0', NULL, :workflow, 1000 * (:first_ms + i), 1000 * (:first_ms + i) + 300,
  1000 * (:first_ms + i) + 900
FROM named
"""
STEPS = """
INSERT INTO step (
  root_id, execution_id, seq, kind, key, asked, call, turn, ok, body, pinned, state_version,
  attempts, started_at, completed_at
)
SELECT root_id, id, 1, 'run', 'step_0', 0, 'd', 1, 1, '0', 1, 0, 1, started_at, completed_at
FROM execution
"""
STATES = """
INSERT INTO state (root_id, execution_id, version, step_key, at, body)
SELECT root_id, id, 0, NULL, created_at, '{"done":0}' FROM execution
"""
WORKER = "00000000-0000-7000-8000-000000000000"
STOPPED = """
INSERT INTO worker (id, host, pid, started_at, stopped_at, takes_queue, workflows)
VALUES (?, 'loader', 1, 0, 1, 0, '[]')
"""


def load(path: Path, count: int, workflow_id: str) -> None:
    """Create a database with `count` completed executions of one step and one state entry each."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = off")
    connection.execute("PRAGMA synchronous = off")
    connection.execute("PRAGMA cache_size = -262144")
    migrate(connection, str(path), read_only=False)
    arguments = {
        "count": count,
        "first_ms": int(time.time() * 1000) - count,
        "workflow": workflow_id,
        "worker": WORKER,
    }
    connection.execute("BEGIN")
    connection.execute(EXECUTIONS, arguments)
    connection.execute(STEPS)
    connection.execute(STATES)
    connection.execute(STOPPED, (WORKER,))
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = wal")
    connection.close()
    # Else the disk would still be writing while others are measured.
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def main() -> None:
    """Make a file and say how long it took."""
    parser = argparse.ArgumentParser(prog="python -m bench.loader", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--workflow", default="bench_steps")
    options = parser.parse_args()
    begun = time.perf_counter()
    load(options.path, options.count, options.workflow)
    seconds = time.perf_counter() - begun
    size = options.path.stat().st_size
    print(f"{options.count:,} executions in {seconds:.1f} s, {size / options.count:.0f} bytes each")


if __name__ == "__main__":
    main()
