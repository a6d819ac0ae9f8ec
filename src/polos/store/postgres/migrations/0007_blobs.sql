-- Large values, each stored once under the digest of what it holds. One that was not written to its
-- end has no `chunks` yet. What no execution refers to (`blob_ref`) for a while is removed.

CREATE TABLE {s}.blob (
  hash text PRIMARY KEY,
  size bigint NOT NULL,
  chunks bigint,
  at bigint NOT NULL
);

CREATE TABLE {s}.blob_chunk (
  hash text NOT NULL,
  number bigint NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (hash, number)
);

ALTER TABLE {s}.blob_chunk ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE {s}.blob_ref (
  root_id text NOT NULL,
  execution_id text NOT NULL,
  hash text NOT NULL,
  PRIMARY KEY (root_id, execution_id, hash)
);

CREATE INDEX IF NOT EXISTS blob_ref_by_hash ON {s}.blob_ref (hash);
