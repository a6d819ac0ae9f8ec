"""`polos stream`: what it prints, for people and for programs."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos import PolosClient, WorkflowContext, workflow
from tests.cli.conftest import Polos
from tests.guards import no_hang, own_registry

__all__ = ["no_hang", "own_registry"]


@pytest.fixture
async def streamed(tmp_path: Path) -> tuple[str, str]:
    """Return the URL of a store, and the id of an execution that has streamed."""
    tries: list[int] = []

    async def words() -> AsyncIterator[str]:
        tries.append(1)
        yield "to "
        if len(tries) < 2:
            raise ValueError("no")
        yield "be"

    @workflow(id="talks")
    async def talks(ctx: WorkflowContext) -> None:
        ctx.emit({"percent": 0})
        await ctx.step.stream("words", words, base_delay=0)
        ctx.emit({"percent": 100})

    url = f"sqlite:///{tmp_path / 'streams.db'}"
    async with PolosClient(url) as client:
        handle = await talks.invoke(client)
        await handle.result()
    return url, handle.id


def test_text_is_printed_as_it_is_and_data_on_lines(
    polos: Polos, streamed: tuple[str, str]
) -> None:
    url, id = streamed
    answer = polos("stream", id, url=url)
    assert answer.out == '{"percent": 0}\nto \nto be\n{"percent": 100}\n'
    assert "step 'words' starts again" in answer.err
    assert answer.code == 0
    assert polos("stream", id[-8:], "--step", "words", url=url).out == "to \nto be\n"


def test_json_has_a_line_for_each_chunk_and_goes_on_behind_an_offset(
    polos: Polos, streamed: tuple[str, str]
) -> None:
    url, id = streamed
    lines = [json.loads(line) for line in polos("stream", id, "--json", url=url).out.splitlines()]
    assert [(line["type"], line["step_key"], line["data"]) for line in lines] == [
        ("chunk", None, {"percent": 0}),
        ("chunk", "words", "to "),
        ("reset", "words", None),
        ("chunk", "words", "to "),
        ("chunk", "words", "be"),
        ("chunk", None, {"percent": 100}),
    ]
    behind = polos("stream", id, "--json", "--offset", str(lines[3]["offset"]), url=url)
    assert [json.loads(line) for line in behind.out.splitlines()] == lines[4:]


def test_an_unknown_execution_is_an_error(polos: Polos, streamed: tuple[str, str]) -> None:
    answer = polos("stream", "nobody-here", url=streamed[0])
    assert answer.code != 0
    assert "does not exist" in answer.err
