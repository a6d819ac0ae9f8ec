-- What comes from outside: answers to suspensions and events, and who waits for them.
--
-- Rows of `wait` stand beside the open rows of the journal that wait for an answer or an event, so
-- that whoever brings one finds them by execution, by topic, or in the list of all suspensions.
-- `topic.last` counts the events of one topic without gaps; nothing is counted for all topics.
-- `topic.cursor` says how far the journals of a tree of executions were read into its topic.

ALTER TABLE inbox ADD COLUMN body TEXT;
ALTER TABLE execution ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

CREATE TABLE wait (
  root_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  topic TEXT,
  filter TEXT,
  body TEXT,
  due_at INTEGER,
  at INTEGER NOT NULL,
  PRIMARY KEY (root_id, execution_id, seq)
) WITHOUT ROWID;

CREATE INDEX wait_by_topic ON wait (topic, at) WHERE topic IS NOT NULL;
CREATE INDEX wait_suspended ON wait (at) WHERE kind = 'suspend';

CREATE TABLE topic (
  name TEXT PRIMARY KEY,
  last INTEGER NOT NULL,
  cursor TEXT
) WITHOUT ROWID;

CREATE TABLE event (
  topic TEXT NOT NULL,
  seq INTEGER NOT NULL,
  id TEXT NOT NULL,
  type TEXT,
  data TEXT NOT NULL,
  root_id TEXT,
  execution_id TEXT,
  at INTEGER NOT NULL,
  PRIMARY KEY (topic, seq)
) WITHOUT ROWID;

CREATE INDEX event_by_time ON event (topic, at);
CREATE INDEX event_by_root ON event (root_id) WHERE root_id IS NOT NULL;

CREATE TABLE event_trigger (
  workflow_id TEXT NOT NULL,
  topic TEXT NOT NULL,
  last INTEGER NOT NULL,
  batch_size INTEGER NOT NULL,
  batch_timeout_seconds REAL,
  PRIMARY KEY (workflow_id, topic)
) WITHOUT ROWID;
