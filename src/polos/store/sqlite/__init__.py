"""The embedded store: one SQLite file (or memory), one writer per process, group commit."""
