"""Every error ends with a code, and every code is explained."""

import pytest

from polos import errors
from polos.cli import exits
from polos.cli.exits import Exit
from tests.cli.conftest import Polos


def every_error() -> list[type[errors.PolosError]]:
    found: list[type[errors.PolosError]] = []
    todo = [errors.PolosError]
    while todo:
        cls = todo.pop()
        found.append(cls)
        todo += cls.__subclasses__()
    return sorted(found, key=lambda cls: cls.__name__)


def code_of(cls: type[errors.PolosError]) -> Exit:
    return exits.of(cls.__new__(cls))


@pytest.mark.parametrize("cls", every_error())
def test_every_error_has_the_code_of_its_branch(cls: type[errors.PolosError]) -> None:
    expected = Exit.FAILED
    for branch, code in (
        (errors.ExecutionNotFoundError, Exit.NOT_FOUND),
        (errors.StepNotFoundError, Exit.NOT_FOUND),
        (errors.ConflictError, Exit.CONFLICT),
        (errors.UsageError, Exit.USAGE),
        (errors.StoreError, Exit.STORE),
    ):
        if issubclass(cls, branch):
            expected = code
    assert code_of(cls) == expected


def test_a_file_out_of_reach_is_an_error_of_the_store() -> None:
    assert exits.of(PermissionError("no")) == Exit.STORE


def test_every_code_has_a_meaning_which_help_prints(polos: Polos) -> None:
    assert set(exits.MEANINGS) == set(Exit)
    shown = " ".join(polos("--help").out.split())
    for code, meaning in exits.table():
        assert f"{code} {meaning}" in shown
