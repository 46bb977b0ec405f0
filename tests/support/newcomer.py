"""A fresh checkout of the project, for following the documentation without downloads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.support.serving import ROOT, clean_environment, free_port, wait_for

_SHARED = (
    "app",
    "scripts",
    "documents",
    "Makefile",
    "pyproject.toml",
    "requirements.lock",
    "requirements-dev.lock",
)


class Checkout:
    """A folder with the project's files, an index of its own, and a `.venv` that leads to this one.

    Attributes:
        environment: the environment of the commands that are run in it; `PORT` is a free one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        home = folder / "home"
        (home / "Documents").mkdir(parents=True)
        (home / "Documents" / "handbook").symlink_to(ROOT / "documents")
        self.folder.mkdir()
        for name in _SHARED:
            (self.folder / name).symlink_to(ROOT / name)
        self._make_venv(self.folder / ".venv")
        self.port = free_port()
        self.environment = clean_environment() | {
            "HOME": str(home),
            "PORT": str(self.port),
            "UVICORN_PORT": str(self.port),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, code: str) -> str:
        """Run shell commands; return what they print, and fail if they do."""
        done = subprocess.run(
            ["bash", "-euc", code],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def serve(self, code: str, ready: Callable[[httpx.Client], None] = lambda _: None) -> None:
        """Run shell commands of which the last one serves, and end them once the service is ready.

        Args:
            ready: called with a client of the service.
        """
        with (self.folder / "server.log").open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-euc", code],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10) as client:
                wait_for(lambda: self._is_ready(client, process), "the service to be ready", 120)
                ready(client)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    def _is_ready(self, client: httpx.Client, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, (self.folder / "server.log").read_text()
        try:
            return client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def _make_venv(self, venv: Path) -> None:
        (venv / "bin").mkdir(parents=True)
        for name in ("python", "rag-service"):
            _write_command(venv / "bin" / name, f'exec {Path(sys.executable).with_name(name)} "$@"')
        # Make takes the dependencies for installed.
        subprocess.run(["make", "--silent", "--touch", "install"], cwd=self.folder, check=True, timeout=60)


def _write_command(path: Path, code: str) -> None:
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)
