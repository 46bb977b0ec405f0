"""The database's disk is full: told in a line, and the index before is served."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.config.settings import Settings
from tests.conftest import build, write_two_documents
from tests.support.mounts import SmallDisk, small_disk
from tests.support.postgres import PASSWORD, PostgresServer
from tests.support.postgres_faults import QUESTION, assert_failed_in_one_line, environment_of, values_of
from tests.support.serving import run_reindex, wait_for

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

# Entering the mount is for root, so it is root that does it, and gives its rights away then.
_WRAPPER = """#!/bin/sh
exec {enter} {identity} {program} "$@"
"""


class ServerOnSmallDisk(PostgresServer):
    """One that sees a disk that nobody else does."""

    def __init__(self, folder: Path, disk: SmallDisk) -> None:
        super().__init__(folder)
        user = self._wheel.system_user
        identity = ""
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(disk.content, account.pw_uid, account.pw_gid)
            identity = f"--setuid={account.pw_uid} --setgid={account.pw_gid}"
            self._wheel.system_user = None
        self._wrapper = folder.parent / "postgres"
        program = super().program("postgres")
        self._wrapper.write_text(
            _WRAPPER.format(enter=" ".join(disk.within), identity=identity, program=program)
        )
        self._wrapper.chmod(0o755)

    def program(self, name: str) -> Path:
        return self._wrapper if name == "postgres" else super().program(name)


@contextmanager
def server_on_small_disk() -> Iterator[tuple[PostgresServer, SmallDisk]]:
    """With a database `rag` on it; the write-ahead log is elsewhere."""
    if os.geteuid() != 0:
        pytest.skip("needs root: PostgreSQL refuses to run in a user namespace as its root")
    folder = Path(tempfile.mkdtemp(prefix="rag-pg-"))
    folder.chmod(0o755)
    (folder / "small").mkdir()
    try:
        with small_disk(folder / "small", "64m") as disk:
            server = ServerOnSmallDisk(folder / "data", disk)
            try:
                server.start()
                server.execute(f"ALTER ROLE postgres PASSWORD '{PASSWORD}'")
                server.execute(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
                server.execute("CREATE DATABASE rag TABLESPACE small")
                yield server, disk
            finally:
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_reindex_that_does_not_fit_leaves_nothing(settings: MakeSettings, serve: Serve) -> None:
    """It can therefore succeed as soon as there is space."""
    with server_on_small_disk() as (server, disk):
        made = settings(**values_of(server, "rag"), db_pool_timeout_s=20)
        write_two_documents(made.documents.dir)
        first = build(made).index
        client = serve(made)
        for number in range(300):
            (made.documents.dir / f"{number}.md").write_text(
                f"Document {number}. " + f"Trains {number} are booked early. " * 25
            )
        disk.leave_free(400_000)
        tables = tables_of(server)
        assert_failed_in_one_line(run_reindex(environment_of(made)), says="the database's disk is full")
        assert tables_of(server) == tables
        answer = client.post("/query", json=QUESTION).json()
        assert (answer["index"], "16 weeks" in answer["answer"]) == (first, True)
        assert client.get("/health").json()["index"]["id"] == first

        disk.leave_free(48_000_000)
        second = build(made).index
        wait_for(lambda: client.get("/health").json()["index"]["id"] == second, "the swap")


def tables_of(server: PostgresServer) -> list[str]:
    rows = server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'rag' ORDER BY 1", "rag")
    return [name for (name,) in rows]
