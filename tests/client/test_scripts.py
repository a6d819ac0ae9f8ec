"""Whole scripts: nothing on stdout, no delay at the end, a client made at import."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import asyncio
from polos import Polos, PolosClient, WorkflowContext, workflow

client = PolosClient()

@workflow
async def echo(ctx: WorkflowContext, text: str) -> str:
    await ctx.step.wait_for("w", seconds=0.01)
    return await ctx.step.run("echo", lambda: text)

@workflow
async def long(ctx: WorkflowContext) -> None:
    await ctx.step.wait_for("w", days=1)
"""

SCRIPTS = {
    "a plain script": """
assert echo.run_sync(client, "x") == "x"
assert echo.run_sync(client, "y") == "y"
""",
    "never closed": """
async def main():
    assert await echo(client, "x") == "x"
    await long.invoke(client)
asyncio.run(main())
""",
    "never closed, local": """
async def main():
    client = PolosClient()
    assert await echo(client, "x") == "x"
    await long.invoke(client)
asyncio.run(main())
""",
    "never closed, a step that hangs in a thread": """
import threading
entered = threading.Event()

@workflow
async def hang(ctx: WorkflowContext) -> None:
    await ctx.step.run("hang", lambda: (entered.set(), threading.Event().wait()))

async def main():
    await hang.invoke(client)
    await asyncio.to_thread(entered.wait)
asyncio.run(main())
""",
    "never opened": "",
    "two loops": """
asyncio.run(echo(client, "x"))
asyncio.run(echo(client, "y"))
""",
    "streams read by plain code": """
from polos import events

@workflow(id="talks")
async def talks(ctx: WorkflowContext) -> str:
    for n in range(2500):
        await ctx.emit(n)
    return "done"

async def start():
    return (await talks.invoke(client)).id

id = client.run_blocking(start)
assert [chunk.data for chunk in client.stream(id)] == list(range(2500))
assert [chunk.data for chunk in client.get_handle(id).stream(offset=0)][-1] == 2499
for chunk in client.stream(id):
    assert echo.run_sync(client, "within") == "within"
    break
told = [each.event_type for each in events.stream_workflow(client, "talks", id)]
assert (told[0], told[-1]) == ("workflow_start", "workflow_finish")
news = [{"data": {"n": n}} for n in range(3)]
client.run_blocking(lambda: events.batch_publish(client, "t", news))
found = []
for event in events.subscribe(client, "t", after=1):
    found.append(event.data["n"])
    if len(found) == 2:
        break
assert found == [1, 2]
left = iter(events.subscribe(client, "t", after=0))  # never closed
assert next(left).data == {"n": 0}
""",
    "the caller has gone": """
async def main():
    async with client:
        try:
            await long(client, timeout=0.05)
        except TimeoutError:
            pass
asyncio.run(main())
""",
    "serving in a loop": """
async def main():
    async with Polos() as polos:
        assert await echo(polos, "x") == "x"
asyncio.run(main())
""",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_ends_by_itself_and_prints_nothing(tmp_path: Path, name: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + SCRIPTS[name] + '\nprint("the end")\n')
    done = subprocess.run(
        [sys.executable, "-X", "dev", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,  # hangs for ever, or does not
        check=False,
    )
    assert done.stdout == "the end\n"
    # The development mode complains of callbacks that a busy machine has kept waiting.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert said == []
    assert done.returncode == 0
