"""New code for old state: executions that began with one schema end with the next."""
