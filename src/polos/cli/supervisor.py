"""Keeps a number of worker processes running until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

from polos.cli.exits import Exit
from polos.core.clock import Clock

log = logging.getLogger("polos.supervisor")

STEADY_SECONDS = 10.0
"""A process that lived for so long is started again at once."""
PAUSE_SECONDS = 0.25
"""Doubles with each process in a row that did not; at most `PAUSE_SECONDS_MAX`."""
PAUSE_SECONDS_MAX = 30.0
GRACE_SECONDS = 10.0
"""Past its drain limit a process may take so long to leave; then it is killed."""


class Supervisor:
    """Starts processes of one command line, and new ones for those that end unexpectedly.

    SIGINT and SIGTERM reach them as SIGTERM, and it waits for their end; a second SIGINT or
    SIGTERM kills them. Each has a session of its own, so that Ctrl-C of a terminal comes here
    only, and a pipe as standard input, which ends with this process.
    """

    def __init__(
        self, command: Sequence[str], count: int, drain_seconds: float, clock: Clock
    ) -> None:
        self._command = command
        self._count = count
        self._limit = drain_seconds + GRACE_SECONDS
        self._clock = clock
        self._stopping = asyncio.Event()
        self._running: set[Process] = set()
        self._verdict = Exit.OK

    async def run(self) -> Exit:
        """Keep the processes running until a signal; returns how it ended."""
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, self._on_signal)
        log.info("starting %s worker processes", self._count)
        await asyncio.gather(*(self._keep(n + 1) for n in range(self._count)))
        log.info("all worker processes have ended")
        return self._verdict

    def _on_signal(self) -> None:
        if not self._stopping.is_set():
            log.info("stopping %s worker processes; once more kills them", len(self._running))
            self._stop()
            return
        self._verdict = Exit.INTERRUPTED
        for process in self._running:
            _send(process, signal.SIGKILL)

    def _stop(self) -> None:
        self._stopping.set()
        for process in self._running:
            _send(process, signal.SIGTERM)

    async def _keep(self, number: int) -> None:
        short_lives = 0
        while not self._stopping.is_set():
            begun = self._clock.monotonic()
            pid, code = await self._run_one(number)
            if self._stopping.is_set():
                return
            if code == Exit.USAGE:
                # It has said why, and another one would say the same.
                self._verdict = Exit.USAGE
                self._stop()
                return
            lived = self._clock.monotonic() - begun
            short_lives = 0 if lived >= STEADY_SECONDS or code == 0 else short_lives + 1
            pause = pause_seconds(short_lives)
            log.warning(
                "worker process %s (pid %s) %s; a new one starts in %g s",
                number,
                pid,
                _how(code),
                pause,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_one(self, number: int) -> tuple[int, int]:
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, start_new_session=True
        )
        self._running.add(process)
        log.info("worker process %s started (pid %s)", number, process.pid)
        if self._stopping.is_set():  # the signal came while it was started
            _send(process, signal.SIGTERM)
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ended.done():
            await self._see_off(process, ended)
        self._running.discard(process)
        return process.pid, await ended

    async def _see_off(self, process: Process, ended: asyncio.Future[int]) -> None:
        await asyncio.wait([ended], timeout=self._limit)
        if not ended.done():
            log.error("worker process (pid %s) does not end; it is killed", process.pid)
            _send(process, signal.SIGKILL)
        code = await ended
        # A process that had not come as far as to serve dies of the signal itself.
        if code not in {0, -signal.SIGTERM} and self._verdict is Exit.OK:
            log.error("worker process (pid %s) %s", process.pid, _how(code))
            self._verdict = Exit.FAILED


def pause_seconds(short_lives: int) -> float:
    """Return the pause after so many processes in a row that died early."""
    if short_lives == 0:
        return 0.0
    doublings = min(short_lives - 1, 20)
    return min(PAUSE_SECONDS * 2**doublings, PAUSE_SECONDS_MAX)


def _how(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _send(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
