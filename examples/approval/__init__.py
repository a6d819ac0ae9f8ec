"""A durable workflow that asks people before it goes on."""
