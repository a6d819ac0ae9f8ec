"""The command `polos`: looks at executions of a store, and asks to cancel or retry them."""
