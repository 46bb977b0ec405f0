"""Faults of a database under load, and clients that keep asking meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg import sql

from app.config.settings import Settings
from tests.support.postgres import DATABASE, PostgresServer
from tests.support.serving import wait_for

QUESTION = {"query": "How long is parental leave?"}
# The pause between two questions of one client.
_PAUSE_S = 0.01


class Load:
    """Clients that ask until the load ends.

    Attributes:
        answers: all responses.
        problems: the errors of clients; a client ends with its first error, such as a timeout of 60 s.
    """

    def __init__(self, url: str, clients: int) -> None:
        self.answers: list[httpx.Response] = []
        self.problems: list[str] = []
        self._url = url
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def count(self, status: int) -> int:
        return sum(answer.status_code == status for answer in self.answers)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._ended.wait(_PAUSE_S):
                try:
                    self.answers.append(client.post("/query", json=QUESTION))
                except httpx.HTTPError as error:
                    self.problems.append(repr(error))
                    return


@contextmanager
def load(url: httpx.URL, clients: int = 4) -> Iterator[Load]:
    running = Load(str(url), clients)
    for thread in running._threads:
        thread.start()
    try:
        yield running
    finally:
        running._ended.set()
        for thread in running._threads:
            thread.join()


@contextmanager
def hanging(server: PostgresServer) -> Iterator[None]:
    """Stop all processes of a server with SIGSTOP: its sockets stay open, but are not read."""
    stopped: list[int] = []
    try:
        # The postmaster first, as it starts new processes.
        _stop(server.pid, stopped)
        found = subprocess.run(
            ["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=True
        ).stdout
        for pid in map(int, found.split()):
            _stop(pid, stopped)
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _stop(pid: int, stopped: list[int]) -> None:
    """Stop a process; one that has ended stays a zombie, as its parent is stopped."""
    stopped.append(pid)
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: _state(pid) in {"T", "Z"}, "the process to stop")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def locked(server: PostgresServer, schema: str, index_id: str, database: str = DATABASE) -> Iterator[None]:
    """Lock an index, so that no search of it returns."""
    name = sql.Identifier(schema, f"chunks_{index_id}")
    with psycopg.connect(server.url(database)) as connection:
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(name))
        yield


def connections(server: PostgresServer, purpose: str = "") -> list[int]:
    """Return the process ids of the service's connections."""
    statement = f"SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'rag-service {purpose}%'"
    return [pid for (pid,) in server.execute(statement)]


def environment_of(settings: Settings) -> dict[str, str]:
    """Make the environment of a process with the same database and documents."""
    assert settings.database.url is not None
    return {
        "DATABASE_URL": settings.database.url.get_secret_value(),
        "DB_SCHEMA": settings.database.schema_name,
        "DOCUMENTS_DIR": str(settings.documents.dir),
        "PARSE_WORKERS": "1",
    }


def assert_unavailable(answer: httpx.Response, *codes: str) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    if codes:
        assert answer.json()["code"] in codes, answer.text


def assert_failed_in_one_line(done: subprocess.CompletedProcess[str], *, says: str) -> None:
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("Failed: ")]
    assert done.stderr.splitlines()[-1:] == lines, done.stderr
    assert says in lines[0], lines[0]
    assert "Traceback" not in done.stderr


def values_of(server: PostgresServer, schema: str) -> dict[str, Any]:
    return {"database_url": server.url(DATABASE), "db_schema": schema}
