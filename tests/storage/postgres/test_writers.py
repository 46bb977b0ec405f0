"""Who may write and read an index in PostgreSQL, and what is said to who may not."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import errors
from pydantic import SecretStr

from app.config.settings import Settings
from app.domain.errors import DatabaseError, SnapshotDamaged
from app.embeddings.static_model import DIMENSIONS
from app.storage.postgres.database import Connection, Database
from app.storage.postgres.replica import Limits, Replica
from tests.conftest import build, write_two_documents
from tests.support.postgres import DATABASE, PASSWORD, PostgresServer
from tests.support.serving import run_reindex, wait_for
from tests.support.settings import with_values
from tests.support.stored_in_postgres import assert_nothing_left_over, database_of, stored_in_postgres

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

_SIXTEEN = 16


@pytest.fixture
def made(settings: MakeSettings, database: dict[str, Any]) -> Settings:
    """Two documents, without an index of them."""
    made = settings(**database)
    write_two_documents(made.documents.dir)
    return made


@pytest.fixture
def role(postgres: PostgresServer) -> Iterator[str]:
    """One that may connect, and nothing else."""
    name = f"reader_{secrets.token_hex(4)}"
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'", DATABASE)
    yield name
    postgres.execute(f"DROP OWNED BY {name}", DATABASE)
    postgres.execute(f"DROP ROLE {name}", DATABASE)


@pytest.fixture
def other_database(postgres: PostgresServer) -> Iterator[str]:
    """Without pgvector."""
    name = f"other_{secrets.token_hex(4)}"
    postgres.execute(f"CREATE DATABASE {name}")
    yield name
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def environment_of(settings: Settings) -> dict[str, str]:
    return {
        "DOCUMENTS_DIR": str(settings.documents.dir),
        "INDEX_DIR": str(settings.index.dir),
        "DATABASE_URL": database_of(settings).url,
        "DB_SCHEMA": settings.database.schema_name,
        "PARSE_WORKERS": "1",
    }


def assert_fails(settings: Settings, said: str) -> None:
    """In one line, which does not show the password."""
    assert_failed(run_reindex(environment_of(settings)), said)


def assert_failed(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Failed: ")]
    assert said in line
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr


def test_one_of_sixteen_concurrent_reindexes_builds(made: Settings) -> None:
    """The others name the one that builds, or find that there is nothing to do."""
    with ThreadPoolExecutor(_SIXTEEN) as pool:
        runs = list(pool.map(lambda _: run_reindex(environment_of(made)), range(_SIXTEEN)))
    said = [run.stdout or run.stderr for run in runs]
    built = [text for run, text in zip(runs, said, strict=True) if "texts embedded" in text]
    assert len(built) == 1, said
    for run, text in zip(runs, said, strict=True):
        if run.returncode:
            assert_failed(run, f"the index in the schema {made.database.schema_name} is being written by ")
        else:
            assert text in built or "Nothing has changed" in text
    content = stored_in_postgres(database_of(made))
    assert [record.name for record in content.documents] == ["leave.md", "travel.md"]
    assert_nothing_left_over(database_of(made))


def test_sixteen_concurrent_servers_all_become_ready(made: Settings, serve: Serve) -> None:
    """They only read, and each has its own connections."""
    index = build(made).index
    small = with_values(made, db_pool_min=1, db_pool_max=2)
    with ThreadPoolExecutor(_SIXTEEN) as pool:
        clients = list(pool.map(lambda _: serve(small), range(_SIXTEEN)))
    for client in clients:
        answer = client.post("/query", json={"query": "How long is parental leave?"}).json()
        assert (answer["index"], answer["sources"][0]) == (index, "leave.md")


def test_servers_without_an_index_build_none(made: Settings, serve: Serve, postgres: PostgresServer) -> None:
    """They tell what to do, and become ready when it is done."""
    client = serve(made, ready=False)
    wait_for(lambda: client.get("/health").json()["status"] == "failed", "the server to see that")
    assert "run make reindex" in client.get("/health").json()["detail"]
    assert postgres.execute("SELECT to_regnamespace(%s)::text", DATABASE, [made.database.schema_name]) == [
        (None,)
    ]
    index = build(made).index
    wait_for(lambda: client.get("/health").status_code == 200, "the index to be served")
    assert client.get("/health").json()["index"]["id"] == index


@dataclass(frozen=True)
class FilledLate(Database):
    """A database that gets its tables right after a connection has found none.

    Attributes:
        fill: makes them.
    """

    fill: Callable[[], object] = lambda: None

    def connect(self, purpose: str) -> Connection:
        fill = self.fill

        class Cursor(psycopg.Cursor[Any]):
            def execute(self, *arguments: Any, **options: Any) -> Cursor:
                try:
                    return super().execute(*arguments, **options)
                except errors.UndefinedTable:
                    fill()
                    raise

        connection = super().connect(purpose)
        connection.cursor_factory = Cursor
        return connection


def test_a_first_index_that_comes_in_the_middle_of_a_look_is_read_by_the_next(made: Settings) -> None:
    """By another connection: one from before its tables does not understand what is in them."""
    known = database_of(made)
    database = FilledLate(known.url, known.schema, known.timeouts, fill=lambda: build(made))
    limits = Limits(pool_min=1, pool_max=1, wait_s=60, statement_s=60, ef_search=40)
    replica = Replica(database, limits)
    assert replica.look() is None
    index = replica.look()
    assert index is not None
    _, chunks = replica.load(index)
    (leave,) = chunks.entries("leave.md")
    assert len(leave.vector) == DIMENSIONS


def test_a_read_only_role_serves_the_next_index_too(
    made: Settings, serve: Serve, postgres: PostgresServer, role: str
) -> None:
    build(made)
    postgres.execute(f"GRANT USAGE ON SCHEMA {made.database.schema_name} TO {role}", DATABASE)
    postgres.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {made.database.schema_name} TO {role}", DATABASE)
    reading = with_values(made, database_url=SecretStr(postgres.url(user=role)))
    client = serve(reading)
    question = {"query": "How long is parental leave?"}
    assert "16 weeks" in client.post("/query", json=question).json()["answer"]

    (made.documents.dir / "leave.md").write_text("Parental leave lasts 20 weeks.")
    second = build(made).index
    wait_for(lambda: client.get("/health").json()["index"]["id"] == second, "the swap")
    assert "20 weeks" in client.post("/query", json=question).json()["answer"]

    (made.documents.dir / "leave.md").write_text("Parental leave lasts 30 weeks.")
    assert_fails(reading, "the database's role may not do this: reindex as the owner of the schema")
    assert client.get("/health").json()["index"]["id"] == second


def test_tables_of_a_newer_version_are_refused_and_unchanged(
    made: Settings, serve: Serve, postgres: PostgresServer
) -> None:
    build(made)
    postgres.execute(f"UPDATE {made.database.schema_name}.layout SET version = 99", DATABASE)
    schema = made.database.schema_name
    said = f"the schema {schema} has layout 99, and this version knows 1: run the newest version"
    (made.documents.dir / "leave.md").write_text("Parental leave lasts 20 weeks.")
    assert_fails(made, said)
    with pytest.raises(SnapshotDamaged, match="layout 99"):
        build(made, full=True)
    client = serve(made, ready=False)
    wait_for(lambda: client.get("/health").json()["status"] == "failed", "the server to see that")
    assert client.get("/health").json()["detail"].startswith(said)
    postgres.execute(f"UPDATE {made.database.schema_name}.layout SET version = 1", DATABASE)
    wait_for(lambda: client.get("/health").status_code == 200, "the index to be served")


def test_pgvector_is_created_by_a_role_with_the_right_to_it(
    made: Settings, postgres: PostgresServer, other_database: str, role: str
) -> None:
    """Another role is told what to do, and by whom."""

    plain = with_values(made, database_url=SecretStr(postgres.url(other_database, user=role)))
    assert_fails(plain, "the database has no pgvector, or one older than 0.8: install it, and run CREATE ")
    superuser = with_values(made, database_url=SecretStr(postgres.url(other_database)))
    assert build(superuser).published


def test_a_server_without_pgvector_reports_it(
    made: Settings, serve: Serve, postgres: PostgresServer, other_database: str
) -> None:
    """It serves again after the extension and the index have been made again."""
    made = with_values(made, database_url=SecretStr(postgres.url(other_database)))
    build(made)
    postgres.execute("DROP EXTENSION vector CASCADE", other_database)
    client = serve(made, ready=False)
    wait_for(lambda: client.get("/health").json()["status"] == "failed", "the server to see that")
    assert client.get("/health").json()["detail"].startswith("the database has no pgvector")
    build(made, full=True)
    wait_for(lambda: client.get("/health").status_code == 200, "the index to be served")
    answer = client.post("/query", json={"query": "How long is parental leave?"}).json()
    assert "16 weeks" in answer["answer"]


def test_a_wrong_password_is_reported_but_not_shown(made: Settings, postgres: PostgresServer) -> None:
    wrong = postgres.url().replace(PASSWORD, f"{PASSWORD}-no")
    settings = with_values(made, database_url=SecretStr(wrong))
    with pytest.raises(DatabaseError) as raised:
        build(settings)
    assert PASSWORD not in str(raised.value)
    assert_fails(settings, "")
