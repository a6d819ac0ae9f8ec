"""Importing what the user names: modules, names in them, files; and what is said where it fails."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polos.cli import loading
from polos.errors import UsageError
from polos.workflow import registry

MODULE = """
from polos import WorkflowContext, workflow

@workflow
async def one(ctx: WorkflowContext) -> None: ...

@workflow
async def two(ctx: WorkflowContext) -> None: ...

both = [one, two]
other = 7
class Space:
    inner = two
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a package and a file; what was imported is forgotten again."""
    monkeypatch.setattr(registry, "default", registry.Registry())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pack_l").mkdir()
    (tmp_path / "pack_l" / "flows.py").write_text(MODULE)
    (tmp_path / "pack_l" / "lone_l.py").write_text(MODULE)
    (tmp_path / "bare_l.py").write_text("x = 1\n")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"pack_l", "lone_l", "bare_l", "broken_l", "needs_l"}:
            del sys.modules[name]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["pack_l.flows"], ["one", "two"]),
        (["pack_l/lone_l.py"], ["one", "two"]),
        (["./pack_l/lone_l.py:two"], ["two"]),
        (["pack_l.flows:one"], ["one"]),
        (["pack_l.flows:both"], ["one", "two"]),
        (["pack_l.flows:Space.inner"], ["two"]),
        (["pack_l.flows:two", "pack_l.flows:one"], ["two", "one"]),
        (["bare_l", "pack_l.flows:one"], ["one", "two"]),
    ],
)
def test_targets_are_imported(targets: list[str], expected: list[str]) -> None:
    assert [each.id for each in loading.load(targets)] == expected


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere_l", "there is no module 'nowhere_l'"),
        ("pack_l.nowhere", "there is no module 'pack_l.nowhere'"),
        ("pack_l/nowhere.py", "there is no file 'pack_l/nowhere.py'"),
        ("not-a-name", "'not-a-name' is not a module"),
        ("", "'' is not a module"),
        ("bare_l", "bare_l: no workflow is registered there"),
        ("pack_l.flows:other", "'other' is neither a workflow nor a list"),
        ("pack_l.flows:gone.too", "'gone.too' is neither a workflow nor a list"),
    ],
)
def test_what_cannot_be_served_is_a_usage_error(target: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        loading.load([target])
    assert said in str(refused.value)


def test_a_file_with_the_name_of_another_module_is_refused(folder: Path) -> None:
    (folder / "json.py").write_text(MODULE)
    with pytest.raises(UsageError, match="'json' is the name of another module"):
        loading.load(["./json.py"])
    (folder / "a-b.py").write_text(MODULE)
    with pytest.raises(UsageError, match="its name is not one of a module"):
        loading.load(["a-b.py"])


def test_the_modules_own_errors_are_not_hidden(folder: Path) -> None:
    (folder / "broken_l.py").write_text("raise RuntimeError('boom')\n")
    with pytest.raises(RuntimeError, match="boom"):
        loading.load(["broken_l"])
    (folder / "needs_l.py").write_text("import nowhere_l\n")
    with pytest.raises(ModuleNotFoundError, match="nowhere_l"):
        loading.load(["needs_l"])
    (folder / "needs_l.py").write_text("open('nowhere')\n")
    with pytest.raises(UsageError, match=r"importing 'needs_l' failed: .*nowhere"):
        loading.load(["needs_l"])
