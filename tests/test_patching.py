"""The rule that tests replace no constant and no private name of the code under test."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support.serving import ROOT

# `monkeypatch.setattr` and `delattr`, the functions of these names, `mock.patch` and `mock.patch.object`.
_PATCHES = {"setattr", "delattr", "patch", "object"}


def replaced(source: str) -> Iterator[tuple[int, str]]:
    """Find what a module replaces in `app`: lines, and dotted names such as `app.http.sse.NAME`."""
    tree = ast.parse(source)
    origins = dict(_imported(tree))
    for node in ast.walk(tree):
        for name in _targets(node, origins):
            if name.startswith("app."):
                yield getattr(node, "lineno", 0), name


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Find the names that imports make, each with the dotted name that it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((each.asname or each.name, f"{node.module}.{each.name}") for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (
                (each.asname, each.name) if each.asname else (each.name.split(".")[0],) * 2
                for each in node.names
            )


def _targets(node: ast.AST, origins: dict[str, str]) -> list[str]:
    match node:
        case ast.Call(func=function, args=[ast.Constant(value=str(target)), *_]) if _is_patch(function):
            return [target]
        case ast.Call(func=function, args=[owner, ast.Constant(value=str(name)), *_]) if _is_patch(function):
            return [f"{_dotted(owner, origins)}.{name}"]
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            return [_dotted(each, origins) for each in targets if isinstance(each, ast.Attribute)]
        case ast.AugAssign(target=ast.Attribute() as one) | ast.AnnAssign(target=ast.Attribute() as one):
            return [_dotted(one, origins)]
    return []


def _is_patch(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in _PATCHES


def _dotted(expression: ast.expr, origins: dict[str, str]) -> str:
    """Spell out an attribute of something imported; begins with `?` where it is of something else."""
    if isinstance(expression, ast.Attribute):
        return f"{_dotted(expression.value, origins)}.{expression.attr}"
    return origins.get(expression.id, "?") if isinstance(expression, ast.Name) else "?"


def is_internal(name: str) -> bool:
    """Return True for the dotted name of a constant, and for one with a private part."""
    parts = name.split(".")
    return parts[-1].isupper() or any(part.startswith("_") for part in parts)


def test_no_test_replaces_constants_or_private_names() -> None:
    """A value that a test has to change is a setting, or a parameter that `Timing` hands down."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line, name in replaced(path.read_text())
        if is_internal(name)
    ]
    assert found == []


@pytest.mark.parametrize(
    "statement",
    [
        'monkeypatch.setattr("app.http.sse._TIME_S", 1)',
        'monkeypatch.setattr(sse, "_TIME_S", 1)',
        'monkeypatch.setattr(renamed, "_TIME_S", raising=False)',
        'monkeypatch.setattr(app.http.sse, "_TIME_S", 1)',
        'monkeypatch.delattr(sse, "_TIME_S")',
        'setattr(sse, "_TIME_S", 1)',
        'mock.patch("app.http.sse._TIME_S", 1)',
        'mock.patch.object(sse, "_TIME_S", 1)',
        "sse._TIME_S = 1",
        "sse._TIME_S += 1",
        "sse._TIME_S: int = 1",
        "del sse._TIME_S",
    ],
)
def test_each_way_to_replace_one_is_seen(statement: str) -> None:
    imports = "import app.http.sse\nfrom app.http import sse\nfrom app.http import sse as renamed\n"
    assert list(replaced(imports + statement)) == [(4, "app.http.sse._TIME_S")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app.http.sse.TIME_S", True),
        ("app.http.sse._time", True),
        ("app.http.sse.EventStream._encode", True),
        ("app.http.sse.event", False),
        ("app.http.sse.EventStream", False),
    ],
)
def test_names_that_are_internal(name: str, expected: bool) -> None:
    """A function or a class may be replaced, where there is a reason."""
    assert is_internal(name) is expected
