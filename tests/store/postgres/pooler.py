"""A real PgBouncer in transaction mode before a server, with its socket in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.pgserver import Server

PORT = 6432
BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SETTINGS = """
[databases]
* = host={server} user=postgres
[pgbouncer]
logfile =
unix_socket_dir = {folder}
pidfile =
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 6
max_client_conn = 500
server_login_retry = 0.1
"""


class Pooler:
    """Runs until `stop`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.folder = Path(tempfile.mkdtemp(prefix="polos-pgb-"))
        self.folder.chmod(0o777)
        text = SETTINGS.format(server=server.socket_folder, folder=self.folder, port=PORT)
        (self.folder / "pgbouncer.ini").write_text(text)
        self.start()

    def start(self) -> None:
        """Start it, and wait until its socket answers."""
        assert BINARY is not None
        other: dict[str, Any] = {}
        if self._server.user is not None:  # it does not run as root either
            other = {"user": self._server.user, "extra_groups": []}
        self._process = subprocess.Popen(
            [BINARY, str(self.folder / "pgbouncer.ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            **other,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if b"process up" in line:
                break
        self._reader = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._reader.start()
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(self.folder / f".s.PGSQL.{PORT}"))

    def kill(self) -> None:
        """End it without a word to its clients."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def stop(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder)

    def url(self, schema: str, *, direct: bool, **options: str) -> str:
        """Return the URL through it; `direct`: with a way to the server itself."""
        if direct:
            options["direct"] = self._server.url()
        given = "".join(f"&{name}={quote(value, safe='')}" for name, value in options.items())
        place = f"host={quote(str(self.folder), safe='')}&port={PORT}"
        return f"postgresql://postgres@/postgres?{place}&pgbouncer=on&schema={schema}{given}"
