-- Versions of state schemas, and state that belongs to a key.
--
-- `state.schema_version` is the version of the class that recorded an entry; NULL is version 1.
-- `keyed_state` has the state of a key as the last execution left it, and counts the executions that
-- were started with it (`last`); `state` is NULL as long as none has left any. `key_queue` has the
-- executions of a key that have not ended, in the order of their starts: the first one runs, the
-- others are queued without a `wake_at` until it ends. Whoever changes either locks the row of
-- `keyed_state` first, behind the executions.

ALTER TABLE {s}.state ADD COLUMN schema_version bigint;
ALTER TABLE {s}.execution ADD COLUMN state_key text;

CREATE TABLE {s}.keyed_state (
  workflow_id text NOT NULL,
  state_key text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  state text,
  schema_version bigint,
  updated_at bigint,
  execution_id text,
  last bigint NOT NULL,
  rollback boolean NOT NULL,
  PRIMARY KEY (workflow_id, state_key)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE TABLE {s}.key_queue (
  workflow_id text NOT NULL,
  state_key text COLLATE "C" NOT NULL,
  turn bigint NOT NULL,
  root_id text NOT NULL,
  execution_id text NOT NULL,
  running boolean NOT NULL,
  PRIMARY KEY (workflow_id, state_key, turn)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE UNIQUE INDEX IF NOT EXISTS key_queue_by_execution ON {s}.key_queue (execution_id);
