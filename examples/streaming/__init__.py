"""Streams a story out while it is written; `python -m examples.streaming`."""
