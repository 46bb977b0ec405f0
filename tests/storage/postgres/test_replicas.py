"""Read replicas answer the questions; the primary does, where they cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app.config.settings import Settings
from tests.conftest import build, write_two_documents
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.postgres_faults import QUESTION, assert_unavailable, locked, values_of
from tests.support.serving import wait_for
from tests.support.settings import with_values
from tests.support.timing import ENDED_BY_THE_DATABASE

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def replicated(own: PostgresServer, settings: MakeSettings) -> Iterator[Settings]:
    """A database with an index, and another one with the same, which gets nothing that comes later."""
    own.execute("CREATE DATABASE first")
    made = settings(
        **values_of(own, "rag") | {"database_url": own.url("first")},
        database_read_urls=own.url("replica"),
        db_pool_timeout_s=20,
        db_statement_timeout_s=20,
    )
    write_two_documents(made.documents.dir)
    build(made)
    own.execute("CREATE DATABASE replica TEMPLATE first")
    yield made
    for name in ("first", "replica"):
        own.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/query", json=QUESTION)


def wait_for_an_answer(client: httpx.Client) -> None:
    wait_for(lambda: ask(client).status_code == 200, "an answer")


def health(client: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.get("/health").json()
    return answer


def test_questions_are_answered_by_replicas(own: PostgresServer, replicated: Settings, serve: Serve) -> None:
    """They are answered while nobody can search the primary, unless it is the only database."""
    client = serve(replicated, timing=ENDED_BY_THE_DATABASE)
    only = with_values(replicated, database_read_urls=None, db_statement_timeout_s=0.5)
    alone = serve(only, timing=ENDED_BY_THE_DATABASE)
    with locked(own, "rag", health(client)["index"]["id"], "first"):
        assert [ask(client).status_code for _ in range(5)] == [200] * 5
        assert_unavailable(ask(alone), "overloaded")


def test_the_primary_answers_when_a_replica_is_lost(
    own: PostgresServer, replicated: Settings, serve: Serve, caplog: Any
) -> None:
    """It answers from the first question on, and the log has a line without any password."""
    # So long does a question wait for the replica to come back; for the primary none has to.
    client = serve(with_values(replicated, db_pool_timeout_s=2))
    idle = '\nrag_database_connections{server="primary",state="idle"} 2.0\n'
    wait_for(lambda: idle in client.get("/metrics").text, "the primary's pool")
    wait_for_an_answer(client)
    own.execute("DROP DATABASE replica WITH (FORCE)")
    assert [ask(client).status_code for _ in range(5)] == [200] * 5
    wait_for(lambda: "read replica 1: there is no such database" in caplog.text, "the log to tell")
    assert health(client)["status"] == "ok"


def test_a_replica_is_used_again_when_it_is_back(
    own: PostgresServer, replicated: Settings, serve: Serve
) -> None:
    own.execute("ALTER DATABASE replica RENAME TO away")
    client = serve(with_values(replicated, db_statement_timeout_s=0.5))
    wait_for_an_answer(client)
    own.execute("ALTER DATABASE away RENAME TO replica")
    with locked(own, "rag", health(client)["index"]["id"], "first"):
        wait_for(lambda: ask(client).status_code == 200, "the replica to answer")


def test_the_primary_answers_while_a_replica_lags_behind(replicated: Settings, serve: Serve) -> None:
    """The replica does not have the served index yet."""
    client = serve(replicated)
    (replicated.documents.dir / "leave.md").write_text("Parental leave lasts 20 weeks.")
    index = build(replicated).index
    wait_for(lambda: health(client)["index"]["id"] == index, "the swap")
    answer = ask(client).json()
    assert (answer["index"], "20 weeks" in answer["answer"]) == (index, True)


def test_the_primary_answers_when_a_replica_has_lost_the_chunks(
    own: PostgresServer, replicated: Settings, serve: Serve
) -> None:
    """The question is sent to the primary instead."""
    client = serve(replicated)
    own.execute(f'DROP TABLE rag."chunks_{health(client)["index"]["id"]}"', "replica")
    assert [ask(client).status_code for _ in range(3)] == [200] * 3


def test_a_replica_answers_when_the_primary_is_lost(
    own: PostgresServer, replicated: Settings, serve: Serve
) -> None:
    """It also does so for a server that starts during that time."""
    client = serve(replicated)
    own.execute("ALTER DATABASE first ALLOW_CONNECTIONS false")
    own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'first'")
    wait_for_an_answer(client)
    assert ask(serve(replicated)).status_code == 200
    assert health(client)["status"] == "ok"
