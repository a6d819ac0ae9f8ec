"""Versions of state classes: the base class that authors subclass, and its chain of migrations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, cast

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from typing_extensions import Unpack

from polos.errors import InvalidStateError, StateSchemaError

VERSION_KEY = "$version"
"""In a dict that is given as a state: the version of the class that its fields are of."""

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


class Migration(staticmethod):  # pyright: ignore[reportMissingTypeArgument] - its call is typed below
    """One function of a chain; as a `staticmethod` it is no field and no private attribute."""

    def __init__(self, function: Any, from_version: int, other: Migration | None) -> None:
        self.takes_class = isinstance(function, classmethod)
        super().__init__(_plain(function))
        self.from_version = from_version
        self.other = other
        """The one that stood under the same name before: all of them may be called `_`."""

    def bound(self, cls: type[Any]) -> Upgrade:
        """Return the function of a dict."""
        function = cast("Any", self.__func__)
        return function.__get__(None, cls) if not self.takes_class else function.__get__(cls, cls)


def migrate(*, from_version: int) -> Callable[[Any], Any]:
    """Make a function in a state class the step from one version of the class to the next.

    ```python
    class Cart(WorkflowState, version=3):
        lines: list[Line] = []

        @migrate(from_version=1)
        @staticmethod
        def _(data: dict) -> dict:  # 1 -> 2
            data["lines"] = data.pop("items")
            return data

        @migrate(from_version=2)
        @staticmethod
        def _(data: dict) -> dict:  # 2 -> 3
            data["lines"] = [{"sku": sku, "count": 1} for sku in data["lines"]]
            return data
    ```
    `data` is the recorded state as plain JSON data, by field name; it may be changed and returned.
    The function must depend on nothing else: it is called each time that a state of its version is
    loaded. What it returns is validated by the class at the end of the chain. Raises
    `StateSchemaError` if `from_version` is no int of 1 or more.
    """
    if type(from_version) is not int or from_version < 1:
        raise StateSchemaError(
            f"@migrate(from_version={from_version!r}): expected an int of 1 or more, the version "
            "that the function is given"
        )
    frame = inspect.currentframe()
    around = frame.f_back.f_locals if frame is not None and frame.f_back is not None else {}

    def decorate(function: Any) -> Any:
        inner = _plain(function)
        if not callable(inner):
            raise StateSchemaError(
                f"@migrate(from_version={from_version}) makes a function a migration, not "
                f"{function!r}"
            )
        before = around.get(getattr(inner, "__name__", ""))
        other = before if isinstance(before, Migration) else None
        return Migration(function, from_version, other)

    return decorate


class WorkflowState(BaseModel):
    """Base of a workflow's typed state.

    Subclass it, give every field a type that JSON can hold and a default value, and name the class
    as `state_schema` of the workflow. What `ctx.state` holds is recorded with every step and comes
    back after a crash. Assignments are validated. Private attributes are not state.

    `class S(WorkflowState, version=2)` says that its fields have changed since version 1, which is
    that of a class that says nothing; `migrate` makes the functions that lead from one version to
    the next. A subclass has the version and the migrations of its base, and adds its own.
    """

    model_config = ConfigDict(
        validate_assignment=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
        ser_json_inf_nan="constants",
    )

    __state_version__: ClassVar[int] = 1
    __state_migrations__: ClassVar[Mapping[int, Upgrade]] = MappingProxyType({})

    def __init_subclass__(cls, *, version: int | None = None, **config: Unpack[ConfigDict]) -> None:
        """Raise `StateSchemaError` if the chain of migrations has a gap."""
        super().__init_subclass__(**config)
        found = _own(cls)
        if version is None and not found:
            return
        cls.__state_version__ = _checked(cls, cls.__state_version__ if version is None else version)
        cls.__state_migrations__ = MappingProxyType({**cls.__state_migrations__, **found})
        _check_chain(cls)


def _plain(function: Any) -> Any:
    return getattr(function, "__func__", function)


def _own(cls: type[Any]) -> dict[int, Upgrade]:
    found: dict[int, Upgrade] = {}
    for value in vars(cls).values():
        inner: Any = _plain(value) if isinstance(value, classmethod) else value
        each = inner if isinstance(inner, Migration) else None
        while each is not None:
            if inner is not value:
                each.takes_class = True
            if each.from_version in found:
                raise StateSchemaError(
                    f"state schema {cls.__name__} has two migrations from version "
                    f"{each.from_version}; remove one"
                )
            found[each.from_version] = _of_one_dict(cls, each.from_version, each.bound(cls))
            each = each.other
    return found


def _of_one_dict(cls: type[Any], version: int, function: Upgrade) -> Upgrade:
    """Return the function of a migration, if it can be called with the data."""
    what = f"state schema {cls.__name__}: the migration from version {version}"
    if inspect.iscoroutinefunction(function):
        raise StateSchemaError(f"{what} is async; make it a plain function of the data")
    try:
        inspect.signature(function).bind({})
    except TypeError as error:
        raise StateSchemaError(
            f"{what} is a function of one dict, the data ({error}); a migration has no self"
        ) from None
    except ValueError:
        pass  # one that is not written in Python says nothing of what it takes
    return function


def _checked(cls: type[Any], version: Any) -> int:
    if type(version) is not int or version < 1:
        raise StateSchemaError(
            f"state schema {cls.__name__}: version={version!r}; expected an int of 1 or more"
        )
    return version


def _check_chain(cls: type[WorkflowState]) -> None:
    version, known = cls.__state_version__, cls.__state_migrations__
    if not known:
        return
    beyond = [each for each in known if each >= version]
    if beyond:
        raise StateSchemaError(
            f"state schema {cls.__name__} has version {version}, but a migration from version "
            f"{max(beyond)}; say version={max(beyond) + 1}"
        )
    gaps = [each for each in range(min(known), version) if each not in known]
    if gaps:
        raise StateSchemaError(
            f"state schema {cls.__name__} has version {version} and migrations from "
            f"{', '.join(map(str, sorted(known)))}: the one from version {gaps[0]} to "
            f"{gaps[0] + 1} is missing; add @migrate(from_version={gaps[0]})"
        )


def version_of(cls: type[BaseModel]) -> int:
    """Return the version of a state class; of a model that is no `WorkflowState` it is 1."""
    return getattr(cls, "__state_version__", 1)


def upgraded(
    cls: type[BaseModel], data: dict[str, Any], version: int, to: int | None = None
) -> dict[str, Any]:
    """Return plain data of an older version as data of the class's own; not validated.

    Or as data of the version `to`, which may be older than the class. Raises `InvalidStateError` if
    the version is newer, if no migration leads on from it, or if a migration fails.
    """
    newest = version_of(cls)
    what = f"state of version {version} cannot be read as version {newest} of {cls.__name__}"
    if version > newest:
        raise InvalidStateError(
            f"{what}: newer code wrote it; run that code, or deploy a class with "
            f"version={version} or above"
        )
    migrations: Mapping[int, Upgrade] = getattr(cls, "__state_migrations__", {})
    for step in range(version, newest if to is None else to):
        function = migrations.get(step)
        if function is None:
            raise InvalidStateError(f"{what}: add @migrate(from_version={step}) to the class")
        try:
            result: Any = function(data)
        except Exception as error:
            raise InvalidStateError(
                f"{what}: the migration from version {step} raised {type(error).__name__}: {error}"
            ) from error
        if not isinstance(result, dict):
            raise InvalidStateError(
                f"{what}: the migration from version {step} returned a {type(result).__name__}; "
                "return the dict"
            )
        data = cast("dict[str, Any]", result)
    return data


def _aliases(info: FieldInfo) -> set[Any]:
    given = info.validation_alias
    choices = given.choices if isinstance(given, AliasChoices) else [given]
    paths = [each.path if isinstance(each, AliasPath) else [each] for each in choices]
    return {info.alias, *(path[0] for path in paths if len(path) == 1)} - {None}


def field_named(cls: type[BaseModel], name: str) -> str:
    """Return the name of the field that is given by its name or alias.

    Raises `InvalidStateError` if the class has no such field and takes no others.
    """
    fields = cls.model_fields
    if name in fields:
        return name
    for each, info in fields.items():
        if name in _aliases(info):
            return each
    if cls.model_config.get("extra") == "allow":
        return name
    raise InvalidStateError(
        f"state does not fit {cls.__name__}:\n  {name}: the schema has no such field; it has "
        f"{', '.join(fields) or 'none'}"
    )


def given_version(data: Any) -> tuple[Any, int | None]:
    """Take the version out of a dict that is given as a state; None if it does not say one."""
    given = cast("Mapping[str, Any]", data)
    if not isinstance(data, Mapping) or VERSION_KEY not in given:
        return given, None
    plain = dict(given)
    version = plain.pop(VERSION_KEY)
    if type(version) is not int or version < 1:
        raise InvalidStateError(f"{VERSION_KEY!r}: {version!r}: expected an int of 1 or more")
    return plain, version
