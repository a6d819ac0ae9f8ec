-- Large values, each stored once under the digest of what it holds. One that was not written to its
-- end has no `chunks` yet. What no execution refers to (`blob_ref`) for a while is removed.

CREATE TABLE blob (
  hash TEXT PRIMARY KEY,
  size INTEGER NOT NULL,
  chunks INTEGER,
  at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE blob_chunk (
  hash TEXT NOT NULL,
  number INTEGER NOT NULL,
  body BLOB NOT NULL
);

CREATE UNIQUE INDEX blob_chunk_by_number ON blob_chunk (hash, number);

CREATE TABLE blob_ref (
  root_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  hash TEXT NOT NULL,
  PRIMARY KEY (root_id, execution_id, hash)
) WITHOUT ROWID;

CREATE INDEX blob_ref_by_hash ON blob_ref (hash);
