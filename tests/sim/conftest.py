"""Every test here is guarded: a registry of its own, and an end to every hang."""

from tests.guards import no_hang, own_registry

__all__ = ["no_hang", "own_registry"]
