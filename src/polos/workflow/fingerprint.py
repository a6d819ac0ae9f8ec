"""The fingerprint of a function's code: the same in every process, whatever the layout.

It covers the function itself and not what it calls: bodies of steps may change while executions
live, the order of the steps may not.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, cast

LENGTH = 16
"""Hexadecimal digits of a fingerprint."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_DOCUMENTED = (*_Function.__args__, ast.ClassDef)
_UNSEEN = frozenset({"ctx", "kind", "type_comment"})


def fingerprint(function: Callable[..., Any]) -> str:
    """Return the digest of a function's code.

    Comments, docstrings, decorators and formatting do not matter. Without source (code that was
    made by `exec`, or is shipped as bytecode) it is that of the compiled code's names and
    constants.
    """
    written = _source(function)
    if written is None:
        written = "\n".join(_compiled(_code(function), function))
    return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()[:LENGTH]


# -- source -----------------------------------------------------------------------------------


def _source(function: Callable[..., Any]) -> str | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # none, not a function, a lambda inside a call
        return None
    found = tree.body[0] if tree.body else None
    if not isinstance(found, _Function) or found.name != getattr(function, "__name__", None):
        return None  # another text: the file was changed since it was loaded
    found.decorator_list = []
    return "".join(_dumped(found))


def _dumped(node: Any) -> Iterator[str]:
    """Write a tree without positions; `ast.dump` differs between minor versions of Python."""
    if isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in ast.iter_fields(node):
            if name not in _UNSEEN and value is not None and value != []:
                yield f"{name}="
                yield from _dumped(_undocumented(node, value) if name == "body" else value)
        yield ")"
    elif isinstance(node, list):
        for each in cast("list[Any]", node):
            yield from _dumped(each)
            yield ","
    else:
        yield repr(node)


def _undocumented(node: ast.AST, body: Any) -> Any:
    first = body[0] if isinstance(node, _DOCUMENTED) else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return body[1:] if isinstance(first.value.value, str) else body
    return body


# -- compiled code ----------------------------------------------------------------------------


def _code(function: Any) -> CodeType | None:
    if isinstance(function, CodeType):
        return function
    call: Any = getattr(cast("Any", type(function)), "__call__", None)  # noqa: B004 - an object with __call__
    for each in (function, getattr(function, "func", None), call):
        code = getattr(each, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


def _compiled(code: CodeType | None, function: Any) -> Iterator[str]:
    if code is None:
        yield f"{type(function).__module__}.{type(function).__qualname__}"
        return
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_argcount))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _compiled(constant, None)
        elif isinstance(constant, frozenset):  # its order changes from process to process
            yield repr(sorted(map(repr, cast("frozenset[Any]", constant))))
        else:
            yield repr(constant)
