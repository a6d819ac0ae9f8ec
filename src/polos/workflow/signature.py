"""What a workflow's function takes and gives back, read from its signature.

Annotations that are strings are resolved when they are first needed: the class may be defined
below the workflow. What can never be resolved lets everything through, as plain JSON.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import PydanticUndefinedAnnotation, PydanticUserError

from polos.errors import WorkflowDefinitionError
from polos.workflow import hints
from polos.workflow.adapter import Adapter
from polos.workflow.hints import MISSING, UNRESOLVED

CONTEXT_NAMES = ("WorkflowContext", "AgentContext")


class Signature:
    """The parameters and the result of `func`.

    `scope` holds the local names around the function's definition; it is kept only while an
    annotation waits for its class.
    """

    def __init__(self, func: Callable[..., Any], scope: Mapping[str, Any] | None = None) -> None:
        self.func = func
        self.name: str = getattr(func, "__qualname__", None) or repr(func)
        self._scope = dict(scope or {})
        self._warned = False
        parameters = self._parameters()
        self._context = parameters[0] if parameters else None
        self._payload = parameters[1] if len(parameters) > 1 else None
        self._count = len(parameters)
        self._context_fits = self._is_context()
        self._payload_hint: Any = UNRESOLVED
        self._result_hint: Any = UNRESOLVED
        if UNRESOLVED not in (self._resolved_payload(), self._resolved_result()):
            self._scope = {}

    @property
    def has_payload(self) -> bool:
        return self._payload is not None

    @property
    def payload_default(self) -> Any:
        """The default of the payload parameter, or `MISSING`."""
        return self._payload.default if self._payload else MISSING

    @property
    def payload_is_resolved(self) -> bool:
        return self._resolved_payload() is not UNRESOLVED

    @property
    def payload_hint(self) -> Any:
        """The type of the payload; Any where there is no annotation or nobody knows its class."""
        hint = self._resolved_payload()
        if hint is not UNRESOLVED:
            return Any if hint is MISSING else hint
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"workflow function {self.name!r}: the payload's annotation "
                f"{self._payload_text()!r} names nothing that exists at run time, so payloads are "
                "passed as plain JSON; define or import the class where the function is defined",
                RuntimeWarning,
                stacklevel=2,
            )
        return Any

    @property
    def result_hint(self) -> Any | None:
        """The return annotation; None where it is None, is missing or has no class yet."""
        hint = self._resolved_result()
        return None if hint in (MISSING, UNRESOLVED, hints.NoneType) else hint

    @property
    def payload_accepts_none(self) -> bool:
        hint = self._resolved_payload()
        if hint is UNRESOLVED:
            return any(word in self._payload_text() for word in ("None", "Optional"))
        return hint is not MISSING and hints.accepts_none(hint)

    def check(self) -> None:
        """Raise `WorkflowDefinitionError` unless the function can be a workflow."""
        self._check_shape()
        self._check_context()
        self._check_payload()

    def _check_shape(self) -> None:
        if inspect.isgeneratorfunction(self.func) or inspect.isasyncgenfunction(self.func):
            raise self._error("is a generator; return the result instead of yielding it")
        if self._count < 1:
            raise self._error("must have at least 1 parameter")
        if self._count > 2:
            raise self._error("must have at most 2 parameters; put further values into the payload")
        for parameter in (self._context, self._payload):
            if parameter and parameter.kind not in (
                parameter.POSITIONAL_ONLY,
                parameter.POSITIONAL_OR_KEYWORD,
            ):
                raise self._error(f"{str(parameter)!r} must be an ordinary parameter")

    def _check_context(self) -> None:
        if self._context and not self._context_fits:
            raise self._error(
                f"first parameter {self._context.name!r} must be typed as WorkflowContext or "
                f"AgentContext (or untyped), got {hints.name_of(self._context.annotation)}"
            )

    def _check_payload(self) -> None:
        if self._payload is None:
            return
        name, hint = self._payload.name, self._resolved_payload()
        if hint is MISSING:
            raise self._error(f"second parameter {name!r} must be typed; use dict if it is any")
        if hint is UNRESOLVED or hints.is_known(hint):
            return
        try:
            Adapter(hint)
        except PydanticUndefinedAnnotation:
            return
        except PydanticUserError as error:
            raise self._error(
                f"second parameter {name!r}: nobody knows how to read {hints.name_of(hint)} from "
                "JSON; use a pydantic model, a dataclass, a TypedDict, a msgspec struct or plain "
                "types"
            ) from error

    def _error(self, fault: str) -> WorkflowDefinitionError:
        return WorkflowDefinitionError(
            f"Workflow function {self.name!r}: {fault}\n"
            "  write (ctx: WorkflowContext) or (ctx: WorkflowContext, payload: YourModel)"
        )

    def _parameters(self) -> list[inspect.Parameter]:
        try:
            return list(hints.signature_of(self.func).parameters.values())
        except (TypeError, ValueError) as error:
            raise WorkflowDefinitionError(
                f"{self.name!r} has no signature that Python can tell; wrap it in a function "
                "(ctx: WorkflowContext, payload: YourModel)"
            ) from error

    def _is_context(self) -> bool:
        annotation = self._context.annotation if self._context else MISSING
        if annotation is MISSING or _names_context(annotation):
            return True
        return _names_context(hints.resolve(self.func, annotation, self._scope))

    def _payload_text(self) -> str:
        annotation = self._payload.annotation if self._payload else ""
        return annotation if isinstance(annotation, str) else str(annotation)

    def _resolved_payload(self) -> Any:
        if self._payload_hint is UNRESOLVED:
            annotation = MISSING
            if self._payload is not None:
                annotation = self._parameters()[1].annotation
            self._payload_hint = hints.resolve(self.func, annotation, self._scope)
        return self._payload_hint

    def _resolved_result(self) -> Any:
        if self._result_hint is UNRESOLVED:
            annotation = hints.signature_of(self.func).return_annotation
            self._result_hint = hints.resolve(self.func, annotation, self._scope)
        return self._result_hint


def is_async(func: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(type(func).__call__)


def _names_context(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return any(name in annotation for name in CONTEXT_NAMES)
    classes = annotation.__mro__ if isinstance(annotation, type) else ()
    names = [*(cls.__name__ for cls in classes), str(annotation)]
    return any(_names_context(name) for name in names)
