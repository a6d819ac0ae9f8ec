"""Chaos: real workers killed, frozen and restarted, with their server, and a proof at the end."""
