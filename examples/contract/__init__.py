"""A contract that is sealed with a secret, as a blob, and carried to another store."""
