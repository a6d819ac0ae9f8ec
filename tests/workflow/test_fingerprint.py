"""Fingerprints: what changes them, what does not, and that every process makes the same."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from polos import WorkflowContext, workflow
from polos.errors import WorkflowDefinitionError
from polos.workflow.fingerprint import LENGTH, fingerprint
from tests.guards import own_registry

__all__ = ["own_registry"]

PLAIN = """
async def code(ctx, n: int = 1):
    await ctx.step.run("a", print, n)
    return {"a", "b"}
"""
LAYOUT = '''
@decorated(1)
async def code(
    ctx,
    n: int = 1,
):
    """What it does."""

    # and why
    await ctx.step.run( 'a', print, n )
    return {"a",
            "b"}
'''
CHANGES = [
    ("async def", "def"),
    ('"a", print', '"b", print'),
    ("print, n", "print, -n"),
    ("n: int = 1", "n: int = 2"),
    ('{"a", "b"}', '{"a", "c"}'),
    ("    return", '    await ctx.step.uuid("u")\n    return'),
]


def load(folder: Path, text: str) -> Any:
    """Return the function that a file defines, as importing it would."""
    path = folder / f"code_{len(list(folder.iterdir()))}.py"
    path.write_text(text)
    names: dict[str, Any] = {"decorated": lambda n: lambda function: function}
    exec(compile(text, str(path), "exec"), names)
    return names["code"]


def made(text: str) -> Any:
    """Return the function without its source."""
    names: dict[str, Any] = {"decorated": lambda n: lambda function: function}
    exec(compile(text, "<none>", "exec"), names)
    return names["code"]


def test_layout_comments_docstrings_and_decorators_do_not_matter(tmp_path: Path) -> None:
    plain = fingerprint(load(tmp_path, PLAIN))
    assert len(plain) == LENGTH
    assert fingerprint(load(tmp_path, LAYOUT)) == plain
    assert fingerprint(load(tmp_path, "\n\n" + PLAIN)) == plain


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_what_the_code_does_matters(tmp_path: Path, old: str, new: str) -> None:
    changed = PLAIN.replace(old, new)
    if not changed.strip().startswith("async"):
        changed = changed.replace("await ", "")
    assert fingerprint(load(tmp_path, changed)) != fingerprint(load(tmp_path, PLAIN))


def test_the_file_may_have_changed_since_it_was_loaded(tmp_path: Path) -> None:
    function = load(tmp_path, PLAIN)
    path = Path(function.__code__.co_filename)
    path.write_text("def other():\n    pass\n" * 3)
    assert fingerprint(function) == fingerprint(made(PLAIN))


@pytest.mark.parametrize(("old", "new"), [CHANGES[1], CHANGES[4], CHANGES[5]])
def test_without_source_names_and_constants_are_compared(old: str, new: str) -> None:
    assert fingerprint(made(PLAIN)) == fingerprint(made("\n\n" + PLAIN))
    assert fingerprint(made(PLAIN)) != fingerprint(made(PLAIN.replace(old, new)))


def test_an_object_that_is_called_has_a_fingerprint() -> None:
    class Code:
        async def __call__(self, ctx: WorkflowContext) -> None:
            await ctx.step.uuid("a")

    class Other:
        async def __call__(self, ctx: WorkflowContext) -> None:
            await ctx.step.uuid("b")

    assert fingerprint(Code()) == fingerprint(Code())
    assert fingerprint(Code()) != fingerprint(Other())
    assert len(fingerprint(print)) == LENGTH


def test_every_process_makes_the_same(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            from polos.workflow.fingerprint import fingerprint
            names = {}
            exec(compile(sys.argv[1], "<none>", "exec"), names)
            print(fingerprint(names["code"]))
        """)
    )
    lambdas = PLAIN.replace('{"a", "b"}', 'n in {"a", "b", "c", "d"}')
    seen = {
        subprocess.run(
            [sys.executable, str(script), lambdas],
            env={"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in range(4)
    }
    assert seen == {fingerprint(made(lambdas))}


def test_a_workflow_has_its_function_s_fingerprint_or_the_version_it_was_given() -> None:
    @workflow
    async def plain(ctx: WorkflowContext) -> None:
        await ctx.step.uuid("a")

    @workflow(version="2026-11")
    async def named(ctx: WorkflowContext) -> None:
        await ctx.step.uuid("a")

    assert plain.code_version == fingerprint(plain.func)
    assert named.code_version == "2026-11"


@pytest.mark.parametrize("version", ["", "a\n", 7])
def test_a_version_is_a_printable_text(version: Any) -> None:
    with pytest.raises(WorkflowDefinitionError, match="version is a non-empty str"):

        @workflow(version=version)
        async def code(ctx: WorkflowContext) -> None: ...
