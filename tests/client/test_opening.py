# ruff: noqa: ASYNC110 - what is in a database can only be polled
"""Opening and closing: where the database is, when it opens, and how all is handed back."""

import asyncio
import gc
from pathlib import Path

import pytest

from polos import Polos, PolosClient, Worker, WorkflowContext, workflow
from polos.errors import StoreClosedError, UsageError
from polos.testing import Simulation


@workflow(id="opening.echo")
async def echo(ctx: WorkflowContext, text: str) -> str:
    return await ctx.step.run("echo", lambda: text)


@workflow(id="opening.held")
async def held(ctx: WorkflowContext) -> str:
    await ctx.step.run("first", lambda: 1)
    await ctx.step.wait_for("long", days=1)
    return "never"


async def test_making_a_client_does_no_io(tmp_path: Path) -> None:
    client = PolosClient(f"sqlite:///{tmp_path}/sub/polos.db")
    client.get_handle("x")
    assert list(tmp_path.iterdir()) == []
    await client.close()
    assert list(tmp_path.iterdir()) == []


async def test_the_default_is_a_file_that_git_ignores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with PolosClient() as client:
        assert await echo(client, "x") == "x"
    assert (tmp_path / ".polos/polos.db").exists()
    assert (tmp_path / ".polos/.gitignore").read_text() == "*\n"


async def test_a_gitignore_of_the_users_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".polos").mkdir()
    (tmp_path / ".polos/.gitignore").write_text("mine\n")
    async with PolosClient():
        pass
    assert (tmp_path / ".polos/.gitignore").read_text() == "mine\n"


@pytest.mark.parametrize("name", ["POLOS_URL", "POLOS_API_URL"])
async def test_the_environment_names_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, f"sqlite:///{tmp_path}/env.db")
    async with PolosClient():
        pass
    assert (tmp_path / "env.db").exists()
    assert not (tmp_path / ".polos").exists()


async def test_what_is_given_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLOS_API_URL", f"sqlite:///{tmp_path}/api.db")
    monkeypatch.setenv("POLOS_URL", f"sqlite:///{tmp_path}/url.db")
    for client, name in (
        (PolosClient(f"sqlite:///{tmp_path}/given.db"), "given.db"),
        (PolosClient(api_url=f"sqlite:///{tmp_path}/given2.db"), "given2.db"),
        (PolosClient(), "url.db"),
    ):
        async with client:
            assert (tmp_path / name).exists()
    assert not (tmp_path / "api.db").exists()


async def test_a_path_relative_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with PolosClient("sqlite:///sub/dir/x.db"):
        pass
    assert (tmp_path / "sub/dir/x.db").exists()
    assert not (tmp_path / "sub/dir/.gitignore").exists()


async def test_memory_is_for_this_client_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with PolosClient("sqlite://:memory:") as one, PolosClient("sqlite://") as two:
        assert await echo(one, "x") == "x"
        assert len(await one.list_executions()) == 1
        assert await two.list_executions() == []
    assert list(tmp_path.iterdir()) == []


async def test_many_first_calls_open_once(url: str) -> None:
    client = PolosClient(url)
    results = await asyncio.gather(*(echo(client, str(n)) for n in range(20)))
    assert results == [str(n) for n in range(20)]
    await client.close()


async def test_a_closed_client_says_so(url: str) -> None:
    client = PolosClient(url)
    await echo(client, "x")
    await client.close()
    await client.close()
    for call in (echo(client, "y"), client.list_executions(), client.get_execution("x")):
        with pytest.raises(StoreClosedError, match="new PolosClient"):
            await call


async def test_closing_hands_back_what_waits_and_runs(url: str) -> None:
    started = asyncio.Event()

    @workflow(id="opening.body")
    async def body(ctx: WorkflowContext) -> str:
        async def work() -> str:
            started.set()
            for _ in range(20):
                await asyncio.sleep(0)
            return "ended"

        await ctx.step.run("work", work)
        await ctx.step.run("next", work)
        return "never"

    client = PolosClient(url)
    waiting = await held.invoke(client)
    running = await body.invoke(client)
    await started.wait()
    gone = (await client.node()).engine.worker_id
    await client.close()
    async with PolosClient(url) as other:
        found = [await other.get_execution(h.id) for h in (waiting, running)]
        # The next client may run them already.
        owned = [each for each in found if each["assigned_to_worker"] == gone]
        assert all(each["status"] != "running" for each in owned)
        steps = await other.get_steps(running.id)
        # The step that ran was let end, and recorded.
        assert steps[0]["output"] == "ended"


async def test_an_execution_goes_on_with_the_next_client(url: str) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    @workflow(id="opening.resumed")
    async def resumed(ctx: WorkflowContext) -> str:
        await ctx.step.run("first", lambda: ran.append("first"))
        await ctx.step.run("gate", gate.wait)
        return "done"

    one = PolosClient(url)
    handle = await resumed.invoke(one)
    async with asyncio.timeout(100):
        while not ran:
            await asyncio.sleep(0.01)
    closing = asyncio.create_task(one.close())
    gate.set()
    await closing
    async with PolosClient(url) as two:
        assert await two.get_handle(handle.id).result(timeout=100) == "done"
    assert ran == ["first"]


async def test_whoever_waits_for_a_result_is_told_when_the_client_closes(
    simulation: Simulation,
) -> None:
    handle = await held.invoke(simulation.client)
    waiting = asyncio.create_task(handle.result())
    async with asyncio.timeout(100):
        while (await handle.get())["status"] != "waiting":
            await asyncio.sleep(0)
    await simulation.client.close()
    done, _ = await asyncio.wait([waiting], timeout=1)
    waiting.cancel()
    assert done, "the caller waits for ever"
    with pytest.raises(StoreClosedError):
        await waiting


async def test_closing_at_any_moment_does_not_wait_for_the_drain_limit() -> None:
    for turns in range(12):
        async with Simulation(drain_seconds=1000) as simulation:
            await held.invoke(simulation.client)
            for _ in range(turns):
                await asyncio.sleep(0)
            begun = simulation.clock.monotonic()
            await simulation.client.close()
            assert simulation.clock.monotonic() - begun < 500, turns


async def test_closing_goes_on_as_soon_as_the_last_step_has_ended() -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    @workflow(id="opening.last")
    async def last(ctx: WorkflowContext) -> None:
        async def body() -> None:
            started.set()
            await gate.wait()

        await ctx.step.run("body", body)
        await ctx.step.run("next", body)

    async with Simulation(drain_seconds=1000) as simulation:
        await last.invoke(simulation.client)
        await started.wait()
        closing = asyncio.create_task(simulation.client.close())
        await asyncio.sleep(0)
        begun = simulation.clock.monotonic()
        gate.set()
        await closing
        assert simulation.clock.monotonic() - begun < 500


async def test_a_client_belongs_to_one_loop(url: str) -> None:
    async with PolosClient(url) as client:

        def elsewhere() -> None:
            asyncio.run(client.list_executions())

        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.to_thread(elsewhere)


def test_a_client_that_is_never_closed_serves_the_next_loop(url: str) -> None:
    client = PolosClient(url)
    assert asyncio.run(echo(client, "one")) == "one"
    assert asyncio.run(echo(client, "two")) == "two"
    asyncio.run(client.close())
    gc.collect()


async def test_polos_is_a_client_and_a_worker(url: str) -> None:
    async with Polos(url=url) as polos:
        assert isinstance(polos, PolosClient | Polos)
        assert await echo(polos, "x") == "x"
        handle = await polos.invoke("opening.echo", "y")
        assert await handle.result() == "y"
        assert await echo.invoke(polos, "z") != handle


async def test_polos_takes_its_url_where_a_client_does(url: str) -> None:
    async with Polos(url) as polos:
        handle = await echo.invoke(polos, "x")
        await handle.result()
    assert (polos.url, polos.project_id) == (url, None)
    assert Polos("a-project", url=url).project_id == "a-project"


async def test_polos_starts_stops_and_serves(url: str) -> None:
    polos = Polos(url=url)
    await polos.start()
    assert await echo(polos, "x") == "x"
    await polos.stop()
    await polos.stop()
    serving = Polos(url=url)
    task = asyncio.create_task(serving.serve())
    async with asyncio.timeout(100):
        assert await echo(serving, "y") == "y"
        await serving.stop()
        await task


async def test_a_worker_runs_until_it_is_told_to_stop(url: str) -> None:
    client = PolosClient(url)
    worker = Worker(client=client, workflows=[echo])
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(100):
        handle = await echo.invoke(client, "x")
        assert await handle.result() == "x"
        await worker.shutdown()
        await task


async def test_a_worker_makes_its_own_client(url: str) -> None:
    worker = Worker(url=url)
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(100):
        assert await echo(worker.client, "x") == "x"
        await worker.shutdown()
        await task


async def test_a_worker_takes_what_another_client_left_queued(url: str) -> None:
    """A client without room queues its start for itself first; a worker fetches it after that."""
    gate = asyncio.Event()

    @workflow(id="opening.gated")
    async def gated(ctx: WorkflowContext, n: int) -> int:
        await ctx.step.run("gate", gate.wait)
        return n

    async with PolosClient(url) as client:
        node = await client.node()
        node.runner._concurrency = 1
        handles = [await gated.invoke(client, n) for n in range(3)]
        worker = Worker(url=url, workflows=[gated])
        task = asyncio.create_task(worker.run())
        async with asyncio.timeout(100):
            while True:
                found = [await handle.get() for handle in handles]
                if all(each["status"] == "running" for each in found):
                    break
                await asyncio.sleep(0.05)
            assert len({each["assigned_to_worker"] for each in found}) == 2
            gate.set()
            assert [await handle.result() for handle in handles] == [0, 1, 2]
            await worker.shutdown()
            await task


@pytest.mark.parametrize(
    "given",
    [
        {"mode": "sideways"},
        *({"max_concurrent_workflows": each} for each in (0, "x", 2.5, True)),
    ],
)
def test_a_worker_refuses_what_makes_no_sense(given: dict[str, int | str]) -> None:
    with pytest.raises(UsageError, match=next(iter(given))):
        Worker(url="sqlite://", **given)  # pyright: ignore[reportArgumentType]


def test_the_environment_limits_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOS_MAX_CONCURRENT_WORKFLOWS", "7")
    assert Worker(url="sqlite://").max_concurrent_workflows == 7
    assert Polos(url="sqlite://").max_concurrent_workflows == 7
    assert Polos(url="sqlite://", max_concurrent_workflows=3).max_concurrent_workflows == 3
    monkeypatch.setenv("POLOS_MAX_CONCURRENT_WORKFLOWS", "many")
    with pytest.raises(UsageError, match="POLOS_MAX_CONCURRENT_WORKFLOWS"):
        Worker(url="sqlite://")


async def test_a_log_file_gets_the_log(url: str, tmp_path: Path) -> None:
    async with Polos(url=url, log_file=str(tmp_path / "polos.log")) as polos:
        assert await echo(polos, "x") == "x"


def _is_open(path: Path) -> bool:
    opened = Path("/proc/self/fd").iterdir()
    return any(each.is_symlink() and each.readlink() == path for each in opened)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for open files")
async def test_a_client_that_cannot_become_a_worker_leaves_no_store_open(tmp_path: Path) -> None:
    path, obstacle = tmp_path / "polos.db", tmp_path / "polos.db-workers"
    obstacle.touch()  # where the folder of the workers' locks would be
    client = PolosClient(f"sqlite:///{path}")
    with pytest.raises(FileExistsError):
        await client.node()
    assert path.exists()
    assert not _is_open(path)
    obstacle.unlink()
    assert await echo(client, "x") == "x"
    assert _is_open(path)
    await client.close()
    assert not _is_open(path)
