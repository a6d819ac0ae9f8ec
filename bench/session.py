"""One run of the program for one bench: sizes, fresh databases, and where measures go."""

from __future__ import annotations

import asyncio
import gc
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from bench.raw import RawLog, require_full
from bench.report import Measure, Pair, summarize
from polos import PolosClient
from polos.app import LiveNode
from polos.store.sqlite.store import SqliteStore

T = TypeVar("T")
Once = Callable[[PolosClient, RawLog], Awaitable[Pair]]


def url_of(folder: Path, commit: str = "auto") -> str:
    """Return the URL of a folder's database, with the durability spelled out."""
    return f"sqlite:///{quote(str(folder / 'polos.db'))}?synchronous=full&commit={commit}"


async def store_of(client: PolosClient) -> SqliteStore:
    """Return the store behind an open client."""
    return cast(SqliteStore, cast(LiveNode, await client.node()).store)


@asynccontextmanager
async def open_client(folder: Path, commit: str = "auto") -> AsyncIterator[PolosClient]:
    """Open a client on a folder's database."""
    async with PolosClient(url_of(folder, commit)) as client:
        store = await store_of(client)
        require_full(store._writer)  # pyright: ignore[reportPrivateUsage] - trust, but verify
        yield client


@dataclass(frozen=True)
class Session:
    """What a measure is given."""

    bench: str
    runs: int
    quick: bool
    folder: Path
    emit: Callable[[Measure], None]
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None

    def size(self, full: int, quick: int) -> int:
        """Return how many of something to measure."""
        return quick if self.quick else full

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Provide an empty folder on the disk, gone afterwards; garbage is collected first."""
        folder = Path(tempfile.mkdtemp(prefix=f"{self.bench}-", dir=self.folder))
        gc.collect()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on an event loop of its own."""
        with asyncio.Runner(loop_factory=self.loop_factory) as runner:
            return runner.run(job)

    def pairs(self, once: Once, commit: str = "auto") -> list[Pair]:
        """Measure once per run, on a new database with a raw log beside it."""

        async def one(folder: Path) -> Pair:
            with RawLog(folder) as raw:
                async with open_client(folder, commit) as client:
                    return await once(client, raw)

        found: list[Pair] = []
        for _ in range(self.runs):
            with self.fresh() as folder:
                found.append(self.run(one(folder)))
        return found

    def report(
        self, measure: str, unit: str, runs: Sequence[Pair], against: str | None = None
    ) -> None:
        """Hand a finished measure over."""
        self.emit(
            summarize(self.bench, measure, unit, runs, against, judge=not self.quick),
        )


class Watch:
    """How long a block took, by the clock and in processor time of all threads."""

    seconds = 0.0
    cpu_seconds = 0.0


@contextmanager
def stopwatch() -> Iterator[Watch]:
    """Measure the time of a block that ends well."""
    watch = Watch()
    begun, cpu_begun = time.perf_counter(), time.process_time()
    yield watch
    watch.seconds = time.perf_counter() - begun
    watch.cpu_seconds = time.process_time() - cpu_begun


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[98]
