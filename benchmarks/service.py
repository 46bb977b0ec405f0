"""The service as its users run it: an index made by scripts/reindex.py, a server process, and HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from app.config.settings import FIELDS
from benchmarks.datasets import ROOT
from benchmarks.processes import Replica, free_port, running

_KEYLESS = {"EMBEDDING_PROVIDER": "local", "LLM_PROVIDER": "extractive", "LOG_LEVEL": "WARNING"}
_REINDEX_DONE = (0, 3)
SERVER = (sys.executable, "-m", "app")


def keyless_environment(**settings: str) -> dict[str, str]:
    """Make an environment with the given settings and no others, so that defaults are measured.

    No key is set unless it is given. Compiled modules are kept, as in production.
    """
    names = {name.upper() for name in FIELDS} | {"PYTHONDONTWRITEBYTECODE"}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in names and not name.upper().startswith("OPENAI_")
    }
    return {**inherited, "PYTHONPATH": str(ROOT), **_KEYLESS, **settings}


def server_environment(index: Path, port: int, **settings: str) -> dict[str, str]:
    """Make the environment of a server process."""
    return keyless_environment(INDEX_DIR=str(index), HOST="127.0.0.1", PORT=str(port), **settings)


def openai_settings(provider_url: str) -> dict[str, str]:
    """Make the settings for using the models of a provider that speaks OpenAI's API."""
    return {
        "OPENAI_BASE_URL": provider_url,
        "OPENAI_API_KEY": "sk-benchmark",
        "EMBEDDING_PROVIDER": "auto",
        "LLM_PROVIDER": "auto",
    }


class Client:
    """A client of a running service."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def retrieve(self, query: str, top_k: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._post("/retrieve", query, {"top_k": top_k})["citations"]
        return found

    def query(self, query: str) -> dict[str, Any]:
        return self._post("/query", query, {})

    def index(self) -> dict[str, Any]:
        index: dict[str, Any] = self._http.get("/health").raise_for_status().json()["index"]
        return index

    def _post(self, path: str, query: str, fields: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = (
            self._http.post(path, json={"query": query, **fields}).raise_for_status().json()
        )
        return answer


@contextmanager
def written(files: Mapping[str, str]) -> Iterator[Path]:
    """Write text files to a temporary folder."""
    with TemporaryDirectory(prefix="rag-benchmark-") as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        yield Path(folder)


@contextmanager
def serve_files(files: Mapping[str, str], **settings: str) -> Iterator[Client]:
    """Index and serve text files; see `serve`."""
    with written(files) as documents, serve(documents, **settings) as client:
        yield client


@contextmanager
def serve(documents: Path, **settings: str) -> Iterator[Client]:
    """Index a folder and serve it, with default settings except for those given."""
    with (
        indexed(documents, **settings) as index,
        served(index, DOCUMENTS_DIR=str(documents), **settings) as server,
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http,
    ):
        yield Client(http)


@contextmanager
def indexed(documents: Path, **settings: str) -> Iterator[Path]:
    """Index a folder into a temporary index directory."""
    with TemporaryDirectory(prefix="rag-benchmark-") as folder:
        index = Path(folder, "index")
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "reindex.py"), "--json"],
            env=keyless_environment(DOCUMENTS_DIR=str(documents), INDEX_DIR=str(index), **settings),
            cwd=folder,  # where there is no .env
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in _REINDEX_DONE:
            raise RuntimeError(f"reindex failed: {done.stderr[-2000:]}")
        yield index


@contextmanager
def served(index: Path, **settings: str) -> Iterator[Replica]:
    """Run a server process with an existing index."""
    port = free_port()
    environment = server_environment(index, port, **settings)
    with running(SERVER, port=port, ready="/health", environment=environment) as server:
        yield server
