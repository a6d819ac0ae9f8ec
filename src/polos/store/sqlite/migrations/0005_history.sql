-- History of state that is read in milliseconds, forks, resets, and what executions are found by.
--
-- `state.jump` is a delta against the state of the mark before it; a mark is an entry with a jump, or
-- a snapshot. So a long history is read from mark to mark. `state.origin` says once for each attempt
-- who recorded what follows.
-- `cut_step` keeps the journal rows that resets cut off. `field_index` has one row for each tag of an
-- execution and each field of its state that its workflow declared; `value` is encoded so that texts
-- sort like values. `indexed_field` says since which execution a field is in it.

ALTER TABLE state ADD COLUMN jump TEXT;
ALTER TABLE state ADD COLUMN attempt INTEGER;
ALTER TABLE state ADD COLUMN origin TEXT;
CREATE INDEX state_marks ON state (root_id, execution_id, version)
  WHERE jump IS NOT NULL OR substr(body, 1, 1) = '{';

ALTER TABLE execution ADD COLUMN tags TEXT;
ALTER TABLE execution ADD COLUMN forked_from TEXT;

CREATE TABLE cut_step (
  root_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  cut INTEGER NOT NULL,
  cut_at INTEGER NOT NULL,
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
  PRIMARY KEY (root_id, execution_id, cut, seq)
) WITHOUT ROWID;

CREATE TABLE field_index (
  root_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  path TEXT NOT NULL,
  workflow_id TEXT NOT NULL,
  value TEXT NOT NULL,
  number REAL,
  PRIMARY KEY (root_id, execution_id, path)
) WITHOUT ROWID;

CREATE INDEX field_index_by_value ON field_index (workflow_id, path, value, execution_id, number);

CREATE TABLE indexed_field (
  workflow_id TEXT NOT NULL,
  path TEXT NOT NULL,
  since TEXT NOT NULL,
  PRIMARY KEY (workflow_id, path)
) WITHOUT ROWID;
