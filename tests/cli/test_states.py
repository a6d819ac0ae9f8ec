"""`polos state`: patches, and states that new code could not load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from polos.cli.exits import Exit

pytestmark = pytest.mark.slow

SECONDS_MAX = 180
OLD = """
import asyncio, sys
from polos import PolosClient, WorkflowContext, WorkflowState, workflow

class Order(WorkflowState):
    items: list[str] = []
    amount: int = 1

@workflow(id="order", state_schema=Order)
async def order(ctx: WorkflowContext) -> int:
    ctx.state.items.append("lamp")
    await ctx.step.wait_for("nap", days=1)
    return ctx.state.amount

@workflow(id="cart", state_schema=Order, state_key=lambda key: key)
async def cart(ctx: WorkflowContext, key: str) -> None:
    ctx.state.items.append(key)

async def main():
    async with PolosClient(sys.argv[1]) as client:
        await cart(client, "ann")
        handle = await order.invoke(client)
        while (await client.get_execution(handle.id))["status"] != "waiting":
            await asyncio.sleep(0.01)
        print(handle.id)

if __name__ == "__main__":
    asyncio.run(main())
"""
NEW = """
from polos import WorkflowContext, WorkflowState, migrate, workflow

class Order(WorkflowState, version=2):
    lines: list[str] = []
    amount: int = 1

    @migrate(from_version=1)
    @staticmethod
    def _(data):
        data["lines"] = data.pop("FIELD")
        return data

@workflow(id="order", state_schema=Order)
async def order(ctx: WorkflowContext) -> int: ...

@workflow(id="cart", state_schema=Order, state_key=lambda key: key)
async def cart(ctx: WorkflowContext, key: str) -> None: ...
"""


def polos(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "polos.cli", *arguments, "--url", "sqlite:///polos.db"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("states")
    (folder / "old.py").write_text(OLD)
    (folder / "good.py").write_text(NEW.replace("FIELD", "items"))
    (folder / "bad.py").write_text(NEW.replace("FIELD", "things"))
    ran = subprocess.run(
        [sys.executable, "old.py", "sqlite:///polos.db"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )
    return folder, ran.stdout.strip()


def test_migrate_says_what_would_load_and_writes_nothing(waiting: tuple[Path, str]) -> None:
    folder, id_ = waiting
    good = polos("state", "migrate", "--dry-run", "good.py", "--json", folder=folder)
    assert good.returncode == Exit.OK, good.stderr
    found = [json.loads(line) for line in good.stdout.splitlines()]
    assert [(each["execution_id"], each["key"], each["verdict"]) for each in found] == [
        (id_, None, "migrates"),
        (None, "ann", "migrates"),
    ]
    bad = polos("state", "migrate", "--dry-run", "bad.py", folder=folder)
    assert bad.returncode == Exit.DIVERGES
    assert "raised KeyError: 'things'" in bad.stdout
    assert polos("state", "migrate", "bad.py", folder=folder).returncode == Exit.USAGE
    shown = polos("state", id_, "--json", folder=folder)
    assert json.loads(shown.stdout) == {"items": ["lamp"], "amount": 1}


def test_a_patch_is_made_checked_and_recorded(waiting: tuple[Path, str]) -> None:
    folder, id_ = waiting
    set_ = ("--set", '{"amount": 40}')
    done = polos("state", id_, *set_, "--who", "ann", "--why", "typo", folder=folder)
    assert done.returncode == Exit.OK, done.stderr
    assert json.loads(done.stdout) == {"items": ["lamp"], "amount": 40}
    history = polos("state", id_, "--history", folder=folder).stdout.splitlines()
    assert "(patch by ann)" in history[-1]
    blamed = polos("state", id_, "--blame", "amount", folder=folder).stdout
    assert "  by           ann\n  why          typo\n" in blamed
    again = polos("state", id_, *set_, "--if-version", "0", folder=folder)
    assert again.returncode == Exit.CONFLICT
    for wrong in ("[1]", "{"):
        assert polos("state", id_, "--set", wrong, folder=folder).returncode == Exit.USAGE
    assert polos("state", id_, "--why", "typo", folder=folder).returncode == Exit.USAGE
    assert polos("state", "0" * 36, *set_, folder=folder).returncode == Exit.NOT_FOUND
