"""How modules may depend on each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import ROOT

# Each may import from those before it, and modules of one row from each other if there is no circle.
LAYERS: list[set[str]] = [
    {
        "app.chunk_unit",
        "app.commands",
        "app.listening",
        "app.api_keys",
        "app.client_address",
        "app.setting_values",
        "app.settings",
        "app.errors",
        "app.schemas",
        "app.chat_schemas",
        "app.telemetry",
        "app.secret_values",
        "app.deadline",
        "app.request_notes",
        "app.stopwatch",
        "app.worker_metrics",
        "app.metrics",
    },
    {
        "app.pages",
        "app.pdf",
        "app.encodings",
        "app.protection",
        "app.reading_limits",
        "app.reading",
        "app.reader_process",
        "app.bm25",
        "app.provider",
        "app.embeddings",
        "app.synthesis",
    },
    {
        "app.documents",
        "app.cutting",
        "app.chunking",
        "app.preparing",
        "app.snapshots",
        "app.postgres",
        "app.stores",
    },
    {"app.engine", "app.indexing", "app.progress", "app.progress_bars"},
    {"app.served_index", "app.index_loading", "app.generation_loading", "app.index_manager"},
    {
        "app.openai_errors",
        "app.problems",
        "app.middleware",
        "app.observing",
        "app.tracing",
        "app.admission",
        "app.draining",
        "app.authentication",
        "app.rate_limits",
        "app.head_limit",
        "app.request_log",
        "app.coarse_timer",
        "app.http_protocol",
        "app.api",
    },
    {"app.assembly"},
    {"app.main", "app.doctor", "app.workers", "app.__main__"},
]

MODULES = sorted((ROOT / "app").rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> int:
    package = ".".join(module.split(".")[:2])
    return next(number for number, names in enumerate(LAYERS) if package in names)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    """A module below never knows one above."""
    name = module_name(path)
    if name == "app":
        return
    for imported in imports(path):
        if imported.startswith("app."):
            assert layer(imported) <= layer(name), f"{name} imports {imported}"


def test_imports_have_no_circle() -> None:
    known = {module_name(path): path for path in MODULES}
    edges = {name: {one for one in imports(path) if one in known} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name not in done:
            for following in edges[name] - {name}:
                visit(following, (*trail, name))
            done.add(name)

    for name in known:
        visit(name, ())


def test_the_api_does_not_know_llamaindex() -> None:
    for path in (ROOT / "app" / "api").glob("*.py"):
        assert not any(name.startswith("llama_index") for name in imports(path)), path


def test_indexing_does_not_wait_for_llamaindex(tmp_path: Path) -> None:
    """It takes two seconds to import: an operator would wait for that, and each reader process, too."""
    code = (
        "import sys, app.assembly.indexing, app.assembly.postgres\n"
        "unneeded = {'llama_index', 'fastapi', 'openai', 'aiohttp'} & set(sys.modules)\n"
        "assert not unneeded, unneeded\n"
    )
    run_code(code, tmp_path)


def test_nothing_touches_llamaindex_global_settings() -> None:
    """It is one mutable object for the whole process."""
    for path in MODULES:
        assert "llama_index.core.Settings" not in imports(path), path


def test_importing_does_nothing(tmp_path: Path) -> None:
    """No files, no sockets, no threads, and no provider's client until one is set."""
    code = (
        "import sys, threading, app.main\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert not {'openai', 'kreuzberg', 'wordllama'} & set(sys.modules), 'imported for nothing'\n"
    )
    run_code(code, tmp_path)
    assert list(tmp_path.iterdir()) == []


def run_code(code: str, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        timeout=60,
    )
