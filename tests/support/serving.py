"""Real servers, in a thread for speed, or in a process of their own, as users start them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import uvicorn

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 60.0


def wait_for(condition: Any, what: str, limit_s: float = START_LIMIT_S) -> Any:
    """Poll until `condition()` returns a true value, and return it; fail after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while True:
        # Read before the condition, so that it is checked once more after a pause of the whole machine.
        late = time.monotonic() >= deadline
        if result := condition():
            return result
        if late:
            raise AssertionError(f"waited {limit_s:g} s for {what}")
        time.sleep(0.02)


_reserved: list[socket.socket] = []


def free_port() -> int:
    """Reserve a port for a server, which no other socket is given in the meantime."""
    socket_of_it = socket.socket()
    socket_of_it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    socket_of_it.bind(("127.0.0.1", 0))
    _reserved.append(socket_of_it)
    port: int = socket_of_it.getsockname()[1]
    return port


@contextlib.contextmanager
def serve_in_thread(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI application over HTTP from a thread, and yield its address.

    Args:
        options: further options of uvicorn.
    """
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, loop="asyncio", lifespan="on", **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive(), "the server to start")
    assert server.started, "the server ended while it started"
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"


class ServerProcess:
    """A process of `python -m app`, with its output."""

    def __init__(
        self,
        environment: dict[str, str],
        log: Path,
        cwd: Path = ROOT,
        within: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*within, python, "-m", "app"],
                cwd=cwd,
                env=clean_environment() | {"PORT": str(self.port), "PYTHONPATH": str(ROOT)} | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def health(self) -> httpx.Response | None:
        """Get /health; None while nothing listens."""
        assert self.process.poll() is None, f"the server ended:\n{self.output}"
        try:
            return httpx.get(f"{self.url}/health", timeout=10)
        except httpx.TransportError:
            return None

    def wait_until_ready(self) -> dict[str, Any]:
        def ready() -> dict[str, Any] | None:
            response = self.health()
            return response.json() if response is not None and response.status_code == 200 else None

        answer: dict[str, Any] = wait_for(ready, "the server to be ready")
        return answer

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def server_process(
    environment: dict[str, str], log: Path, within: Sequence[str] = ()
) -> Iterator[ServerProcess]:
    """Run a server, and kill it at the end.

    Args:
        within: a command prefix.
    """
    server = ServerProcess(environment, log, within=within)
    try:
        yield server
    finally:
        # The whole group, because workers would outlive a killed parent.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(30)


def run_reindex(
    environment: dict[str, str], *arguments: str, within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `scripts/reindex.py`.

    Args:
        within: a command prefix.
    """
    return subprocess.run(
        [*within, sys.executable, str(ROOT / "scripts" / "reindex.py"), *arguments],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """The environment without any setting of ours, so that a developer's own never leak into a test."""
    from app.config.settings import FIELDS  # noqa: PLC0415 - imported late: it is under test

    ours = {name.upper() for name in FIELDS}
    return {name: value for name, value in os.environ.items() if name.upper() not in ours}
