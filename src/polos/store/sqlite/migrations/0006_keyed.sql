-- Versions of state schemas, and state that belongs to a key.
--
-- `state.schema_version` is the version of the class that recorded an entry; NULL is version 1.
-- `keyed_state` has the state of a key as the last execution left it, and counts the executions that
-- were started with it (`last`); `state` is NULL as long as none has left any. `key_queue` has the
-- executions of a key that have not ended, in the order of their starts: the first one runs, the
-- others are queued without a `wake_at` until it ends.

ALTER TABLE state ADD COLUMN schema_version INTEGER;
ALTER TABLE execution ADD COLUMN state_key TEXT;

CREATE TABLE keyed_state (
  workflow_id TEXT NOT NULL,
  state_key TEXT NOT NULL,
  version INTEGER NOT NULL,
  state TEXT,
  schema_version INTEGER,
  updated_at INTEGER,
  execution_id TEXT,
  last INTEGER NOT NULL,
  rollback INTEGER NOT NULL,
  PRIMARY KEY (workflow_id, state_key)
) WITHOUT ROWID;

CREATE TABLE key_queue (
  workflow_id TEXT NOT NULL,
  state_key TEXT NOT NULL,
  turn INTEGER NOT NULL,
  root_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  running INTEGER NOT NULL,
  PRIMARY KEY (workflow_id, state_key, turn)
) WITHOUT ROWID;

CREATE UNIQUE INDEX key_queue_by_execution ON key_queue (execution_id);
