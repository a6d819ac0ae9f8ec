"""`polos check`, as a pipeline calls it: in a process of its own, on the database of another."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from polos.cli.exits import Exit
from polos.store.postgres.links import connect
from polos.store.postgres.location import Location
from tests.cli.conftest import SECONDS_MAX, Answer
from tests.postgres import fresh_url, stop_servers

__all__ = ["stop_servers"]

pytestmark = pytest.mark.slow

SHOP = """
import asyncio, sys
from polos import PolosClient, WorkflowContext, workflow

print("hello from the module")

async def noop(): ...

@workflow
async def order(ctx: WorkflowContext) -> None:
    print("hello from the workflow")
    await ctx.step.run("reserve", noop)
    await ctx.step.run("pay", noop)
    await ctx.step.wait_for("delivery", days=3)

@workflow
async def remind(ctx: WorkflowContext) -> None:
    await ctx.step.wait_for("pause", days=1)

some = [remind]

async def main():
    async with PolosClient(sys.argv[1], deployment_id="blue") as client:
        for each in (order, remind):
            handle = await each.invoke(client)
            while (await client.get_execution(handle.id))["status"] != "waiting":
                await asyncio.sleep(0)

if __name__ == "__main__":
    asyncio.run(main())
"""
CHANGED = SHOP.replace('"pay"', '"charge"')
PATCHED = SHOP.replace(
    'await ctx.step.run("pay", noop)',
    'await ctx.step.run("charge" if ctx.patched("charge") else "pay", noop)',
)


def run(folder: Path, *arguments: str) -> Answer:
    environment = {key: value for key, value in os.environ.items() if key[:6] != "POLOS_"}
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return Answer(ran.returncode, ran.stdout, ran.stderr)


def check(folder: Path, *arguments: str, url: str | None = None) -> Answer:
    url = url or f"sqlite:///{folder / 'polos.db'}"
    return run(folder, "-m", "polos.cli", "check", *arguments, "--against", url)


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.out.splitlines()]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a database that holds two live executions, and code to check."""
    folder = tmp_path_factory.mktemp("shop")
    for name, text in (("shop", SHOP), ("changed", CHANGED), ("patched", PATCHED)):
        (folder / f"{name}.py").write_text(text)
    (folder / "empty.py").write_text("")
    (folder / "lacking.py").write_text("import something_that_is_not_there\n")
    ran = run(folder, "shop.py", f"sqlite:///{folder / 'polos.db'}")
    assert ran.code == 0, ran.err
    return folder


@pytest.mark.parametrize("target", ["shop", "shop.py", "./shop.py", "patched", "shop:order"])
def test_code_that_fits_ends_with_0(shop: Path, target: str) -> None:
    answer = check(shop, target)
    assert answer.code == Exit.OK, answer.err
    assert answer.out == ""
    count = 1 if ":" in target else 2
    assert f"{count} live executions: {count} ok" in answer.err


def test_code_that_does_not_fit_ends_with_its_own_code_and_names_the_step(shop: Path) -> None:
    answer = check(shop, "changed")
    assert answer.code == Exit.DIVERGES
    heading, line = answer.out.splitlines()
    assert heading.split() == ["ID", "WORKFLOW", "STATUS", "VERDICT", "STEP", "REASON"]
    assert line.split()[1:5] == ["order", "waiting", "diverges", "charge"]
    assert line.endswith("the code asks for it where the journal goes on with step 'pay'")
    assert "2 live executions: 1 ok, 1 diverges" in answer.err


def test_json_is_a_line_for_each_execution_and_nothing_else(shop: Path) -> None:
    found = lines(check(shop, "changed", "--json"))
    assert [(each["workflow_id"], each["verdict"], each["step_key"]) for each in found] == [
        ("remind", "ok", None),
        ("order", "diverges", "charge"),
    ]
    assert {each["deployment_id"] for each in found} == {"blue"}
    assert {len(each["code_version"]) for each in found} == {16}


def test_what_no_module_registers_is_listed_and_fails_nothing(shop: Path) -> None:
    (shop / "half.py").write_text(SHOP.replace("@workflow\nasync def order", "async def order"))
    answer = check(shop, "half", "--json")
    assert answer.code == Exit.OK
    assert {each["workflow_id"]: each["verdict"] for each in lines(answer)} == {
        "order": "unregistered",
        "remind": "ok",
    }


@pytest.mark.parametrize(
    ("options", "workflows"),
    [
        (["changed:some"], ["remind"]),
        (["changed:some", "changed:order"], ["remind", "order"]),
        (["changed", "--workflow", "order"], ["order"]),
        (["changed", "--limit", "1"], ["remind"]),
    ],
)
def test_only_some(shop: Path, options: list[str], workflows: list[str]) -> None:
    answer = check(shop, *options, "--json")
    assert [each["workflow_id"] for each in lines(answer)] == workflows
    assert ("--limit 1 is reached" in answer.err) == ("--limit" in options)


def test_nothing_is_written(shop: Path) -> None:
    path = shop / "polos.db"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY) as connection:
        workers = connection.execute("SELECT * FROM worker").fetchall()
    assert check(shop, "changed").code == Exit.DIVERGES
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY) as connection:
        assert connection.execute("SELECT * FROM worker").fetchall() == workers


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere", "there is no module 'nowhere'"),
        ("shop.nowhere", "there is no module 'shop.nowhere'"),
        (".shop", "'.shop' is not a module"),
        ("nowhere.py", "there is no file 'nowhere.py'"),
        ("shop:nowhere", "shop:nowhere: 'nowhere' is neither a workflow nor a list"),
        ("shop:asyncio", "shop:asyncio: 'asyncio' is neither a workflow"),
        ("shop:noop", "shop:noop: 'noop' is neither a workflow"),
        ("empty", "empty: no workflow is registered there"),
        ("json.py", "there is no file 'json.py'"),
    ],
)
def test_a_target_that_cannot_be_used_is_refused(shop: Path, target: str, message: str) -> None:
    answer = check(shop, target)
    assert answer.code == Exit.USAGE
    assert message in " ".join(answer.err.split())
    assert "Traceback" not in answer.err


def test_a_file_may_not_hide_another_module(shop: Path) -> None:
    (shop / "sub").mkdir(exist_ok=True)
    (shop / "sub" / "asyncio.py").write_text(SHOP)
    answer = check(shop, "sub/asyncio.py")
    assert answer.code == Exit.USAGE
    assert "'asyncio' is the name of another module" in answer.err


def test_an_error_of_the_module_is_shown_whole(shop: Path) -> None:
    answer = check(shop, "lacking")
    assert answer.code == 1
    assert "ModuleNotFoundError: No module named 'something_that_is_not_there'" in answer.err


def test_without_a_database_there_is_nothing_to_check(shop: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    answer = run(shop, "-m", "polos.cli", "check", "shop", "--against", url)
    assert answer.code == Exit.STORE
    assert not (tmp_path / "none.db").exists()


async def rows_of(url: str) -> list[str]:
    location = Location(url)
    assert location.direct is not None
    connection = await connect(location, location.direct)
    found = [
        await connection.fetch(f'SELECT t::text FROM "{location.schema}".{table} t ORDER BY 1')
        for table in ("execution", "step", "state", "worker", "beat")
    ]
    await connection.close()
    return [record[0] for records in found for record in records]


async def test_a_postgresql_store_is_only_looked_at(shop: Path) -> None:
    url = fresh_url()
    answer = check(shop, "shop", url=url)
    assert answer.code == Exit.STORE  # nobody has worked there yet, and nothing is created
    ran = run(shop, "shop.py", url)
    assert ran.code == 0, ran.err
    before = await rows_of(url)
    assert before
    assert check(shop, "shop", url=url).code == Exit.OK
    found = lines(check(shop, "changed", "--json", url=url))
    assert [(each["workflow_id"], each["verdict"]) for each in found] == [
        ("remind", "ok"),
        ("order", "diverges"),
    ]
    assert await rows_of(url) == before
