"""The example as its users have it: a process that is stopped, killed and started again."""

import asyncio
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from polos import PolosClient
from polos.errors import StoreError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 180
FILES = 120


def make_tree(folder: Path) -> None:
    chance = random.Random(7)
    for number in range(FILES - 5):
        place = (
            folder / f"part{number % 4}" / f"file{number}{chance.choice(['.py', '.md', '.TXT'])}"
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes(chance.choices(b"abc \n\t\xff", k=chance.randrange(400))))
    (folder / "empty").touch()
    (folder / "notes#2").write_text("a key must not end in a number sign and digits\n")
    (folder / "ünï ✓.md").write_text("ünï\n")
    (folder / "two\nlines.txt").write_text("x")
    (folder / "large.bin").write_bytes(b"word " * 500_000)
    # None of these is read.
    (folder / "link").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    for name in (".git", ".venv", "__pycache__", ".polos"):
        (folder / name).mkdir()
        (folder / name / "inside").write_text("skipped")


def expected(folder: Path) -> dict[str, Any]:
    """What `wc` and `sha256sum` say."""
    totals: dict[str, Counter[str]] = {}
    all_files = hashlib.sha256()
    skipped = {".git", ".venv", "__pycache__", ".polos"}
    for path in sorted(folder.rglob("*"), key=lambda path: str(path.relative_to(folder))):
        name = path.relative_to(folder)
        if path.is_symlink() or not path.is_file() or skipped & set(name.parts):
            continue
        data = path.read_bytes()
        found = totals.setdefault(path.suffix.lower() or "(none)", Counter())
        found["files"] += 1
        found["lines"] += data.count(b"\n")
        found["words"] += len(data.split())
        found["size"] += len(data)
        all_files.update(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode())
    return {
        "folder": str(folder),
        "by_extension": totals,
        "failed": {},
        "sha256": all_files.hexdigest(),
    }


class Example:
    """The command on one folder and one database."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder = folder
        self.path = path
        self.url = f"sqlite:///{path}"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *options: str) -> subprocess.Popen[str]:
        arguments = [str(self.folder), "--url", self.url, *options]
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.import_files", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def finish(self, *options: str) -> str:
        process = self.start(*options)
        out, _ = process.communicate(timeout=SECONDS_MAX)
        assert process.returncode == 0, out
        return out

    async def executions(self) -> list[dict[str, Any]]:
        async with PolosClient(f"{self.url}?mode=ro") as client:
            return await client.list_executions()

    async def completed(self) -> bool:
        """Say whether the import has ended, even if its process was killed before it said so."""
        if not self.path.exists():
            return False
        try:
            return [each["status"] for each in await self.executions()] == ["completed"]
        except StoreError:  # killed before the database had its tables
            return False

    async def begun(self, process: subprocess.Popen[str], count: int) -> None:
        """Wait until a process has said so, and until so many files are done."""
        assert "execution" in first_line(process)
        async with PolosClient(f"{self.url}?mode=ro") as client:
            # Nobody rings for what another process does.
            while (await client.list_executions(limit=1))[0]["state"]["done"] < count:  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def demand_one_whole_import(self) -> None:
        """One execution, the right report, every file read in one step of its own."""
        async with PolosClient(f"{self.url}?mode=ro") as client:
            [execution] = await client.list_executions()
            steps = await client.get_steps(execution["id"])
        assert execution["status"] == "completed"
        assert execution["result"] == json.loads(json.dumps(expected(self.folder)))
        assert execution["state"]["done"] == execution["state"]["total"] == FILES
        keys = [step["step_key"] for step in steps]
        assert keys[0] == "list"
        assert len(set(keys)) == len(keys) == FILES + 1
        assert not any(key.endswith("#2") for key in keys)
        assert {step["status"] for step in steps} == {"completed"}


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    folder = tmp_path / "tree"
    make_tree(folder)
    made = Example(folder, tmp_path / "polos.db")
    yield made
    for process in made.started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


async def test_an_undisturbed_run_reports_what_wc_and_sha256sum_say(example: Example) -> None:
    out = example.finish()
    await example.demand_one_whole_import()
    assert out.startswith(f"importing {example.folder} as execution ")
    assert f"SHA-256 of all files: {expected(example.folder)['sha256']}" in out
    assert ".txt" in out
    assert "not read" not in out


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(
    example: Example, seed: int
) -> None:
    chance = random.Random(seed)
    kills = 0
    while not await example.completed():
        process = example.start("--slow", "0.01")
        if chance.random() < 0.7:
            first_line(process)  # else it may die while it opens the database
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=chance.uniform(0.0, 0.25))
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 5
    await example.demand_one_whole_import()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_stopped_it_leaves_nothing_running_and_goes_on(
    example: Example, number: signal.Signals
) -> None:
    process = example.start("--slow", "0.01")
    await example.begun(process, 10)
    process.send_signal(number)
    out, _ = process.communicate(timeout=SECONDS_MAX)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"/{FILES}; run the same command again to go on\n" in out
        assert out.splitlines()[-1].startswith("stopped at ")
    else:
        assert process.returncode == -signal.SIGTERM
    [stopped] = await example.executions()
    assert stopped["status"] == "queued"
    done = stopped["state"]["done"]
    assert 10 <= done < FILES
    resumed = example.finish()
    assert resumed.startswith(f"resuming execution {stopped['id']} at {done}/{FILES}\n")
    await example.demand_one_whole_import()


async def test_a_finished_import_starts_anew(example: Example) -> None:
    first, second = example.finish(), example.finish()
    assert first.splitlines()[1:] == second.splitlines()[1:]
    assert first.splitlines()[0] != second.splitlines()[0]
    assert [each["status"] for each in await example.executions()] == ["completed"] * 2


async def test_a_second_process_joins_in_and_takes_over(example: Example) -> None:
    first = example.start("--slow", "0.02")
    await example.begun(first, 5)
    second = example.start("--slow", "0.001")
    assert first_line(second).startswith("resuming execution ")
    first.kill()
    out, _ = second.communicate(timeout=SECONDS_MAX)
    assert second.returncode == 0, out
    await example.demand_one_whole_import()


async def test_what_cannot_be_read_is_reported_and_stops_nothing(example: Example) -> None:
    odd = os.fsencode(example.folder) + b"/part0/not-unicode-\xff"
    Path(os.fsdecode(odd)).write_text("its name cannot be recorded as JSON")
    process = example.start("--slow", "0.01")
    await example.begun(process, 1)
    last = sorted(example.folder.glob("part3/*"))[-1]
    last.unlink()
    out, _ = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0
    [execution] = await example.executions()
    assert execution["result"]["failed"] == {
        r"part0/not-unicode-\xff": "FileNotFoundError",
        f"part3/{last.name}": "FileNotFoundError",
    }
    assert "not read: 2\n" in out
    assert f"  'part3/{last.name}': FileNotFoundError\n" in out
    assert execution["state"]["done"] == execution["state"]["total"] == FILES + 1


def test_without_rich_it_prints_plain_text(example: Example) -> None:
    code = (
        "import runpy, sys; sys.modules['rich'] = None; "
        "runpy.run_module('examples.import_files', run_name='__main__', alter_sys=True)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(example.folder), "--url", example.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    heading = next(line for line in ran.stdout.splitlines() if line.startswith("extension"))
    assert heading.split() == ["extension", "files", "lines", "words", "bytes"]


def test_what_is_not_a_folder_is_a_usage_error(example: Example) -> None:
    example.folder = example.folder / "empty"
    refused = example.start()
    out, _ = refused.communicate(timeout=SECONDS_MAX)
    assert refused.returncode == 2
    assert "is not a folder" in out


async def test_one_that_was_killed_too_often_is_released_by_who_asks_again(
    example: Example,
) -> None:
    process = example.start("--slow", "0.01")
    await example.begun(process, 3)
    process.kill()
    process.wait()
    with closing(apsw.Connection(str(example.path))) as connection:
        connection.execute(
            "UPDATE execution SET status = 'waiting', wake_at = NULL, blocked_reason = 'too often'"
        )
        connection.execute("UPDATE worker SET stopped_at = 1")
    assert example.finish().startswith("resuming execution ")
    await example.demand_one_whole_import()


def test_a_database_that_cannot_be_used_is_one_line(example: Example) -> None:
    example.path.write_text("not a database\n" * 100)
    process = example.start()
    out, _ = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 1
    assert out.startswith(f"{example.path}: the file is not a healthy SQLite database")
    assert out.count("\n") == 1
