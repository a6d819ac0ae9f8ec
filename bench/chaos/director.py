"""The worker processes and their server: started, disturbed by plan, mended and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos.plan import Fault
from bench.pgserver import Server

FREEZE_SECONDS = 13.0
"""Longer than a worker may stand still before the others take over (10 s)."""
NAP_SECONDS = 2.0
AWAY_SECONDS = 3.0
ENDING_SECONDS = 30.0


@dataclass
class Blow:
    """A worker that was killed or frozen, and when."""

    what: Fault
    name: str
    at_us: int


@dataclass
class Worker:
    """One worker process."""

    name: str
    process: subprocess.Popen[bytes]
    frozen: bool = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


@dataclass
class Director:
    """Keeps `count` workers running while it disturbs them."""

    server: Server
    url: str
    folder: Path
    count: int
    workers: list[Worker] = field(default_factory=list[Worker])
    blows: list[Blow] = field(default_factory=list[Blow])
    tally: Counter[str] = field(default_factory=Counter[str])
    complaints: list[str] = field(default_factory=list[str])
    outages: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """When the server was not there, in microseconds."""
    hired: int = 0
    _healing: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def hire(self) -> None:
        """Start one more worker."""
        self.hired += 1
        name = f"w{self.hired}"
        command = [sys.executable, "-m", "bench.chaos.program", self.url, str(self.folder), name]
        with (self.folder / "workers.log").open("ab") as log:
            self.workers.append(Worker(name, subprocess.Popen(command, stdout=log, stderr=log)))

    def _is_ready(self, worker: Worker) -> bool:
        return (self.folder / f"ready-{worker.name}").exists()

    async def run(self, plan: Iterator[tuple[float, Fault, float]], until: float) -> None:
        """Disturb by plan until the moment of the loop's clock."""
        loop = asyncio.get_running_loop()
        for _ in range(self.count):
            self.hire()
        for pause, what, pick in plan:
            if loop.time() + pause > until:
                break
            await asyncio.sleep(pause)
            self._check()
            await self._strike(what, pick)
        await asyncio.sleep(max(0.0, until - loop.time()))
        await self.mend()

    def _check(self) -> None:
        """A worker that ended by itself is a failure, and is replaced."""
        for worker in list(self.workers):
            code = worker.process.poll()
            if code is not None:
                self.complaints.append(f"worker {worker.pid} ended by itself with {code}")
                self.workers.remove(worker)
                self.hire()

    async def _strike(self, what: Fault, pick: float) -> None:
        if what == "restart":
            self.tally[what] += 1
            begun = _now_us()
            await asyncio.to_thread(self.server.restart, "immediate")
            self.outages.append((begun, _now_us()))
            return
        if what == "away":
            self.tally[what] += 1
            begun = _now_us()
            await asyncio.to_thread(self.server.shut, "immediate")
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.to_thread(self.server.start)
            self.outages.append((begun, _now_us()))
            return
        able = [each for each in self.workers if not each.frozen and self._is_ready(each)]
        if len(able) < 2:
            return  # somebody has to be there to notice
        victim = able[int(pick * len(able))]
        self.tally[what] += 1
        if what == "kill":
            self._blow(what, victim)
            victim.process.kill()
            await self._gone(victim)
        elif what == "terminate":
            victim.process.send_signal(signal.SIGTERM)
            await self._gone(victim, code=0)
        elif what == "hold":
            victim.process.send_signal(signal.SIGUSR1)
            self._heal(victim, FREEZE_SECONDS, what)
        else:
            victim.process.send_signal(signal.SIGSTOP)
            if what == "freeze":
                self._blow(what, victim)
            self._heal(victim, FREEZE_SECONDS if what == "freeze" else NAP_SECONDS, what)

    def _blow(self, what: Fault, victim: Worker) -> None:
        self.blows.append(Blow(what, victim.name, _now_us()))

    async def _gone(self, worker: Worker, code: int | None = None) -> None:
        """Wait for the end of a worker, and replace it."""
        self.workers.remove(worker)
        try:
            found = await asyncio.to_thread(worker.process.wait, ENDING_SECONDS)
            if code is not None and found != code:
                self.complaints.append(f"worker {worker.pid} ended with {found}, not {code}")
        except subprocess.TimeoutExpired:
            self.complaints.append(
                f"worker {worker.pid} ({worker.name}, {_state(worker.pid)}) did not end within "
                f"{ENDING_SECONDS:g} s"
            )
            worker.process.send_signal(signal.SIGUSR2)  # it says where it is
            await asyncio.sleep(1.0)
            worker.process.kill()
            worker.process.wait()
        self.hire()

    def _heal(self, worker: Worker, seconds: float, what: Fault) -> None:
        worker.frozen = True
        task = asyncio.create_task(self._thaw(worker, seconds, what))
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)

    async def _thaw(self, worker: Worker, seconds: float, what: Fault) -> None:
        if what == "hold":
            if not await self._has_stopped(worker):
                self.complaints.append(f"worker {worker.pid} ({worker.name}) made no transaction")
            else:
                self._blow(what, worker)
        await asyncio.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            worker.process.send_signal(signal.SIGCONT)
        worker.frozen = False

    async def _has_stopped(self, worker: Worker, seconds: float = 60.0) -> bool:
        """Wait until the worker has stopped itself in a transaction."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if _state(worker.pid) == "T":
                return True
            await asyncio.sleep(0.02)
        return False

    async def mend(self) -> None:
        """Let all go on that is frozen, and have all workers at work."""
        if self._healing:
            await asyncio.wait(self._healing)
        self._check()

    async def end(self) -> None:
        """End all workers by SIGTERM."""
        self._check()
        leaving, self.workers = self.workers, []
        for worker in leaving:
            worker.process.send_signal(signal.SIGTERM)
        for worker in leaving:
            try:
                code = await asyncio.to_thread(worker.process.wait, ENDING_SECONDS)
                if code != 0:
                    self.complaints.append(f"worker {worker.pid} ended with {code} after SIGTERM")
            except subprocess.TimeoutExpired:
                self.complaints.append(f"worker {worker.pid} did not leave after SIGTERM")
                self.slay(worker)

    @staticmethod
    def slay(worker: Worker) -> None:
        """Kill a worker, frozen or not."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
        worker.process.wait()


def _now_us() -> int:
    return time.time_ns() // 1000


def _state(pid: int) -> str:
    """Return the state of a process, as the system spells it: T is stopped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return "gone"
    return stat.rpartition(")")[2].split()[0]
