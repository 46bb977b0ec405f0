"""Which packages may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import ROOT

APP = ROOT / "app"

# Each row may import from the rows above it, and packages of one row from each other if there is no cycle.
LAYERS: list[set[str]] = [
    {"domain"},
    {"config", "observability", "documents"},
    {"text", "provider"},
    {"embeddings", "llms", "storage"},
    {"indexing", "query"},
    {"serving"},
    {"http"},
    {"bootstrap"},
    {"main", "__main__", "cli"},
]

# Pairs that never import each other, though their layers would allow it.
STRANGERS = [
    ("app.indexing", "app.query"),
    ("app.storage.disk", "app.storage.postgres"),
    ("app.http", "llama_index"),
]

# Only these know the settings as a whole; all others are given what they need.
KNOW_SETTINGS = {"config", "bootstrap", "cli", "main", "__main__"}

MODULES = sorted(APP.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULE_NAMES = {module_name(path): path for path in MODULES}


def imports(path: Path) -> set[str]:
    """The modules that a module imports, wherever the import stands in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULE_NAMES.keys()
            found |= submodules or {node.module}
    return found


def package(module: str) -> str:
    """The first name below `app`: a package, or one of the two modules beside them."""
    return module.split(".")[1]


def layer(module: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if package(module) in names)


def is_ours(module: str) -> bool:
    return is_in(module, "app") and module != "app"


def is_in(module: str, package_name: str) -> bool:
    return f"{module}.".startswith(f"{package_name}.")


def test_every_package_has_its_layer() -> None:
    """Beside the packages of the layout, `app` has its two entry points, and nothing else."""
    assert {package(name) for name in MODULE_NAMES if is_ours(name)} == set().union(*LAYERS)
    assert {path.name for path in APP.glob("*.py")} == {"__init__.py", "__main__.py", "main.py"}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down_the_layers(path: Path) -> None:
    """No module imports from a layer above its own."""
    name = module_name(path)
    if name == "app":
        return
    for imported in filter(is_ours, imports(path)):
        assert layer(imported) <= layer(name), f"{name} imports {imported}"


def edges_of(names: dict[str, Path]) -> dict[str, set[str]]:
    return {name: {one for one in imports(path) if one in names} - {name} for name, path in names.items()}


def assert_no_cycle(edges: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join((*trail, name))}"
        if name not in done:
            for following in sorted(edges[name]):
                visit(following, (*trail, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_modules_import_each_other_without_a_cycle() -> None:
    assert_no_cycle(edges_of(MODULE_NAMES))


def test_packages_import_each_other_without_a_cycle() -> None:
    """Two packages that import each other are one, whatever their modules do."""
    packages: dict[str, set[str]] = {}
    for name, imported in edges_of(MODULE_NAMES).items():
        if name == "app":
            continue
        targets = {package(one) for one in imported if is_ours(one)}
        packages.setdefault(package(name), set()).update(targets - {package(name)})
    assert_no_cycle(packages)


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_independent_packages_do_not_import_each_other(one: str, other: str) -> None:
    for name, path in MODULE_NAMES.items():
        for imported in imports(path):
            pair = (is_in(name, one) and is_in(imported, other)) or (
                is_in(name, other) and is_in(imported, one)
            )
            assert not pair, f"{name} imports {imported}"


def test_questions_and_answers_do_not_depend_on_the_http_api() -> None:
    """A field of the HTTP API is renamed in `app/http` alone, since the domain's types are no schemas."""
    for name, path in MODULE_NAMES.items():
        if is_in(name, "app.query") or is_in(name, "app.domain"):
            assert not any(is_in(imported, "app.http") for imported in imports(path)), name
    for name in ("app.domain.query", "app.domain.answer"):
        assert not any(is_in(imported, "pydantic") for imported in imports(MODULE_NAMES[name])), name


def test_only_the_outermost_packages_import_the_settings() -> None:
    for name, path in MODULE_NAMES.items():
        if is_ours(name) and package(name) not in KNOW_SETTINGS:
            known = {one for one in imports(path) if is_in(one, "app.config.groups")}
            assert not known | (imports(path) & {"app.config.settings"}), name


def test_indexing_does_not_import_llamaindex(tmp_path: Path) -> None:
    """The import takes two seconds, in the command and in each reader process."""
    code = (
        "import sys, app.cli.reindex, app.cli.migrate, app.bootstrap.postgres\n"
        "unneeded = {'llama_index', 'fastapi', 'openai', 'aiohttp'} & set(sys.modules)\n"
        "assert not unneeded, unneeded\n"
    )
    run_code(code, tmp_path)


def test_a_command_does_not_import_the_others(tmp_path: Path) -> None:
    """Readers and workers import the main module again, which imports the standard library alone."""
    code = (
        "import sys\n"
        "known = {*sys.modules, *sys.stdlib_module_names, 'app', '__mp_main__'}\n"
        "import runpy\n"
        "for path in sys.argv[1:]:\n"
        "    runpy.run_path(path, run_name='__mp_main__')\n"
        "others = {name for name in sys.modules if name.split('.')[0] not in known}\n"
        "assert not others, others\n"
        "ours = {name for name in sys.modules if name.startswith('app.')}\n"
        "assert ours == {'app.cli', 'app.cli.main'}, ours\n"
    )
    started = [APP / "__main__.py", Path(sys.executable).with_name("rag-service")]
    run_code(code, tmp_path, *started, *(ROOT / "scripts").glob("[!_m]*.py"))


def test_no_module_uses_llamaindex_global_settings() -> None:
    """They are one mutable object for the whole process."""
    for path in MODULES:
        assert "llama_index.core.Settings" not in imports(path), path


def test_importing_has_no_side_effects(tmp_path: Path) -> None:
    """It opens no files or sockets, starts no threads, and makes no client of a provider."""
    code = (
        "import sys, threading, app.main\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert not {'openai', 'kreuzberg', 'wordllama'} & set(sys.modules), 'imported for nothing'\n"
    )
    run_code(code, tmp_path)
    assert list(tmp_path.iterdir()) == []


def run_code(code: str, folder: Path, *arguments: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        timeout=60,
    )
