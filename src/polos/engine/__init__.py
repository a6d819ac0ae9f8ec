"""The verbs on records: start, cancel, retry, claim, recover; never a user's function."""
