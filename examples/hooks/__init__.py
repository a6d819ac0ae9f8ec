"""Hooks: an order is checked and rounded before its workflow, and signed behind it."""
