"""Typed state: how a model becomes a record, and comes back from one."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, RootModel, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import PydanticUndefined, SchemaValidator, from_json, to_json

from polos.core import delta, merge
from polos.core.delta import Fields
from polos.core.merge import Ops
from polos.errors import EncodeError, InvalidStateError, StateSchemaError, StateTooLargeError
from polos.workflow import evolving, model_schema, spilled, state_rules, state_text
from polos.workflow.evolving import WorkflowState
from polos.workflow.state_sync import Sync, clone, is_atom, same

SIZE_MAX = 1_048_576


__all__ = ["SIZE_MAX", "StateSchema", "WorkflowState"]


class StateSchema:
    """Records states of one model class, reads them back, and moves changes between them.

    A record is by field name: bytes are base64, NaN and the infinities keep their names, sets are
    sorted. Computed fields and private attributes are not in it.
    """

    def __init__(self, cls: type[BaseModel]) -> None:
        """Raise `StateSchemaError` if a field of `cls` cannot come back, warn if one may not."""
        self.cls = _checked(cls)
        self.version = evolving.version_of(cls)
        self.recorded_version = None if self.version == 1 else self.version
        """The version as records have it (see `StateEntry`)."""
        try:
            self._schema = model_schema.read(cls)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            raise StateSchemaError(
                f"state schema {cls.__name__} is not complete: {error.message.rstrip('.')}; define "
                "the types that it names before the workflow"
            ) from error
        self._names = tuple(self._schema.fields)
        self._to_json = self._schema.flat_serializer().to_json
        self.flat = state_text.FlatText(self._names, self._to_json)
        self._validator = self._schema.validator(self._schema.root)
        self._field_validators: dict[str, SchemaValidator] = {}
        # Defaults that would not be valid values, such as None for a `str`. Pydantic does not
        # validate defaults: where one was recorded it is not read, but set anew.
        self._odd: dict[str, bytes] = {}
        self._defaults: Fields | None = None
        findings = state_rules.examine(self._schema)
        self._sort = findings.sort
        self.has_blobs = findings.has_blobs
        self._spilled = spilled.fields_of(cls)
        self.secrets = findings.secrets
        """The places of `Secret` values: a client without a codec records no such state."""
        single = {
            name
            for name in self._names
            if name not in findings.unproven and not self._schema.looks_around(name)
        }
        # Tells whether fields can be read and written without a look at the others.
        self._separable = (set[str]() if self._schema.validated_whole else single).issuperset
        # Lists that are appended to without reading what is in them.
        self._lists = {
            name
            for name in self._names
            if self._separable([name]) and self._schema.is_plain_list(name)
        }
        self._check_defaults(findings)
        self._report(findings)

    # -- a state as a whole ---------------------------------------------------------------------

    def initial(self, value: BaseModel | Mapping[str, Any] | str | None = None) -> BaseModel:
        """Return a new state of its own: what `value` says, and defaults for the rest.

        `value` is an instance, a dict by field name or alias, or JSON text of one. Raises
        `InvalidStateError` with all that does not fit.
        """
        # As it will be read back: the first run sees what a replay sees.
        return self._initial(value)[0]

    def recorded(
        self, value: BaseModel | Mapping[str, Any] | str | None = None
    ) -> tuple[BaseModel, Fields]:
        """Return an initial state and its record, of which it is what `load` returns."""
        if value is None and self._defaults is not None:
            return self.load(self._defaults), self._defaults
        model, fields = self._initial(value)
        again = self.dump(model)
        if again != fields:
            model = self.load(again)
        elif value is None and self._schema.has_fixed_defaults():
            self._defaults = again
        return model, again

    def dump(self, model: BaseModel) -> Fields:
        """Return the record of a state; `EncodeError` names the field that has none."""
        text = self.flat.exact(model)
        fields = None if text is None else self.flat.fields(text)
        return self.dump_each(model) if fields is None else fields

    def dump_each(self, model: BaseModel) -> Fields:
        """Return the record of a state that is not as simple as most, or has a mistake."""
        fields: Fields = {}
        strange: list[str] = []
        extra = model.__pydantic_extra__ or {}
        for name in [*self._names, *extra]:
            # Each write goes over all values: of those beyond the fields, which may be many and
            # which no code writes, one has the others not beside it.
            lone = self._shell({}, {name: extra[name]}) if name in extra else model
            try:
                fields[name] = self._dump_field(lone, name, warnings="error")
            except ValueError:
                strange.append(name)
                fields[name] = self._dump_strange(lone, name)
        if strange:
            # A value of another type than declared: no matter, if it can be read back.
            try:
                self.load(fields)
            except InvalidStateError as error:
                raise EncodeError(
                    f"state field {strange[0]!r} cannot be recorded: {error}", strange[0]
                ) from error
        return fields

    def load(self, fields: Fields) -> BaseModel:
        """Return a new state from its record; `InvalidStateError` if it does not fit the class."""
        if self._odd:
            fields = {name: text for name, text in fields.items() if self._odd.get(name) != text}
        try:
            return self._validator.validate_json(
                delta.encoded(fields), by_alias=False, by_name=True
            )
        except ValidationError as error:
            raise self._misfit(error) from (None if self.secrets else error)

    def is_older(self, version: int | None) -> bool:
        """Tell whether a record of a version (see `StateEntry`) is not of this class's own."""
        return (version or 1) != self.version

    def upgraded(self, fields: Fields, version: int | None) -> Fields:
        """Return the record of this version that an older one becomes; `InvalidStateError`."""
        if not self.is_older(version):
            return fields
        data = evolving.upgraded(self.cls, from_json(delta.encoded(fields)), version or 1)
        return self.of_data(data)

    def of_data(self, data: dict[str, Any]) -> Fields:
        """Return the record of plain data, by field name; `InvalidStateError` else."""
        try:
            text = to_json(data, inf_nan_mode="constants", bytes_mode="base64")
        except ValueError as error:
            raise InvalidStateError(f"state of {self.cls.__name__}: {error}") from error
        try:
            model = self._validator.validate_json(text, by_alias=False, by_name=True)
        except ValidationError as error:
            raise self._misfit(error) from (None if self.secrets else error)
        return self.dump(model)

    def check(self, fields: Fields, before: Fields | None = None, most: int | None = None) -> None:
        """Raise `InvalidStateError` if the record does not fit the class.

        What is as in `before`, a record that fits, is not looked at, nor are changed fields of more
        than `most` bytes together.
        """
        known = before or {}
        changed: list[str] = []
        weight = 0
        for name, text in fields.items():
            if known.get(name) != text:
                changed.append(name)
                weight += len(text)
        if most is not None and weight > most:
            return
        if before is None or fields.keys() != before.keys() or not self._separable(changed):
            self.load(fields)
            return
        for name in changed:
            self._load_field(name, fields[name])

    def fits_each(self, fields: Fields, changed: Collection[str]) -> bool:
        """Tell whether changed fields of a record can be read by themselves, and fit the class."""
        if not self._separable(changed):
            return False
        validators = {} if self._odd else self._field_validators
        try:
            for name in changed:
                validator = validators.get(name)
                if validator is None:
                    self._load_field(name, fields[name])
                else:
                    validator.validate_json(_nested(fields[name]), by_alias=False, by_name=True)
        except (InvalidStateError, ValidationError):
            return False
        return True

    def copy(self, model: BaseModel) -> BaseModel:
        """Return a deep copy; what private attributes hold is shared, it is not state."""
        return clone(model)

    def check_size(self, fields: Fields, limit: int = SIZE_MAX) -> None:
        """Raise `StateTooLargeError` if the record is larger than `limit` bytes."""
        size, apart = spilled.counted(fields, self._spilled)
        names: Collection[str] = fields.keys() - self._spilled
        if apart > spilled.SPILLED_MAX:
            size, limit, names = apart, spilled.SPILLED_MAX, self._spilled & fields.keys()
        elif size <= limit:
            return
        largest = max(names or fields, key=lambda name: len(fields[name]))
        raise StateTooLargeError(
            f"Workflow state size ({size / 1_048_576:.2f}MB) exceeds maximum allowed size "
            f"({limit / 1_048_576:.1f}MB): {size:,} of {limit:,} bytes, of which the field "
            f"{largest!r} has {len(fields[largest]):,}. {spilled.ADVICE}",
            field=largest,
            size=size,
            limit=limit,
        )

    def fits(self, fields: Fields) -> bool:
        """Say whether `check_size` has nothing against a record."""
        size, apart = spilled.counted(fields, self._spilled)
        return size <= SIZE_MAX and apart <= spilled.SPILLED_MAX

    def lost(self, model: BaseModel, fields: Fields) -> list[str]:
        """Return the fields that do not come back from the record as they are in the state."""
        loaded = self.load(fields)
        pairs = {name: (getattr(model, name, None), getattr(loaded, name, None)) for name in fields}
        return [
            name for name, (one, other) in pairs.items() if not same(one, other) and one != other
        ]

    def field_given(self, name: str, text: bytes) -> bytes:
        """Return the record of a field's JSON in which aliases stand for names, if it has one."""
        if name not in self._schema.fields or self._schema.looks_around(name):
            return text
        try:
            model = self._shell({name: self._load_field(name, text, by_alias=True)})
        except InvalidStateError:
            return text
        return self._dump_field(model, name)

    # -- from one state to another --------------------------------------------------------------

    def sync(self, live: BaseModel, target: BaseModel) -> bool:
        """Make a state equal to another, in place; tell whether anything differed.

        Lists, dicts, sets and models in it stay the objects they are. Parts of `target` become
        parts of `live`.
        """
        sync = Sync()
        sync.model(live, target)
        return sync.changed

    def restore(self, live: BaseModel, fields: Fields) -> bool:
        """Make a state equal to a record, like `sync`, but read only the fields that differ."""
        try:
            before = self.dump(live)
        except EncodeError:
            return self.sync(live, self.load(fields))
        return self._restore(live, before, fields)

    def change(self, before: Fields, after: Fields) -> Ops:
        """Return the operations that lead from one record to another (JOURNAL 13)."""
        ops: Ops = []
        names: list[str] = []
        for name in before | after:
            old, new = before.get(name), after.get(name)
            if old == new:
                continue
            items = _appended(old, new) if name in self._lists else None
            if items is None:
                names.append(name)
            else:
                ops.append(["append", [name], items])
        return ops + merge.changes(_values(before, names), _values(after, names), self._sort)

    def merged(self, fields: Fields, ops: Ops) -> Fields:
        """Return the record with a change made; `InvalidStateError` if it does not fit then."""
        name = self._only_appends(ops)
        if name is not None and name in fields:
            items = self._dump_field(self._shell({name: self._items(ops)}), name)
            text = items if fields[name] == b"[]" else fields[name][:-1] + b"," + items[1:]
            return fields | {name: text}
        merged = self._merged(fields, ops)
        changed = [name for name, text in merged.items() if fields.get(name) != text]
        if not changed:
            return merged
        if self._separable(changed):
            # In the form that `dump` gives them: a set that was added to is sorted.
            model = self._shell({name: self._load_field(name, merged[name]) for name in changed})
            return merged | {name: self._dump_field(model, name) for name in changed}
        return self.dump(self.load(merged))

    def apply_change(self, live: BaseModel, ops: Ops) -> None:
        """Make a change to a state in place; `InvalidStateError` if it does not fit then."""
        name = self._only_appends(ops)
        values = live.__dict__
        if name is not None and type(values.get(name)) is list:
            values = {**values, name: values[name] + self._items(ops)}
            self.sync(live, self._shell(values, live.__pydantic_extra__))
            return
        before = self.dump(live)
        self._restore(live, before, self._merged(before, ops))

    def _only_appends(self, ops: Ops) -> str | None:
        """Return the field of a change that only appends to a list: then the rest is not read."""
        if len(ops) != 1 or ops[0][0] != "append" or len(ops[0][1]) != 1:
            return None
        name = ops[0][1][0]
        return name if name in self._lists else None

    def _items(self, ops: Ops) -> list[Any]:
        """Return what such a change appends."""
        name, items = ops[0][1][0], ops[0][2]
        return self._load_field(name, to_json(items, inf_nan_mode="constants"))

    # -- fields ---------------------------------------------------------------------------------

    def _initial(self, value: Any) -> tuple[BaseModel, Fields]:
        """Return what is read back of a record, and that record."""
        what = f"initial state does not fit {self.cls.__name__}"
        value, version = evolving.given_version(value)
        if version is not None:
            fields = self.of_data(evolving.upgraded(self.cls, value, version))
            return self.load(fields), fields
        try:
            if isinstance(value, self.cls) and type(value) is self.cls:
                model = value
            elif isinstance(value, str):
                model = self._validator.validate_json(value, by_alias=True, by_name=True)
            else:
                data = _plain(value)
                if data is None:
                    raise InvalidStateError(f"{what}: it is a {type(value).__name__}, not a dict")
                model = self._validator.validate_python(data, by_alias=True, by_name=True)
            fields = self.dump(model)
            return self.load(fields), fields
        except ValidationError as error:
            text = state_rules.spelled(error, hidden=bool(self.secrets))
            raise InvalidStateError(f"{what}:{text}") from (None if self.secrets else error)
        except EncodeError as error:
            raise InvalidStateError(f"{what}:\n  {error}") from error

    def _dump_strange(self, model: BaseModel, name: str) -> bytes:
        try:
            return self._dump_field(model, name)
        except ValueError as error:
            raise EncodeError(
                f"state field {name!r} of {self.cls.__name__} cannot be recorded: {error}", name
            ) from error

    def _dump_field(self, model: BaseModel, name: str, warnings: Any = False) -> bytes:
        text = self._to_json(model, include={name}, round_trip=True, warnings=warnings)
        state_text.proven(text, model.__dict__.get(name, model.__pydantic_extra__))
        if text == b"{}":
            raise ValueError("it was deleted; assign a value instead")
        head = state_text.HEAD if name in self._schema.fields else b"{" + to_json(name) + b":"
        return text[len(head) : -1]

    def _load_field(self, name: str, text: bytes, *, by_alias: bool = False) -> Any:
        if self._odd and self._odd.get(name) == text:
            return clone(self.cls.__pydantic_fields__[name].default)
        validator = self._field_validators.get(name)
        if validator is None:
            validator = self._schema.validator(self._schema.of_field(name))
            self._field_validators[name] = validator
        try:
            return validator.validate_json(_nested(text), by_alias=by_alias, by_name=True)[0]
        except ValidationError as error:
            raise self._misfit(error, name) from (None if self.secrets else error)

    def _shell(self, values: dict[str, Any], extra: dict[str, Any] | None = None) -> BaseModel:
        """Return an instance with these values and no others."""
        model = self.cls.__new__(self.cls)
        object.__setattr__(model, "__dict__", values)
        object.__setattr__(model, "__pydantic_extra__", extra)
        object.__setattr__(model, "__pydantic_fields_set__", set(values))
        object.__setattr__(model, "__pydantic_private__", None)
        return model

    def _merged(self, fields: Fields, ops: Ops) -> Fields:
        names = {path[0] for _, path, *_ in ops}
        before = _values(fields, names)
        after = merge.merge(ops, before)
        merged = {name: text for name, text in fields.items() if name not in names or name in after}
        for name, value in after.items():
            if name not in before or value is not before[name]:
                merged[name] = to_json(value, inf_nan_mode="constants")
        return merged

    def _restore(self, live: BaseModel, before: Fields, fields: Fields) -> bool:
        if before == fields:
            return False
        changed = [name for name, text in fields.items() if before.get(name) != text]
        if before.keys() == fields.keys() and self._separable(changed):
            values = {name: self._load_field(name, fields[name]) for name in changed}
            scalars = all(is_atom(live.__dict__[name]) for name in changed)
            target = self._shell({**live.__dict__, **values}, live.__pydantic_extra__)
            self.sync(live, target)
            if scalars or self._untouched(live, before, changed):
                return True
        return self.sync(live, self.load(fields))

    def _untouched(self, live: BaseModel, before: Fields, changed: list[str]) -> bool:
        """Tell whether the fields that are not `changed` are as before.

        They are not if they share an object with one that is.
        """
        after = self.dump(live)
        return all(after[name] == text for name, text in before.items() if name not in changed)

    # -- what is wrong --------------------------------------------------------------------------

    def _check_defaults(self, findings: state_rules.Findings) -> None:
        """See for each default value whether it comes back."""
        for name, info in self.cls.__pydantic_fields__.items():
            if info.default is PydanticUndefined or self._schema.looks_around(name):
                continue
            try:
                text = self._dump_field(self._shell({name: info.default}), name)
            except ValueError as error:
                if name not in findings.unproven:
                    findings.refused.append(f"{name}: its default cannot be recorded: {error}")
                continue
            try:
                self._compare_default(findings, name, self._load_field(name, text))
            except InvalidStateError:
                self._odd[name] = text

    def _compare_default(self, findings: state_rules.Findings, name: str, value: Any) -> None:
        default = self.cls.__pydantic_fields__[name].default
        limits = [getattr(each, "maxlen", None) for each in (value, default)]  # of a deque
        if limits[0] == limits[1] and (value == default or same(value, default)):
            if default is not None:
                findings.unproven.pop(name, None)
            return
        text = f"{name}: its default {default!r} comes back as {value!r}"
        if name in findings.unproven:
            findings.refused.append(f"{text}; give the type a validator that reads what it writes")
        else:
            findings.doubts.append(f"{text}; write it as that")

    def _report(self, findings: state_rules.Findings) -> None:
        name = self.cls.__name__
        if findings.refused:
            raise StateSchemaError(
                f"state schema {name} has fields that could not be read back after a crash:"
                + "".join(f"\n  {each}" for each in findings.refused)
            )
        doubts = [*findings.doubts, *findings.unproven.values()]
        if doubts:
            warnings.warn(
                f"state schema {name} has fields that may come back as something else after a "
                "crash:" + "".join(f"\n  {each}" for each in doubts),
                stacklevel=3,
            )

    def _misfit(self, error: ValidationError, *place: str) -> InvalidStateError:
        text = state_rules.spelled(error, *place, hidden=bool(self.secrets))
        return InvalidStateError(f"state does not fit {self.cls.__name__}:{text}")


def _checked(cls: Any) -> type[BaseModel]:
    if isinstance(cls, type) and issubclass(cls, BaseModel) and not issubclass(cls, RootModel):
        return cls
    raise StateSchemaError(
        f"state schema {cls!r} is not a model with fields; use a subclass of WorkflowState"
    )


def _plain(value: Any) -> dict[Any, Any] | None:
    if value is None:
        return {}
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=False, round_trip=True, warnings=False)
    return dict(value) if isinstance(value, Mapping) else None  # pyright: ignore[reportUnknownArgumentType]


def _nested(text: bytes) -> bytes:
    """Return a field's JSON as deep as it stands in the state: how deep can be read has a limit."""
    return b"[%b]" % text


def _appended(old: bytes | None, new: bytes | None) -> list[Any] | None:
    """Return the items that an array has more than another, if it has them behind those."""
    if not old or not new or old == b"[]" or not new.startswith(old[:-1] + b","):
        return None
    return from_json(b"[" + new[len(old) :])


def _values(fields: Fields, names: Collection[str]) -> dict[str, Any]:
    return {name: from_json(fields[name]) for name in names if name in fields}
