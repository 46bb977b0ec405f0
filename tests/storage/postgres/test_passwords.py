"""The password of DATABASE_URL is never shown, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from app.bootstrap.postgres import make_replicas
from app.config.settings import Settings, SettingsError, load_settings
from app.storage.postgres.database import Database
from tests.conftest import build, write_two_documents
from tests.support.postgres import PASSWORD, PostgresServer, postgres_server
from tests.support.postgres_faults import QUESTION, assert_failed_in_one_line, environment_of, values_of
from tests.support.serving import free_port, run_reindex, server_process, wait_for

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

# Parts of it, too: an address that is cut in the wrong places shows no more than one.
SECRET = "planted"


def everything_said(client: httpx.Client) -> str:
    answers = [client.get(path) for path in ("/health", "/documents", "/metrics")]
    answers += [
        client.post(path, json=body)
        for path, body in (
            ("/query", QUESTION),
            ("/query/stream", QUESTION),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Leave?"}]}),
        )
    ]
    return "".join(answer.text + str(answer.headers) for answer in answers)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (f"postgres:{SECRET}@127.0.0.1:{{port}}/rag", "refuses the password"),
        (f"nobody:{SECRET}@127.0.0.1:{{port}}/rag", "refuses the password"),
        (f"postgres:{SECRET}@127.0.0.1:{{dead}}/rag", "cannot be reached"),
        (f"postgres:{SECRET}@127.0.0.1:{{dead}},127.0.0.1:{{port}}/rag", "refuses the password"),
        (f"postgres:{SECRET}@no-such-host.invalid/rag", "cannot be reached"),
        (f"postgres:{SECRET}@127.0.0.1:{{dead}}/rag?sslmode=require&sslrootcert=/none", "cannot be reached"),
    ],
    ids=["wrong", "role", "dead host", "two hosts", "no host", "no certificate"],
)
def test_an_unusable_database_shows_no_password(
    address: str,
    says: str,
    postgres: PostgresServer,
    settings: MakeSettings,
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    url = "postgresql://" + address.format(port=postgres.port, dead=free_port())
    made = settings(database_url=url, db_pool_timeout_s=0.2)
    write_two_documents(made.documents.dir)
    client = serve(made, ready=False)
    health = client.get("/health")
    assert (health.status_code, says in health.json()["detail"]) == (503, True), health.text
    said = everything_said(client)
    wait_for(lambda: "error connecting in" in caplog.text, "the pool to say something")
    done = run_reindex(environment_of(made))
    assert_failed_in_one_line(done, says=says)
    for text in (said, caplog.text, done.stdout, done.stderr):
        assert SECRET not in text


def test_a_missing_database_shows_no_password(
    postgres: PostgresServer, settings: MakeSettings, serve: Serve
) -> None:
    made = settings(database_url=postgres.url("nowhere"))
    write_two_documents(made.documents.dir)
    client = serve(made, ready=False)
    assert "there is no such database" in client.get("/health").json()["detail"]
    done = run_reindex(environment_of(made))
    assert_failed_in_one_line(done, says="there is no such database")
    assert PASSWORD not in everything_said(client) + done.stdout + done.stderr


@pytest.mark.parametrize("setting", ["DATABASE_URL", "DATABASE_READ_URLS"])
@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://u:p%{SECRET}@127.0.0.1/rag",
        f"postgresql://u:p@{SECRET}@127.0.0.1/rag",
        f"postgresql://u:p/{SECRET}@127.0.0.1/rag",
        f"postgresql://u:{SECRET}/p@127.0.0.1/rag",
        f"postgresql://u:p {SECRET}@127.0.0.1/rag",
        f"postgresql://u:{SECRET}@[127.0.0.1/rag",
        f"postgresql://u:{SECRET}@127.0.0.1/rag?password_of={SECRET}",
        f"mysql://u:{SECRET}@127.0.0.1/rag",
        f"host=127.0.0.1 password={SECRET}",
    ],
)
def test_a_malformed_address_shows_no_password(
    setting: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names the setting, and neither that line nor pydantic's message has its value."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1/rag")
    monkeypatch.setenv(setting, address)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    said = str(caught.value)
    assert said.startswith(f"{setting}: must be an address such as postgresql://")
    assert "\n" not in said
    with pytest.raises(ValidationError) as inner:
        Settings()
    assert SECRET not in said + str(inner.value)


def test_a_command_with_a_malformed_address_shows_no_password() -> None:
    done = run_reindex({"DATABASE_URL": f"postgresql://u:p/{SECRET}@127.0.0.1/rag"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert SECRET not in done.stderr


@pytest.mark.parametrize("password", ["[x]", "a#b", "a?b", "a%2Fb%40c"])
def test_a_password_may_have_special_characters(password: str) -> None:
    """libpq decodes them."""
    url = f"postgresql://u:{password}@127.0.0.1:5432/rag"
    made = Settings(database_url=url)
    assert made.database.url is not None
    assert made.database.url.get_secret_value() == url


def test_a_killed_database_shows_no_password(settings: MakeSettings, tmp_path: Any) -> None:
    """It is neither in the log of a real process nor in its answers."""
    with postgres_server() as server:
        made = settings(**values_of(server, "rag"))
        write_two_documents(made.documents.dir)
        build(made)
        log = tmp_path / "log"
        with server_process(environment_of(made) | {"LOG_LEVEL": "DEBUG"}, log) as process:
            process.wait_until_ready()
            with httpx.Client(base_url=process.url, timeout=20) as client:
                said = everything_said(client)
                server.kill()
                said += everything_said(client)
                wait_for(lambda: client.get("/health").status_code == 503, "readiness to fail")
                said += everything_said(client)
            assert process.stop() == 0
            output = process.output
    assert "the database cannot be reached" in output
    assert PASSWORD not in said + output


def test_no_representation_contains_the_password(settings: MakeSettings) -> None:
    url = f"postgresql://u:{SECRET}@127.0.0.1/rag"
    made = settings(database_url=url, database_read_urls=f"{url} {url}")
    servers = make_replicas(made)
    for each in (made, Database(url), servers, *servers.all, *servers.all[1:], servers.primary.database):
        assert SECRET not in repr(each) + str(each)
