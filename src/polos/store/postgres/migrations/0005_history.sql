-- History of state that is read in milliseconds, forks, resets, and what executions are found by.
--
-- `state.jump` is a delta against the state of the mark before it; a mark is an entry with a jump, or
-- a snapshot. So a long history is read from mark to mark. `state.origin` says once for each attempt
-- who recorded what follows.
-- `cut_step` keeps the journal rows that resets cut off. `field_index` has one row for each tag of an
-- execution and each field of its state that its workflow declared; `value` is encoded so that texts
-- sort like values, byte by byte. `indexed_field` says since which execution a field is in it.

ALTER TABLE {s}.state ADD COLUMN jump text;
ALTER TABLE {s}.state ADD COLUMN attempt bigint;
ALTER TABLE {s}.state ADD COLUMN origin text;
CREATE INDEX IF NOT EXISTS state_marks ON {s}.state (root_id, execution_id, version)
  WHERE jump IS NOT NULL OR left(body, 1) = '{';

ALTER TABLE {s}.execution ADD COLUMN tags text;
ALTER TABLE {s}.execution ADD COLUMN forked_from text;

CREATE TABLE {s}.cut_step (
  root_id text NOT NULL,
  execution_id text NOT NULL,
  cut bigint NOT NULL,
  cut_at bigint NOT NULL,
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
  PRIMARY KEY (root_id, execution_id, cut, seq)
);

CREATE TABLE {s}.field_index (
  root_id text NOT NULL,
  execution_id text NOT NULL,
  path text NOT NULL,
  workflow_id text NOT NULL,
  value text COLLATE "C" NOT NULL,
  number double precision,
  PRIMARY KEY (root_id, execution_id, path)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX IF NOT EXISTS field_index_by_value
  ON {s}.field_index (workflow_id, path, value, execution_id) INCLUDE (number);

CREATE TABLE {s}.indexed_field (
  workflow_id text NOT NULL,
  path text NOT NULL,
  since text NOT NULL,
  PRIMARY KEY (workflow_id, path)
) WITH (fillfactor = 50);
