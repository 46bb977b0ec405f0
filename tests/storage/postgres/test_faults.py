"""A database that is killed, hangs, is slow or refuses: each has its answer, and nothing stays broken."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from app.bootstrap.timing import PRODUCTION
from app.config.settings import Settings
from tests.conftest import build, write_two_documents
from tests.support.postgres import DATABASE, PASSWORD, PostgresServer, drop_schema, postgres_server
from tests.support.postgres_faults import (
    QUESTION,
    assert_failed_in_one_line,
    assert_unavailable,
    connections,
    environment_of,
    hanging,
    load,
    locked,
    values_of,
)
from tests.support.serving import free_port, run_reindex, wait_for
from tests.support.timing import ENDED_BY_THE_DATABASE

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    """For tests that do something to it; each leaves it as it was."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def indexed(own: PostgresServer, settings: MakeSettings) -> Iterator[MakeSettings]:
    """Settings with an index of two documents."""
    values = values_of(own, f"test_{secrets.token_hex(4)}") | {"db_pool_timeout_s": 20}
    made = settings(**values)
    write_two_documents(made.documents.dir)
    build(made)
    yield lambda **more: settings(**values | more)
    drop_schema(own, values["db_schema"])


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/query", json=QUESTION)


def wait_for_an_answer(client: httpx.Client) -> None:
    wait_for(lambda: ask(client).status_code == 200, "an answer")


def served_id(client: httpx.Client) -> str:
    index: str = client.get("/health").json()["index"]["id"]
    return index


def rewrite(settings: Settings) -> str:
    """Reindex what has changed; the index."""
    (settings.documents.dir / "leave.md").write_text(f"Parental leave lasts 20 weeks. {secrets.token_hex(4)}")
    index = build(settings).index
    assert index is not None
    return index


def test_the_service_recovers_from_a_killed_database_under_load(
    own: PostgresServer, indexed: MakeSettings, serve: Serve
) -> None:
    """Until then it answers 503; it needs no restart, and leaves no stale connections."""
    made = indexed(db_pool_max=3, db_pool_timeout_s=0.5)
    client = serve(made)
    with load(client.base_url) as running:
        wait_for(lambda: running.count(200) > 20, "answers before")
        own.kill()
        health = wait_for(lambda: unready(client), "readiness to fail")
        assert (health["index_ready"], health["detail"]) == (False, "the database cannot be reached")
        wait_for(lambda: running.count(503) > 20, "refusals")
        own.start()
        wait_for(lambda: client.get("/health").status_code == 200, "readiness to return")
        before = running.count(200)
        wait_for(lambda: running.count(200) > before + 20, "answers afterwards")
        wait_for(lambda: len(connections(own)) <= made.database.pool_max + 2, "stale connections to end")
    assert running.problems == []
    for answer in running.answers:
        if answer.status_code != 200:
            assert_unavailable(answer)


def unready(client: httpx.Client) -> dict[str, Any] | None:
    response = client.get("/health")
    return response.json() if response.status_code == 503 else None


def test_readiness_ends_when_the_idle_database_is_lost(
    own: PostgresServer, indexed: MakeSettings, serve: Serve
) -> None:
    """It does so at once, however rarely the database is polled."""
    client = serve(indexed(index_poll_s=3600))
    wait_for(lambda: connections(own, "listen"), "the listener")
    own.kill()
    wait_for(lambda: unready(client), "readiness to fail")
    own.start()
    wait_for(lambda: client.get("/health").status_code == 200, "readiness to return")
    wait_for_an_answer(client)


def test_the_service_recovers_from_a_hanging_database(
    own: PostgresServer, indexed: MakeSettings, serve: Serve
) -> None:
    """Meanwhile it answers 503 in bounded time, although no socket is closed."""
    made = indexed(db_pool_max=2, db_pool_timeout_s=0.3, db_statement_timeout_s=0.5)
    client = serve(made, timing=PRODUCTION)
    client.timeout = httpx.Timeout(60)
    wait_for_an_answer(client)
    with hanging(own):
        assert_unavailable(ask(client))
        wait_for(lambda: unready(client), "readiness to fail")
        assert_unavailable(ask(client), "index_not_ready")
    wait_for(lambda: client.get("/health").status_code == 200, "readiness to return")
    wait_for_an_answer(client)
    wait_for(lambda: len(connections(own)) <= 4, "stale connections to end")


def test_too_slow_a_search_is_cancelled(own: PostgresServer, indexed: MakeSettings, serve: Serve) -> None:
    made = indexed(db_statement_timeout_s=0.2)
    client = serve(made, timing=ENDED_BY_THE_DATABASE)
    with locked(own, made.database.schema_name, served_id(client)):
        assert_unavailable(ask(client), "overloaded")
    wait_for_an_answer(client)


def test_a_question_without_a_free_connection_is_refused(
    own: PostgresServer, indexed: MakeSettings, serve: Serve
) -> None:
    """The question that holds the connection is answered."""
    made = indexed(db_pool_min=1, db_pool_max=1, db_pool_timeout_s=0.2, db_statement_timeout_s=60)
    client = serve(made)
    client.timeout = httpx.Timeout(60)
    wait_for_an_answer(client)
    first: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: first.append(ask(client)))
    with locked(own, made.database.schema_name, served_id(client)):
        asking.start()
        wait_for(lambda: is_waiting(own), "the search to wait for the lock")
        assert_unavailable(ask(client), "overloaded")
    asking.join()
    assert first[0].status_code == 200


def is_waiting(server: PostgresServer) -> bool:
    return bool(server.execute("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))


def test_a_role_without_a_connection_is_reported(
    own: PostgresServer, indexed: MakeSettings, serve: Serve
) -> None:
    own.execute(f"CREATE ROLE limited LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 0")
    try:
        made = indexed(database_url=own.url(user="limited"))
        health = serve(made, ready=False).get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "failed")
        assert "no connection left" in health.json()["detail"]
        assert_failed_in_one_line(run_reindex(environment_of(made)), says="no connection left")
    finally:
        own.execute("DROP ROLE limited")


def test_a_database_without_a_free_connection_is_reported(settings: MakeSettings, serve: Serve) -> None:
    """Readiness returns when there is one."""
    with postgres_server({"max_connections": "5", "superuser_reserved_connections": "1"}) as server:
        made = settings(**values_of(server, "rag"), db_pool_min=1, db_pool_max=1)
        write_two_documents(made.documents.dir)
        build(made)
        others = [connect_when_free(server) for _ in range(5)]
        client = serve(made, ready=False)
        assert "no connection left" in client.get("/health").json()["detail"]
        for other in others:
            other.close()
        wait_for(lambda: client.get("/health").status_code == 200, "readiness")
        wait_for_an_answer(client)


def connect_when_free(server: PostgresServer) -> psycopg.Connection:
    """Who has just gone may still hold its place."""

    def connect() -> psycopg.Connection | None:
        try:
            return psycopg.connect(server.url())
        except psycopg.OperationalError:
            return None

    connection: psycopg.Connection = wait_for(connect, "a connection to be free")
    return connection


def test_a_read_only_database_serves_but_is_not_reindexed(
    own: PostgresServer, indexed: MakeSettings, serve: Serve
) -> None:
    own.execute(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on")
    try:
        made = indexed()
        assert ask(serve(made)).status_code == 200
        assert_failed_in_one_line(run_reindex(environment_of(made)), says="must lead to the primary")
    finally:
        own.execute(f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only")


def test_a_dead_first_host_is_skipped(own: PostgresServer, indexed: MakeSettings, serve: Serve) -> None:
    address = f"127.0.0.1:{own.port}"
    url = own.url().replace(address, f"127.0.0.1:{free_port()},{address}")
    client = serve(indexed(database_url=url))
    assert ask(client).status_code == 200
    done = run_reindex(environment_of(indexed(database_url=url)))
    assert done.returncode == 0, done.stderr


def test_a_reindex_is_noticed_by_notification(
    own: PostgresServer, indexed: MakeSettings, serve: Serve
) -> None:
    """It is noticed long before the next poll, even after the listening connection was cut."""
    made = indexed(index_poll_s=3600)
    wait_for(lambda: not connections(own, "listen"), "the listeners before to end")
    client = serve(made)
    (listener,) = wait_for(lambda: connections(own, "listen"), "the listener")
    # The first may be found by the look with which listening begins; of the others it has to be told.
    for _ in range(3):
        wait_for_swap(client, rewrite(made))

    own.execute(f"SELECT pg_terminate_backend({listener})")
    wait_for(lambda: connections(own, "listen") not in ([], [listener]), "the listener to come back")
    wait_for_swap(client, rewrite(made))


def wait_for_swap(client: httpx.Client, index: str | None) -> None:
    wait_for(lambda: served_id(client) == index, "the swap")


def test_a_reindex_is_noticed_by_polling(own: PostgresServer, indexed: MakeSettings, serve: Serve) -> None:
    made = indexed(index_poll_s=0.2)
    first = rewrite(made)
    second = rewrite(made)
    client = serve(made)
    assert served_id(client) == second
    # Nobody is told.
    own.execute(f"UPDATE {made.database.schema_name}.served SET id = '{first}'", DATABASE)
    wait_for(lambda: served_id(client) == first, "the swap")


def test_dropped_tables_end_readiness_until_the_next_reindex(
    own: PostgresServer, indexed: MakeSettings, serve: Serve
) -> None:
    """Queries get the same reason as readiness."""
    made = indexed()
    client = serve(made)
    drop_schema(own, made.database.schema_name)
    health = wait_for(lambda: unready(client), "readiness to fail")
    assert "there is no index in the database" in health["detail"]
    assert_unavailable(ask(client), "index_not_ready")
    build(made)
    wait_for(lambda: client.get("/health").status_code == 200, "readiness to return")
    assert ask(client).status_code == 200


def test_a_first_index_is_served_when_it_is_built(
    own: PostgresServer, settings: MakeSettings, serve: Serve, tmp_path: Path
) -> None:
    made = settings(**values_of(own, f"test_{secrets.token_hex(4)}"), db_pool_timeout_s=20)
    write_two_documents(made.documents.dir)
    client = serve(made, ready=False)
    assert "run make reindex" in client.get("/health").json()["detail"]
    build(made)
    wait_for(lambda: client.get("/health").status_code == 200, "readiness")
    assert ask(client).status_code == 200
    drop_schema(own, made.database.schema_name)
