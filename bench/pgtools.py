"""What PostgreSQL's own tools say of a server: its log counts statements, pgbench measures."""

from __future__ import annotations

import re
from pathlib import Path

from bench.pgserver import Server

LOGGED = {"log_statement": "'all'", "log_line_prefix": "'%a|'"}
"""Settings of a server that logs each statement with the name of the program that sent it."""
_SENT = re.compile(r"^polos\|LOG:  (statement|execute [^:]*): ", re.MULTILINE)
_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_INSERT = "INSERT INTO raw_log (body) VALUES ('{body}');\n"


def statements(server: Server) -> int:
    """Return how many statements clients of Polos have sent to a server with `LOGGED`."""
    return len(_SENT.findall((server.data / "log").read_text(encoding="utf-8", errors="replace")))


def pgbench(server: Server, body: str, *, clients: int, protocol: str, seconds: int) -> float:
    """Return the single-row inserts a second that pgbench makes in the table of `raw_table`."""
    script = Path(server.folder) / "insert.sql"
    script.write_text(_INSERT.format(body=body), encoding="utf-8")
    script.chmod(0o644)
    said = server.run(
        "pgbench",
        *("-h", str(server.socket_folder), "-U", "postgres", "-n", "-f", str(script)),
        *("-c", str(clients), "-j", str(clients), "-M", protocol, "-T", str(seconds), "postgres"),
    )
    found = _RATE.search(said)
    if found is None:
        raise RuntimeError(f"pgbench said no rate: {said!r}")
    return float(found[1])
