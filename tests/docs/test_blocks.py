"""Every Python block of README, ARCHITECTURE, docs/ and examples/ runs.

The blocks of a page run in order and share their names, in a fresh interpreter and an empty
folder. `<!-- skip: reason -->` on the line before a block leaves it out.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import Block, as_module, python_blocks

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("run_page.py")
PAGE_SECONDS_MAX = 180


def pages() -> dict[str, list[Block]]:
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    found = {str(path.relative_to(ROOT)): python_blocks(path.read_text()) for path in sorted(paths)}
    return {name: blocks for name, blocks in found.items() if blocks}


PAGES = pages()
SKIPPED = {
    f"{name}:{block.line}": block.skip
    for name, blocks in PAGES.items()
    for block in blocks
    if block.skip is not None
}


def run_blocks(blocks: list[Block], folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    module = folder / f"{name}.py"
    module.write_text(as_module(blocks))
    spans = [f"{block.line}-{block.end}" for block in blocks]
    environment = {key: value for key, value in os.environ.items() if key[:6] != "POLOS_"}
    return subprocess.run(
        [sys.executable, str(RUNNER), str(module), *spans],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PAGE_SECONDS_MAX,
        check=False,
    )


@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_of_a_page_run(name: str, tmp_path: Path) -> None:
    blocks = [block for block in PAGES[name] if block.skip is None]
    if blocks:
        result = run_blocks(blocks, tmp_path, Path(name).stem.lower().replace("-", "_"))
        assert result.returncode == 0, f"{name}:\n{result.stdout}{result.stderr}"


if SKIPPED:  # an empty list of parameters would itself be reported as a skip

    @pytest.mark.parametrize("place", SKIPPED)
    def test_a_skipped_block_says_why(place: str) -> None:
        reason = SKIPPED[place]
        assert reason, f"{place}: write the reason, as in <!-- skip: needs a server -->"
        pytest.skip(f"{place} is not run: {reason}")


# The runner itself.

SAMPLE = '''\
<!-- skip: only a sketch -->

```python
raise SystemExit("must not run")
```

```python
import asyncio, inspect

def twice(n: int) -> int:
    return 2 * n

asyncio.run(asyncio.sleep(0))
```

```bash
exit 1
```

1. In a list:

   ```python
   queue = asyncio.Queue()
   await queue.put(twice(21))
   ```

````python title="fences"
text = """
```
"""
assert await queue.get() == 42
assert inspect.getsource(twice).startswith("def twice")
assert __name__ == "__main__" and twice.__code__.co_firstlineno == 10
````
'''


def test_blocks_share_names_and_may_await(tmp_path: Path) -> None:
    blocks = python_blocks(SAMPLE)
    assert [(block.line, block.skip) for block in blocks] == [
        (4, "only a sketch"),
        (8, None),
        (23, None),
        (28, None),
    ]
    result = run_blocks(blocks[1:], tmp_path, "sample")
    assert result.returncode == 0, result.stderr


def test_a_failing_block_fails_with_the_line_of_the_page(tmp_path: Path) -> None:
    blocks = python_blocks("Text.\n\n```python\nx = 1\nassert x == 2\n```\n")
    result = run_blocks(blocks, tmp_path, "failing")
    assert result.returncode == 1
    assert 'failing.py", line 5' in result.stderr
