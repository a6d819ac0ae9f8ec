-- The root execution's id leads the key of every hot table, so that one tree of executions lies
-- together. Moments are microseconds since the epoch; values are JSON text with a descriptor.

CREATE TABLE execution (
  root_id TEXT NOT NULL,
  id TEXT NOT NULL,
  workflow_id TEXT NOT NULL,
  root_workflow_id TEXT NOT NULL,
  status TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  worker_id TEXT,
  wake_at INTEGER,
  payload TEXT,
  payload_type TEXT,
  result TEXT,
  result_type TEXT,
  error TEXT,
  blocked_reason TEXT,
  parent_id TEXT,
  parent_key TEXT,
  awaited INTEGER NOT NULL DEFAULT 0,
  session_id TEXT,
  user_id TEXT,
  deployment_id TEXT,
  queue_name TEXT,
  concurrency_key TEXT,
  batch_id TEXT,
  idempotency_key TEXT,
  run_timeout_seconds REAL,
  retry_count INTEGER NOT NULL DEFAULT 0,
  crashes INTEGER NOT NULL DEFAULT 0,
  crash_mark INTEGER NOT NULL DEFAULT -1,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  completed_at INTEGER,
  cancel_requested_at INTEGER,
  cancel_delivered_at INTEGER,
  PRIMARY KEY (root_id, id)
) WITHOUT ROWID;

CREATE UNIQUE INDEX execution_by_id ON execution (id);
CREATE INDEX execution_open ON execution (status, wake_at)
  WHERE status IN ('queued', 'running', 'waiting');
CREATE INDEX execution_by_workflow ON execution (workflow_id, id);
CREATE UNIQUE INDEX execution_by_idempotency_key ON execution (workflow_id, idempotency_key)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX execution_to_cancel ON execution (cancel_requested_at)
  WHERE cancel_requested_at IS NOT NULL AND status IN ('queued', 'running', 'waiting');

CREATE INDEX execution_timed ON execution (created_at)
  WHERE run_timeout_seconds IS NOT NULL AND status IN ('queued', 'running', 'waiting');
CREATE INDEX execution_blocked ON execution (workflow_id) WHERE blocked_reason IS NOT NULL;

CREATE TABLE step (
  root_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  kind TEXT NOT NULL,
  key TEXT,
  asked INTEGER NOT NULL,
  call TEXT,
  turn INTEGER,
  ok INTEGER,
  body TEXT,
  type TEXT,
  pinned INTEGER NOT NULL,
  change TEXT,
  state_version INTEGER NOT NULL,
  due_at INTEGER,
  info TEXT,
  attempts INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  completed_at INTEGER,
  PRIMARY KEY (root_id, execution_id, seq)
) WITHOUT ROWID;

CREATE TABLE state (
  root_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  step_key TEXT,
  at INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (root_id, execution_id, version)
) WITHOUT ROWID;

CREATE TABLE inbox (
  root_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  id TEXT NOT NULL,
  kind TEXT NOT NULL,
  ref TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (root_id, execution_id, id)
) WITHOUT ROWID;

CREATE TABLE worker (
  id TEXT PRIMARY KEY,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  stopped_at INTEGER,
  takes_queue INTEGER NOT NULL,
  workflows TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX worker_live ON worker (id) WHERE stopped_at IS NULL;
