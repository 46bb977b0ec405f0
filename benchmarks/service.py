"""The service as its users run it: an index by scripts/reindex.py, a server process, HTTP. No key is set."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from app.settings import NotSupportedYet, Settings
from benchmarks.datasets import ROOT

_KEYLESS = {"EMBEDDING_PROVIDER": "local", "LLM_PROVIDER": "extractive", "LOG_LEVEL": "WARNING"}
_START_TIMEOUT_S = 60.0
_REINDEX_DONE = (0, 3)


def keyless_environment(**settings: str) -> dict[str, str]:
    """This process's environment with the given settings and no other, so that defaults are measured."""
    names = {
        *(name.upper() for name in Settings.model_fields),
        *(name.upper() for name in NotSupportedYet.model_fields),
    }
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in names and not name.upper().startswith("OPENAI_")
    }
    return {**inherited, "PYTHONPATH": str(ROOT), **_KEYLESS, **settings}


class Client:
    """Asks a running service."""

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
    """A folder with text files, for as long as the context lasts."""
    with TemporaryDirectory(prefix="rag-benchmark-") as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        yield Path(folder)


@contextmanager
def serve_files(files: Mapping[str, str], **settings: str) -> Iterator[Client]:
    with written(files) as documents, serve(documents, **settings) as client:
        yield client


@contextmanager
def serve(documents: Path, **settings: str) -> Iterator[Client]:
    """Index a folder with the default settings but for those given, and serve it.

    The processes' working directory is a temporary one, so that no `.env` is read.
    """
    port = _free_port()
    with TemporaryDirectory(prefix="rag-benchmark-") as folder:
        environment = keyless_environment(
            DOCUMENTS_DIR=str(documents),
            INDEX_DIR=str(Path(folder, "index")),
            HOST="127.0.0.1",
            PORT=str(port),
            **settings,
        )
        command = [sys.executable, str(ROOT / "scripts" / "reindex.py"), "--json"]
        indexing = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        if indexing.returncode not in _REINDEX_DONE:
            raise RuntimeError(f"reindex failed: {indexing.stderr[-2000:]}")
        server = subprocess.Popen([sys.executable, "-m", "app"], env=environment, cwd=folder)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
                _wait_until_ready(http, server)
                yield Client(http)
        finally:
            server.terminate()
            server.wait(30)


def _wait_until_ready(http: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if http.get("/health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the server did not become ready")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
