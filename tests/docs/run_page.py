"""Runs the blocks of one page in order, as the main module of this process.

`python run_page.py page.py 3-9 14-20`: the file, and first and last line of each block. A block
may use `await` at its top level; all of them share one event loop.
"""

import ast
import asyncio
import inspect
import sys
import types
from pathlib import Path


def main(path: Path, spans: list[str]) -> None:
    lines = path.read_text().split("\n")
    # As in a script of the user's: classes are found again under `__main__`.
    page = types.ModuleType("__main__")
    page.__file__ = str(path)
    sys.modules["__main__"] = page
    sys.path[0] = str(path.parent)
    with asyncio.Runner() as runner:
        for span in spans:
            first, last = map(int, span.split("-"))
            source = "\n" * (first - 1) + "\n".join(lines[first - 1 : last])
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(source, str(path), "exec", flags=flags, dont_inherit=True)
            # Outside the loop unless it awaits: a block may call `asyncio.run` itself.
            result = eval(code, page.__dict__)
            if inspect.iscoroutine(result):
                runner.run(result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
