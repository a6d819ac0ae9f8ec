"""Importing the modules that a command works with, as its user names them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from polos.errors import UsageError
from polos.workflow import registry
from polos.workflow.runnable import Workflow

FORMS = "package.module, package.module:name or path/to/file.py"


def load(targets: Sequence[str]) -> list[Workflow[Any]]:
    """Import targets such as `package.module`, `package.module:name`, `path/to/file.py`.

    Returns the workflows that the names stand for (each is one, or a list of them); if a target
    has no name, all that are registered then. UsageError if there are none.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    named: list[Workflow[Any]] = []
    everything = False
    for target in targets:
        place, _, name = target.partition(":")
        module = _import(place)
        if name:
            named += _workflows(target, module, name)
        else:
            everything = True
    found = list(registry.default.all().values()) if everything else named
    if not found:
        raise UsageError(
            f"{', '.join(targets)}: no workflow is registered there; name the modules that define "
            "some with @workflow"
        )
    return found


def _import(place: str) -> ModuleType:
    if place.endswith(".py") or os.sep in place:
        return _import_file(Path(place))
    if not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"{place!r} is not a module; expected {FORMS}")
    return _import_module(place)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}; expected {FORMS}")
    if not path.stem.isidentifier():
        raise UsageError(f"{str(path)!r} cannot be imported: its name is not one of a module")
    sys.path.insert(0, str(path.resolve().parent))
    module = _import_module(path.stem)
    if module.__file__ is None or Path(module.__file__).resolve() != path.resolve():
        raise UsageError(
            f"{str(path)!r} cannot be imported: {path.stem!r} is the name of another module "
            f"({module.__file__ or 'built in'}); rename the file, or name it as package.module"
        )
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise  # the module is there; what it imports is not
        raise UsageError(
            f"there is no module {name!r} (looked for from {str(Path.cwd())!r} on); expected "
            f"{FORMS}"
        ) from error
    except OSError as error:
        raise UsageError(f"importing {name!r} failed: {error}") from error


def _workflows(target: str, module: ModuleType, name: str) -> list[Workflow[Any]]:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    listed = list(cast("list[Any]", value)) if isinstance(value, list | tuple) else [value]
    if not listed or not all(isinstance(each, Workflow) for each in listed):
        raise UsageError(
            f"{target}: {name!r} is neither a workflow nor a list of workflows; name what "
            "@workflow made, or leave the name out for all of the module"
        )
    return listed
