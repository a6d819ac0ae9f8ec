"""A workflow that could go on for ever: it continues as new before its journal grows long."""
