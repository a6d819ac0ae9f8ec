-- The root execution's id leads the key of every hot table, so that one tree of executions lies
-- together. Moments are microseconds since the epoch; values are JSON text with a descriptor.
--
-- What the indexes rest on:
--   completed_at IS NULL     the execution has not ended
--   wake_at IS NOT NULL      it may be claimed at that moment: queued, or waiting for a timer
-- `status` itself is in no index and no predicate, so that queued -> running is a HOT update.

CREATE TABLE {s}.execution (
  root_id text NOT NULL,
  id text NOT NULL,
  workflow_id text NOT NULL,
  root_workflow_id text NOT NULL,
  status text NOT NULL,
  attempt bigint NOT NULL,
  worker_id text,
  wake_at bigint,
  payload text,
  payload_type text,
  result text,
  result_type text,
  error text,
  blocked_reason text,
  parent_id text,
  parent_key text,
  awaited boolean NOT NULL DEFAULT false,
  session_id text,
  user_id text,
  deployment_id text,
  queue_name text,
  concurrency_key text,
  batch_id text,
  idempotency_key text,
  run_timeout_seconds double precision,
  retry_count bigint NOT NULL DEFAULT 0,
  crashes bigint NOT NULL DEFAULT 0,
  crash_mark bigint NOT NULL DEFAULT -1,
  created_at bigint NOT NULL,
  started_at bigint,
  completed_at bigint,
  cancel_requested_at bigint,
  cancel_delivered_at bigint,
  PRIMARY KEY (root_id, id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

CREATE INDEX execution_by_id ON {s}.execution (id);
CREATE INDEX execution_by_workflow ON {s}.execution (workflow_id, id);
CREATE INDEX execution_claimable ON {s}.execution (workflow_id, wake_at, id)
  WHERE wake_at IS NOT NULL;
CREATE INDEX execution_owned ON {s}.execution (worker_id, wake_at, id) WHERE completed_at IS NULL;
CREATE UNIQUE INDEX execution_by_idempotency_key ON {s}.execution (workflow_id, idempotency_key)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX execution_to_cancel ON {s}.execution (cancel_requested_at)
  WHERE cancel_requested_at IS NOT NULL AND completed_at IS NULL;
CREATE INDEX execution_timed ON {s}.execution (created_at)
  WHERE run_timeout_seconds IS NOT NULL AND completed_at IS NULL;
CREATE INDEX execution_by_session ON {s}.execution (session_id, id) WHERE session_id IS NOT NULL;
CREATE INDEX execution_in_error ON {s}.execution (id) WHERE error IS NOT NULL;
CREATE INDEX execution_blocked ON {s}.execution (workflow_id) WHERE blocked_reason IS NOT NULL;

CREATE TABLE {s}.step (
  root_id text NOT NULL,
  execution_id text NOT NULL,
  seq bigint NOT NULL,
  kind text NOT NULL,
  key text,
  asked bigint NOT NULL,
  call text,
  turn bigint,
  ok boolean,
  body text,
  type text,
  pinned boolean NOT NULL,
  change text,
  state_version bigint NOT NULL,
  due_at bigint,
  info text,
  attempts bigint NOT NULL,
  started_at bigint NOT NULL,
  completed_at bigint,
  PRIMARY KEY (root_id, execution_id, seq)
) WITH (fillfactor = 90, autovacuum_vacuum_insert_scale_factor = 0.1);

CREATE TABLE {s}.state (
  root_id text NOT NULL,
  execution_id text NOT NULL,
  version bigint NOT NULL,
  step_key text,
  at bigint NOT NULL,
  body text NOT NULL,
  PRIMARY KEY (root_id, execution_id, version)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.1);

-- Rows live for milliseconds: vacuum by their number, not by a share of a table that is empty.
CREATE TABLE {s}.inbox (
  root_id text NOT NULL,
  execution_id text NOT NULL,
  id text NOT NULL,
  kind text NOT NULL,
  ref text NOT NULL,
  at bigint NOT NULL,
  PRIMARY KEY (root_id, execution_id, id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE {s}.worker (
  id text PRIMARY KEY,
  host text NOT NULL,
  pid bigint NOT NULL,
  started_at bigint NOT NULL,
  stopped_at bigint,
  takes_queue boolean NOT NULL,
  workflows text NOT NULL
);

-- A counter that each live worker moves on, beside the advisory lock that dies with its session.
-- No index but the key: every beat is a HOT update.
CREATE TABLE {s}.beat (
  worker_id text PRIMARY KEY,
  lock_key bigint,
  count bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
