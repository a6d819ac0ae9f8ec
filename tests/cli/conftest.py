"""A database with executions of every status, and the command in this process or another."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from polos.cli.main import main

PROGRAM = Path(__file__).with_name("program.py")
SECONDS_MAX = 180


def refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


@dataclass
class Answer:
    """What one run of the command gave."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out, parse_constant=refuse)


@dataclass
class Seeded:
    """A database nobody runs on, with the ids of its executions by what they are."""

    path: Path
    ids: dict[str, str]
    file: Path
    """What the failed execution lacked."""

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"


Polos = Callable[..., Answer]


@pytest.fixture
def polos(capfd: pytest.CaptureFixture[str]) -> Polos:
    def run(*arguments: str, url: str | None = None) -> Answer:
        given = [*arguments] if url is None else [*arguments, "--url", url]
        with pytest.raises(SystemExit) as ended:
            sys.exit(main(given))
        captured = capfd.readouterr()
        return Answer(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    folder = tmp_path_factory.mktemp("seeded")
    seeded = Seeded(folder / "polos.db", {}, folder / "needed")
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), "seed", seeded.url, str(seeded.file)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    seeded.ids.update(json.loads(ran.stdout))
    assert not seeded.path.with_name("polos.db-wal").exists()
    return seeded


@pytest.fixture
def seeded(template: Seeded, tmp_path: Path) -> Seeded:
    path = tmp_path / "polos.db"
    shutil.copy(template.path, path)
    return Seeded(path, template.ids, template.file)


@dataclass
class Live:
    """A process in which an execution waits at the step `gate` for a word."""

    url: str
    process: subprocess.Popen[str]
    id: str

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def end(self) -> str:
        out, _ = self.process.communicate(timeout=SECONDS_MAX)
        return out.strip()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    url = f"sqlite:///{tmp_path / 'live.db'}"
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "live", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Live(url, process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()
