"""Real servers: in a thread for speed, or as a process of its own, as users start it."""

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
    """Poll until `condition()` gives something; an error that says what was waited for, if it never does."""
    deadline = time.monotonic() + limit_s
    while True:
        # Before the look: after a pause of the whole machine there is another.
        late = time.monotonic() >= deadline
        if result := condition():
            return result
        if late:
            raise AssertionError(f"waited {limit_s:g} s for {what}")
        time.sleep(0.02)


_reserved: list[socket.socket] = []


def free_port() -> int:
    """One where nobody listens, until a server that is told of it does: no other socket is given it."""
    socket_of_it = socket.socket()
    socket_of_it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    socket_of_it.bind(("127.0.0.1", 0))
    _reserved.append(socket_of_it)
    port: int = socket_of_it.getsockname()[1]
    return port


@contextlib.contextmanager
def serve_in_thread(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI application over HTTP from a thread; gives its address.

    Args:
        options: more of uvicorn's.
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
    """`python -m app`, with its output."""

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
        """What /health says; None while nobody listens."""
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
    """
    Args:
        within: a command that runs what follows it.
    """
    server = ServerProcess(environment, log, within=within)
    try:
        yield server
    finally:
        # All of its group: workers would outlive a parent that is killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(30)


def run_reindex(
    environment: dict[str, str], *arguments: str, within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """
    Args:
        within: a command that runs what follows it.
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
