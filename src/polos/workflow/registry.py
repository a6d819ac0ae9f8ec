"""The workflows that this process knows, by id."""

import warnings
from typing import Any

from polos.workflow.runnable import Function, Workflow


class Registry:
    """Workflows by id; the last definition of an id wins."""

    def __init__(self) -> None:
        self._workflows: dict[str, Workflow[Any]] = {}
        self._warned: set[str] = set()

    def register(self, workflow: Workflow[Any], *, stacklevel: int = 1) -> None:
        """Add `workflow`; warn once per id if another function goes by it already.

        `stacklevel` tells the warning how far up the definition is. A module that is loaded again
        defines the same function anew, which is no reason to warn.
        """
        known = self._workflows.get(workflow.id)
        self._workflows[workflow.id] = workflow
        if known is None or workflow.id in self._warned:
            return
        if not _is_same_place(known.func, workflow.func):
            self._warned.add(workflow.id)
            warnings.warn(
                f"workflow id {workflow.id!r} is defined twice: {_place(workflow.func)} replaces "
                f"{_place(known.func)}; give one of them another id=",
                RuntimeWarning,
                stacklevel=stacklevel + 1,
            )

    def get(self, workflow_id: str) -> Workflow[Any] | None:
        return self._workflows.get(workflow_id)

    def all(self) -> dict[str, Workflow[Any]]:
        """Return a copy: workflows by id."""
        return dict(self._workflows)

    def ids(self) -> list[str]:
        return list(self._workflows)


# `@workflow` registers at import, so there has to be one that everybody shares.
default = Registry()


def get_workflow(workflow_id: str) -> Workflow[Any] | None:
    """Return the workflow with this id that this process has defined, or None."""
    return default.get(workflow_id)


def get_all_workflows() -> dict[str, Workflow[Any]]:
    """Return a copy of all workflows that this process has defined, by id."""
    return default.all()


def _is_same_place(one: Function, other: Function) -> bool:
    """Whether both come from one definition, loaded twice or from two names of a module."""
    if one is other:
        return True
    codes = getattr(one, "__code__", None), getattr(other, "__code__", None)
    lines = [(code.co_filename, code.co_firstlineno) for code in codes if code]
    names = [(func.__module__, getattr(func, "__qualname__", None)) for func in (one, other)]
    return names[0] == names[1] or (len(lines) == 2 and lines[0] == lines[1])


def _place(func: Function) -> str:
    code = getattr(func, "__code__", None)
    name = f"{func.__module__}.{getattr(func, '__qualname__', repr(func))}"
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name
