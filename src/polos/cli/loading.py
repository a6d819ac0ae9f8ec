"""Importing the modules that a command is given, and the workflows that they define."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from polos import Workflow, get_all_workflows
from polos.errors import UsageError


def load(targets: Sequence[str]) -> dict[str, Workflow[Any]]:
    """Import what is named, and return its workflows by id.

    A target is `package.module` or `path/to/file.py`, and stands for every workflow that is
    registered once it is imported; `module:name` stands for one workflow, or a list of them. The
    working directory is on the import path, and so is the folder of a file.
    """
    _put_on_path(Path.cwd())
    named: dict[str, Workflow[Any]] = {}
    all_of_them = False
    for target in targets:
        place, _, name = target.partition(":")
        module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
        if name:
            named |= {each.id: each for each in _attribute(module, name, target)}
        else:
            all_of_them = True
    found = get_all_workflows() if all_of_them else named
    if not found:
        raise UsageError(f"{' '.join(targets)}: no workflow is defined there; expected @workflow")
    return found


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise  # the module is there, what it imports is not
        raise UsageError(
            f"no module {name!r} on the import path, which begins with the working directory; give "
            "package.module or path/to/file.py"
        ) from error
    except (TypeError, ValueError) as error:  # an empty or a relative name
        raise UsageError(f"{name!r} is not the name of a module: {error}") from error


def _load_file(path: Path) -> ModuleType:
    file = path.resolve()
    if not file.is_file():
        raise UsageError(f"no file {path}; give package.module or path/to/file.py")
    known = sys.modules.get(file.stem)
    if known is not None:
        if getattr(known, "__file__", None) == str(file):
            return known
        raise UsageError(f"{path}: another module is called {file.stem!r} already; rename the file")
    _put_on_path(file.parent)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    return module


def _attribute(module: ModuleType, name: str, target: str) -> list[Workflow[Any]]:
    found = getattr(module, name, None)
    if isinstance(found, Workflow):
        return [cast("Workflow[Any]", found)]
    if isinstance(found, Iterable) and not isinstance(found, str | bytes):
        listed = list(cast("Iterable[Any]", found))
        if listed and all(isinstance(each, Workflow) for each in listed):
            return listed
    raise UsageError(f"{target}: expected a workflow or a list of workflows, not {found!r}")
