"""Subprocesses on PostgreSQL under the eye of a test, and a line that can be cut."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import asyncpg

from tests.processes.running import Site

COMMIT = b"COMMIT;"


class PostgresSite(Site):
    """A folder for what the steps leave behind, and a schema."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self.url = self.plain_url = url
        options = parse_qs(urlparse(url).query)
        self.schema = options["schema"][0]
        self.socket = f"{options['host'][0]}/.s.PGSQL.5432" if "host" in options else None
        self.dsn = url.replace(f"&schema={self.schema}", "").replace(f"schema={self.schema}", "")

    def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Read the schema, if it is there; `?` and `$1` stand for arguments."""
        found: list[tuple[Any, ...]] = []

        async def read() -> None:
            connection: Any = await asyncpg.connect(self.dsn)
            try:
                await connection.execute(f'SET search_path TO "{self.schema}"')
                found.extend(tuple(r) for r in await connection.fetch(sql, *arguments))
            finally:
                await connection.close()

        def run() -> None:
            # The server is away, or nobody has made the tables yet.
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                asyncio.run(read())

        # A loop of its own: that of the test is running.
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return found

    def freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)

    def let_go(self, pid: int | None = None) -> None:
        """Let the bodies that wait end, of one process or of all."""
        (self.folder / ("go" if pid is None else f"go-{pid}")).touch()

    def workers(self, pid: int) -> list[tuple[Any, ...]]:
        """Return (id, stopped_at) of the workers that a process has been."""
        return self.rows("SELECT id, stopped_at FROM worker WHERE pid = $1 ORDER BY id", pid)


class Line:
    """A TCP line to a server's socket that can be cut, or cut behind a commit."""

    def __init__(self, place: PostgresSite) -> None:
        assert place.socket is not None
        self._socket = place.socket
        self._schema = place.schema
        self._through = asyncio.Event()
        self._through.set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.lose_answer_to: Callable[[bytes], bool] | None = None
        """Asked for each message of a client: true hands it on and drops the connection, so that
        the client never hears the answer. Forgotten after the first."""
        self.lost = 0
        self.asked = 0
        """Messages of clients that were forwarded: at least one for each question."""

    async def __aenter__(self) -> "Line":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, host: str = "127.0.0.1") -> str:
        return f"postgresql://postgres@{host}:{self.port}/postgres?schema={self._schema}"

    def cut(self) -> None:
        """Forward nothing more, and say nothing: as if the network were gone."""
        self._through.clear()

    def mend(self) -> None:
        """Forward again, what waits included."""
        self._through.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there: Any = None
        try:
            await self._through.wait()
            there = await asyncio.open_unix_connection(self._socket)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, there[1], asks=True, back=writer))
                group.create_task(self._forward(there[0], writer, asks=False, back=there[1]))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, there and there[1]):
                if each is not None:
                    each.close()
                    with contextlib.suppress(OSError):
                        await each.wait_closed()
            self._tasks.discard(task)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        asks: bool,
        back: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(65536):
            await self._through.wait()
            lose = self.lose_answer_to
            self.asked += asks
            lost = asks and lose is not None and lose(data)
            if lost:
                self.lose_answer_to = None
                self.lost += 1
                back.transport.abort()  # before the answer can be there
            writer.write(data)
            await writer.drain()
            if lost:
                # The server reads all that came before it notices that nobody is there.
                writer.write_eof()
                raise ConnectionResetError
        if writer.can_write_eof():
            writer.write_eof()
        raise ConnectionResetError
