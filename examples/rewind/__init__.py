"""A trip that is looked at, repaired and gone through again: history, patch, reset, fork."""
