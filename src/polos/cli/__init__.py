"""The command `polos`: looks at executions, asks to cancel or retry them, runs workers, prunes."""
