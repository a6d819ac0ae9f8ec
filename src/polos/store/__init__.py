"""Rows: how records are kept; knows core, decides nothing, never sees a user's function."""
