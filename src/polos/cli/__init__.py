"""The command `polos`: looks at executions of any store, and asks for their cancellation or retry."""
