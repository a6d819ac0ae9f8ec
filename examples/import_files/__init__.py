"""Reads every file of a folder in a durable workflow; `python -m examples.import_files`."""
