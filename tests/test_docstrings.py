"""Every part of the code has a docstring that begins with a summary.

Every module needs a docstring, and so does every public class and function at its top level, except a class
that is a mere case of its base: one with a body of constants or `pass`.

A public method needs one as well, except

- a method of at most `SHORT` lines, whose name should say it all;
- a method of a class with a base from a library: it overrides what the library documents;
- a method whose name has a docstring in another class, the contract that it implements.

A summary is a single line that begins with a verb or a noun and ends with a full stop. Every docstring begins
with one, even where none is needed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import ROOT

FOLDERS = ("app", "scripts", "benchmarks")

# The length in lines of a method's body up to which its name should say it all.
SHORT = 3

# The first words of phrases that are neither a sentence nor a noun phrase, and the names of sections.
OPENING = re.compile(
    r"(?:What|Whether|Where|Which|Who|When|How|If|That|Those|It|Nothing|Not|And|Also"
    r"|As|At|Around|Between|By|For|From|In|Of|To|With|Without)\b"
    r"|(?:Args|Arguments|Attributes|Raises|Returns|Yields):"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function

# Bases from libraries whose subclasses declare methods of their own, instead of overriding documented ones.
PLAIN_BASES = {"Protocol", "Generic", "NamedTuple", "Enum", "StrEnum", "IntEnum", "Exception", "BaseModel"}


def modules() -> list[Path]:
    """List the modules to check by their path from the root of the project."""
    return [path.relative_to(ROOT) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def is_public(node: ast.ClassDef | Function) -> bool:
    return not node.name.startswith("_")


def is_short(function: Function) -> bool:
    first = function.body[0]
    return (function.end_lineno or first.lineno) - first.lineno < SHORT


def is_case(node: ast.ClassDef) -> bool:
    return bool(node.bases) and all(isinstance(each, ast.Assign | ast.Pass) for each in node.body)


def methods_of(node: ast.ClassDef) -> list[Function]:
    return [each for each in node.body if isinstance(each, Function)]


def base_names(node: ast.ClassDef) -> set[str]:
    """The names of a class's bases, without their parameters."""
    return {ast.unparse(base.value if isinstance(base, ast.Subscript) else base) for base in node.bases}


class Contracts:
    """The classes of the code, and the names of the methods that one of them documents."""

    def __init__(self, trees: list[ast.Module]) -> None:
        found = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        self._classes = PLAIN_BASES | {node.name for node in found}
        methods = [method for node in found for method in methods_of(node)]
        self._documented = {method.name for method in methods if ast.get_docstring(method)}

    def documents(self, owner: ast.ClassDef, method: Function) -> bool:
        return not base_names(owner) <= self._classes or method.name in self._documented


def definitions(tree: ast.Module, contracts: Contracts) -> Iterator[tuple[Documented, str]]:
    """Yield each part of a module that needs a docstring, with its name."""
    yield tree, "the module"
    for node in tree.body:
        if isinstance(node, Function) and is_public(node):
            yield node, node.name
        elif isinstance(node, ast.ClassDef) and is_public(node):
            if not is_case(node):
                yield node, node.name
            for method in methods_of(node):
                if is_public(method) and not is_short(method) and not contracts.documents(node, method):
                    yield method, f"{node.name}.{method.name}"


def line_of(node: Documented) -> int:
    return 1 if isinstance(node, ast.Module) else node.lineno


def problem_of(docstring: str) -> str | None:
    """Return the reason why a docstring has no summary, or None if it has one."""
    summary, _, rest = docstring.partition("\n")
    if OPENING.match(summary):
        return f"begins with {summary.split()[0]!r}"
    if not summary.endswith("."):
        return "has a first line that does not end with a full stop"
    if not summary[0].isupper() and summary[0] not in "`\"'":
        return "does not begin like a sentence"
    if rest and not rest.startswith("\n"):
        return "has a summary of more than one line"
    return None


def malformed(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and problem of each docstring that has no summary."""
    for node in ast.walk(tree):
        if not isinstance(node, Documented) or (docstring := ast.get_docstring(node)) is None:
            continue
        if problem := problem_of(docstring):
            yield node.body[0].lineno, f"{problem}: {docstring.splitlines()[0]}"


def test_every_public_definition_has_a_docstring() -> None:
    """Every part that needs a docstring by the rules above has one."""
    trees = {path: parse(path) for path in modules()}
    contracts = Contracts(list(trees.values()))
    missing = [
        f"{path}:{line_of(node)}: {name}"
        for path, tree in trees.items()
        for node, name in definitions(tree, contracts)
        if ast.get_docstring(node) is None
    ]
    assert not missing, "without a docstring:\n" + "\n".join(missing)


def test_every_docstring_begins_with_a_summary() -> None:
    """The first line is a sentence or a noun phrase that can be read alone."""
    wrong = [f"{path}:{line}: {text}" for path in modules() for line, text in malformed(parse(path))]
    assert not wrong, "docstrings without a summary:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("docstring", "problem"),
    [
        ("Return the vector of a text.", None),
        ("Return the vector of a text.\n\nArgs:\n    text: anything.", None),
        ("`embed`, for texts that are tokenized.", None),
        ("What a text becomes.", "begins with 'What'"),
        ("Args:\n    text: anything.", "begins with 'Args:'"),
        ("Return the vector", "has a first line that does not end with a full stop"),
        ("the vector of a text.", "does not begin like a sentence"),
        ("Return the vector.\nIt has length 1.", "has a summary of more than one line"),
    ],
)
def test_the_check_finds_each_problem(docstring: str, problem: str | None) -> None:
    """Each rule of a summary rejects the docstrings that break it, and accepts the others."""
    assert problem_of(docstring) == problem
