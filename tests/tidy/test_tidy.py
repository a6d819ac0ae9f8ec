"""The limits of CONTRIBUTING.md, as tests; the exceptions are in allowed.py."""

import ast
import importlib
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.tidy import allowed

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

Function = ast.FunctionDef | ast.AsyncFunctionDef

AMBIENT_NAMES = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "uuid": {"uuid1", "uuid4"},
    "random": {"random", "randint", "randrange", "uniform", "choice", "shuffle", "sample"},
    "os": {"environ", "getenv", "urandom"},
}

# In pieces, so that this file does not name what it looks for.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("crates", "io"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("proxy", "golang", "org"),
        ("maven", "org"),
        ("maven", "apache", "org"),
        ("deb", "debian", "org"),
    ]
]
MACHINE_PATH = re.compile(r"(?<![\w.\-})])/(?:work|root)/")
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")


@dataclass(frozen=True)
class Place:
    """One syntax node of a module, with the functions and classes around it."""

    file: str
    scope: str
    node: ast.AST

    @property
    def name(self) -> str:
        return f"{self.file}:{self.scope}" if self.scope else self.file

    def __str__(self) -> str:
        return f"{self.name} (line {getattr(self.node, 'lineno', 1)})"


def walk(file: str, node: ast.AST, scope: tuple[str, ...] = ()) -> Iterator[Place]:
    for child in ast.iter_child_nodes(node):
        yield Place(file, ".".join(scope), child)
        inner = (*scope, child.name) if isinstance(child, Function | ast.ClassDef) else scope
        yield from walk(file, child, inner)


@cache
def source_files() -> tuple[Path, ...]:
    return tuple(sorted(SRC.rglob("*.py")))


@cache
def trees() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(SRC)): ast.parse(path.read_text(), str(path))
        for path in source_files()
    }


@cache
def places() -> tuple[Place, ...]:
    return tuple(place for file, tree in trees().items() for place in walk(file, tree))


def module_name(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@cache
def repository_texts() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    texts: dict[str, str] = {}
    for name in sorted(set(filter(None, listed.split("\0")))):
        path = ROOT / name
        if not path.is_file():
            continue  # deleted, and not committed yet
        data = path.read_bytes()
        if b"\0" not in data:
            texts[name] = data.decode(errors="replace")
    return texts


def demand_none(offenders: list[str], rule: str) -> None:
    assert not offenders, f"{rule}:\n  " + "\n  ".join(sorted(offenders))


# Each rule has a function that finds its offenders, so that the lists can be held against it.


def long_modules() -> list[Place]:
    return [
        Place(file, "", tree)
        for file, tree in trees().items()
        if len((SRC / file).read_text().splitlines()) > MODULE_LINES_MAX
    ]


def long_functions() -> list[Place]:
    return [
        Place(place.file, f"{place.scope}.{place.node.name}".lstrip("."), place.node)
        for place in places()
        if isinstance(place.node, Function)
        and (place.node.end_lineno or 0) - place.node.lineno + 1 > FUNCTION_LINES_MAX
    ]


def imports_inside_functions() -> list[Place]:
    classes = {
        f"{place.file}:{place.scope}.{place.node.name}".replace(":.", ":")
        for place in places()
        if isinstance(place.node, ast.ClassDef)
    }
    return [
        place
        for place in places()
        if isinstance(place.node, ast.Import | ast.ImportFrom)
        and place.scope
        and place.name not in classes
    ]


def is_broad(expression: ast.expr | None) -> bool:
    if expression is None:
        return True
    parts = expression.elts if isinstance(expression, ast.Tuple) else [expression]
    return any(
        isinstance(part, ast.Name) and part.id in {"Exception", "BaseException"} for part in parts
    )


def swallows(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        last = node.body[-1]
        return is_broad(node.type) and not (isinstance(last, ast.Raise) and last.exc is None)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(is_broad(argument) for argument in node.args)
    return False


def broad_excepts() -> list[Place]:
    return [place for place in places() if swallows(place.node)]


def is_ambient(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        names = AMBIENT_NAMES.get(node.module or "", set())
        return any(alias.name in names for alias in node.names)
    if isinstance(node, ast.Attribute):
        owner = ast.unparse(node.value).rpartition(".")[2]
        return node.attr in AMBIENT_NAMES.get(owner, set())
    return False


def ambient_reads() -> list[Place]:
    return [place for place in places() if is_ambient(place.node)]


RULES = {
    "LONG_MODULES": (long_modules, f"a module has at most {MODULE_LINES_MAX} lines"),
    "LONG_FUNCTIONS": (long_functions, f"a function has at most {FUNCTION_LINES_MAX} lines"),
    "IMPORTS_INSIDE_FUNCTIONS": (imports_inside_functions, "imports stand at the top of a file"),
    "BROAD_EXCEPTS": (broad_excepts, "only the listed nets catch everything"),
    "AMBIENT": (ambient_reads, "time, chance and settings are handed in, not asked for"),
}


@pytest.mark.parametrize("name", RULES)
def test_only_the_listed_places_break_the_rule(name: str) -> None:
    find, rule = RULES[name]
    reasons: dict[str, str] = getattr(allowed, name)
    demand_none(
        [str(place) for place in find() if place.name not in reasons],
        f"{rule} (the exceptions are allowed.{name})",
    )


@pytest.mark.parametrize("name", RULES)
def test_every_listed_exception_is_needed_and_has_a_reason(name: str) -> None:
    find, _ = RULES[name]
    reasons: dict[str, str] = getattr(allowed, name)
    demand_none([place for place, reason in reasons.items() if not reason.strip()], "no reason")
    used = {place.name for place in find()}
    demand_none([place for place in reasons if place not in used], f"unused in allowed.{name}")


def test_there_is_source_to_check() -> None:
    assert "polos/errors.py" in trees()


def test_every_module_says_in_a_sentence_what_it_is() -> None:
    offenders: list[str] = []
    for file, tree in trees().items():
        text = ast.get_docstring(tree) or ""
        if not text.split("\n\n")[0].rstrip().endswith("."):
            offenders.append(file)
    demand_none(offenders, "a module starts with a docstring whose first paragraph is a sentence")


def test_every_folder_of_the_package_is_a_package() -> None:
    folders = {path.parent for path in source_files()}
    offenders = [str(folder) for folder in folders if not (folder / "__init__.py").exists()]
    demand_none(offenders, "no __init__.py")


def test_no_module_has_mutable_globals() -> None:
    offenders = [str(place) for place in places() if isinstance(place.node, ast.Global)]
    demand_none(offenders, "no `global`: hand the object in")


def test_lower_floors_do_not_import_the_public_names() -> None:
    modules = {module_name(file) for file in trees()}
    offenders: list[str] = []
    for place in places():
        node = place.node
        if place.file.startswith(("polos/__init__", "polos/cli/", "polos/testing")):
            continue
        if isinstance(node, ast.Import) and any(alias.name == "polos" for alias in node.names):
            offenders.append(str(place))
        elif isinstance(node, ast.ImportFrom) and node.module == "polos":
            names = {f"polos.{alias.name}" for alias in node.names}
            offenders += [f"{place}: {name}" for name in sorted(names - modules)]
    demand_none(offenders, "import from the module that defines the name, not from the package")


def test_every_exported_name_exists_once() -> None:
    # That the lists are sorted is ruff's RUF022.
    offenders: list[str] = []
    for name in sorted(module_name(file) for file, tree in trees().items() if has_all(tree)):
        module = importlib.import_module(name)
        exported: list[str] = module.__all__
        offenders += [f"{name}.{item}" for item in exported if not hasattr(module, item)]
        offenders += [f"{name}.{item}" for item in set(exported) if exported.count(item) > 1]
    demand_none(offenders, "in __all__ but not in the module, or twice")


def has_all(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for node in tree.body
    )


def test_the_package_loads_no_optional_dependency() -> None:
    code = "import sys, polos; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {"msgspec", "rich", "typer", "uvloop"} & set(run.stdout.split())
    demand_none(sorted(loaded), "`import polos` must load only pydantic and the standard library")


def test_nothing_is_left_unfinished() -> None:
    offenders = [
        f"{name}:{token.start[0]}"
        for name, text in repository_texts().items()
        if name.endswith(".py")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and UNFINISHED.search(token.string)
    ]
    demand_none(offenders, "finish it, or open an issue")


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:80]}"
        for name, text in repository_texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    demand_none(lines_with(MACHINE_PATH), "a path of one machine")


def test_no_file_names_a_package_registry() -> None:
    hosts = "|".join(re.escape(host) for host in REGISTRY_HOSTS)
    demand_none(lines_with(re.compile(rf"\b(?:{hosts})\b")), "a registry host")
