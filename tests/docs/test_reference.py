"""The reference names what there is: public names, errors, variables and exit codes."""

import inspect
import re
from pathlib import Path

import pytest

import polos
import polos.testing
from polos import errors
from polos.cli import exits
from polos.core.model import Kind, Status

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def named(page: str) -> set[str]:
    """Return what stands in code marks on a page, with the names before `(` on their own."""
    marked = re.findall(r"`([^`\n]+)`", (REFERENCE / page).read_text())
    return set(marked) | {re.split(r"[(=]", each)[0] for each in marked}


@pytest.mark.parametrize("module", [polos, polos.testing])
def test_every_public_name_is_in_the_reference(module: object) -> None:
    public: list[str] = getattr(module, "__all__", [])
    assert public
    assert sorted(set(public) - named("api.md")) == []


@pytest.mark.parametrize("cls", [polos.PolosClient, polos.ExecutionHandle])
def test_every_public_method_is_in_the_reference(cls: type) -> None:
    text = (REFERENCE / "api.md").read_text()
    # Not for users: how workflows and handles reach into the client.
    internal = {"node", "use_opener", "start_workflow", "result_of"}
    internal |= {"get_typed_execution"}
    methods = {name for name, _ in inspect.getmembers(cls, callable) if name[0] != "_"}
    assert sorted(name for name in methods - internal if f"{name}(" not in text) == []


STEPS: type = type(polos.WorkflowContext("id", "id").step)


@pytest.mark.parametrize(
    ("heading", "owner"), [("### `PolosClient`", polos.PolosClient), ("### `ctx.step`", STEPS)]
)
def test_arguments_have_the_names_that_the_reference_gives_them(heading: str, owner: type) -> None:
    text = (REFERENCE / "api.md").read_text().partition(heading)[2]
    text = re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^\| .*?`(?:await )?([a-z_]+)\(([^`]*)\)`", text, re.MULTILINE)
    wrong: list[str] = []
    for name, arguments in found:
        known = inspect.signature(getattr(owner, name)).parameters
        given = {each.partition("=")[0].strip(" *") for each in arguments.split(",")}
        wrong += [f"{name}({each})" for each in given - {"", "…"} if each not in known]
    assert len(found) > 5
    assert wrong == []


def test_every_operation_of_a_step_is_in_the_reference() -> None:
    steps: type = type(polos.WorkflowContext("id", "id").step)
    operations = {name for name, _ in inspect.getmembers(steps, callable) if name[0] != "_"}
    assert sorted(operations - named("api.md")) == []


def test_every_error_is_in_the_reference() -> None:
    classes = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    assert sorted(classes - named("errors.md")) == []


def test_every_environment_variable_is_in_the_reference() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    variables = set(re.findall(r'"(POLOS_[A-Z_]+)"', source))
    assert variables
    assert sorted(variables - named("environment.md")) == []


def test_the_exit_codes_of_the_reference_are_those_of_the_command() -> None:
    text = (REFERENCE / "environment.md").read_text().replace("`", "")
    assert [(code, why) for code, why in exits.table() if f"| {code} | {why} |" not in text] == []


def test_every_kind_and_status_is_in_the_reference() -> None:
    assert sorted(set(Kind) - named("journal.md")) == []
    assert sorted(set(Status) - named("api.md")) == []
