"""A plain `def` workflow, in a script without an event loop."""
