-- What comes from outside: answers to suspensions and events, and who waits for them.
--
-- Rows of `wait` stand beside the open rows of the journal that wait for an answer or an event, so
-- that whoever brings one finds them by execution, by topic, or in the list of all suspensions.
-- `topic.last` counts the events of one topic without gaps; nothing is counted for all topics.
-- `topic.cursor` says how far the journals of a tree of executions were read into its topic.

ALTER TABLE {s}.inbox ADD COLUMN body text;
ALTER TABLE {s}.execution ADD COLUMN generation bigint NOT NULL DEFAULT 0;

CREATE TABLE {s}.wait (
  root_id text NOT NULL,
  execution_id text NOT NULL,
  seq bigint NOT NULL,
  kind text NOT NULL,
  key text NOT NULL,
  topic text,
  filter text,
  body text,
  due_at bigint,
  at bigint NOT NULL,
  PRIMARY KEY (root_id, execution_id, seq)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX IF NOT EXISTS wait_by_topic ON {s}.wait (topic, at) WHERE topic IS NOT NULL;
CREATE INDEX IF NOT EXISTS wait_suspended ON {s}.wait (at) WHERE kind = 'suspend';

-- No index but the key: every event of a topic is a HOT update of its counter.
CREATE TABLE {s}.topic (
  name text PRIMARY KEY,
  last bigint NOT NULL,
  cursor text
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE TABLE {s}.event (
  topic text NOT NULL,
  seq bigint NOT NULL,
  id text NOT NULL,
  type text,
  data text NOT NULL,
  root_id text,
  execution_id text,
  at bigint NOT NULL,
  PRIMARY KEY (topic, seq)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.1);

CREATE INDEX IF NOT EXISTS event_by_time ON {s}.event (topic, at);
CREATE INDEX IF NOT EXISTS event_by_root ON {s}.event (root_id) WHERE root_id IS NOT NULL;

CREATE TABLE {s}.event_trigger (
  workflow_id text NOT NULL,
  topic text NOT NULL,
  last bigint NOT NULL,
  batch_size bigint NOT NULL,
  batch_timeout_seconds double precision,
  PRIMARY KEY (workflow_id, topic)
) WITH (fillfactor = 50);
