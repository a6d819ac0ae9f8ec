"""`polos stream`: what the code of an execution streams out, as it comes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from polos.cli import output, text
from polos.cli.commands import Id, Json, Url, app
from polos.cli.desk import Desk, run
from polos.cli.exits import Exit
from polos.client.streams import Chunk


@app.command()
def stream(
    context: typer.Context,
    execution_id: Id,
    offset: Annotated[
        int,
        typer.Option(
            "--offset", min=0, metavar="N", help="Begin behind this chunk. Default: all of them."
        ),
    ] = 0,
    step: Annotated[
        str | None,
        typer.Option("--step", metavar="KEY", help="Only of this step, up to its end."),
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print what an execution streams out (ctx.emit, ctx.step.stream), live until it ends.

    Text is printed as it comes, other data as a line of JSON each. With `--json` each chunk is a
    line with its offset and its step, and so is a mark that a step starts again. Ctrl-C leaves; the
    execution goes on.

    **Examples**

    ```
    polos stream 3f9a2c71
    polos stream 3f9a2c71 --step answer
    polos stream 3f9a2c71 --offset 120 --json | jq .data
    ```
    """

    async def job(desk: Desk) -> Exit:
        target = await desk.resolve(execution_id)
        printer = _Printer(desk)
        try:
            async for chunk in desk.client.stream(target, offset=offset, step_key=step):
                printer.show(chunk)
        finally:
            printer.end_line()
        return Exit.OK

    run(context, url, as_json, job)


class _Printer:
    """Prints chunks, text without the ends of lines that it does not have."""

    def __init__(self, desk: Desk) -> None:
        self._out = desk.out
        self._within_line = False

    def show(self, chunk: Chunk) -> None:
        if self._out.json:
            self._out.document(_plain(chunk))
        elif chunk.type == "reset":
            self.end_line()
            key = text.clean(chunk.step_key or "")
            output.note(f"step {key!r} starts again; what came of it so far is void")
        elif isinstance(chunk.data, str):
            self._out.write(_safe(chunk.data) if self._out.terminal else chunk.data)
            if chunk.data:
                self._within_line = not chunk.data.endswith("\n")
        else:
            self.end_line()
            self._out.document(chunk.data)

    def end_line(self) -> None:
        """Begin a new line, unless the last one has ended."""
        if self._within_line:
            self._out.write("\n")
            self._within_line = False


def _safe(content: str) -> str:
    """Escape what a terminal would obey, but for tabs."""
    return "\t".join(text.clean(part, lines=True) for part in content.split("\t"))


def _plain(chunk: Chunk) -> dict[str, Any]:
    return {
        "offset": chunk.offset,
        "type": chunk.type,
        "step_key": chunk.step_key,
        "data": chunk.data,
        "at": chunk.at.isoformat(),
    }
