"""A suspended worker is killed and another process answers: the answer is not lost."""

import json
import signal
from pathlib import Path

import pytest

from polos import AlreadyResumedError, PolosClient
from tests.processes.running import Site, output, site, until

pytestmark = pytest.mark.slow


async def is_open(place: Site, key: str) -> None:
    await until(lambda: place.rows("SELECT key FROM wait") == [(key,)])


async def answered_by_another_process(place: Site) -> None:
    """The worker lives: the answers come from this process, which has no workflow."""
    first = place.start("ask")
    await is_open(place, "one")
    async with PolosClient(place.url) as client:
        (found,) = await client.list_suspensions()
        await client.resume("asked", found["execution_id"], "one", 1)
        await is_open(place, "two")
        await client.resume("asked", found["execution_id"], "two", None)
    assert json.loads(await output(first)) == [1, None]
    assert place.effects() == ["first", f"last {first.pid}"]
    assert place.rows("SELECT id FROM inbox") == []


async def answered_while_the_worker_is_dead(place: Site) -> None:
    first = place.start("ask")
    await is_open(place, "one")
    first.send_signal(signal.SIGKILL)
    first.wait()
    async with PolosClient(place.url) as client:
        (found,) = await client.list_suspensions()
        assert not (await client.resume("asked", found["execution_id"], "one", 1)).early
        assert (await client.resume("asked", found["execution_id"], "two", 2)).early
        with pytest.raises(AlreadyResumedError):
            await client.resume("asked", found["execution_id"], "one", 3)
    second = place.start("ask")
    assert json.loads(await output(second)) == [1, 2]
    assert place.effects() == ["first", f"last {second.pid}"]
    assert place.rows("SELECT key FROM wait") == []


async def test_answered_by_another_process(tmp_path: Path) -> None:
    with site(tmp_path) as place:
        await answered_by_another_process(place)


async def test_answered_while_the_worker_is_dead(tmp_path: Path) -> None:
    with site(tmp_path) as place:
        await answered_while_the_worker_is_dead(place)
