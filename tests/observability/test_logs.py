"""The log: one line per request, as text and as JSON, and never a secret."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.config.secrets import secrets_of
from app.config.settings import Settings
from app.main import create_app
from app.observability.logging import LogFormatter
from tests.conftest import build
from tests.fake_provider import Exchange, FakeProvider, faults
from tests.support.raw_http import RawExchange
from tests.support.serving import serve_in_thread, server_process, wait_for
from tests.support.settings import with_values

MakeSettings = Callable[..., Settings]
QUESTION = {"query": "How long is parental leave?"}
PLANTED = 'sk-planted/in every"place'


class Lines(logging.Handler):
    """The complete output of a log."""

    def __init__(self, log_format: str, secrets: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(LogFormatter(log_format, secrets))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def requests(self, count: int, path: str | None = None) -> list[dict[str, Any]]:
        """Return the last lines of requests, which are written after the responses.

        Args:
            path: of these requests; a probe from before may end after the listening began.
        """

        def found() -> list[dict[str, Any]] | None:
            lines = [json.loads(line) for line in self.lines]
            lines = [line for line in lines if line["logger"] == "app.requests"]
            lines = [line for line in lines if path in (None, line["path"])]
            return lines[-count:] if len(lines) >= count else None

        lines: list[dict[str, Any]] = wait_for(found, "the lines")
        return lines


@pytest.fixture
def listen() -> Iterator[Callable[..., Lines]]:
    """A function that captures the service's and uvicorn's loggers at the lowest level."""
    loggers = [logging.getLogger(name) for name in ("app", "uvicorn.error")]
    levels = [each.level for each in loggers]
    added: list[Lines] = []

    def begin(log_format: str = "json", secrets: list[str] | None = None) -> Lines:
        lines = Lines(log_format, secrets or [])
        added.append(lines)
        for each in loggers:
            each.addHandler(lines)
            each.setLevel(logging.DEBUG)
        return lines

    yield begin
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)
        for lines in added:
            each.removeHandler(lines)


def record(message: str, *arguments: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("app.x", logging.WARNING, "", 0, message, arguments, None)
    made.__dict__.update(more)
    return made


def test_a_request_has_one_line(openai_level: httpx.Client, listen: Callable[..., Lines]) -> None:
    """Written at its end, also of a stream, it has the request, its outcome and its times."""
    log = listen()
    for path in ("/query", "/query/stream", "/v1/chat/completions"):
        asked = (
            QUESTION
            if path != "/v1/chat/completions"
            else {"model": "rag-service", "messages": [{"role": "user", "content": "How long is leave?"}]}
        )
        assert openai_level.post(
            path, json=asked, headers={"X-Request-ID": path[1:].replace("/", ".")}
        ).is_success
    openai_level.get("/nowhere?api_key=in-the-query")
    openai_level.post("/query", json={})
    lines = log.requests(5)
    assert [line["path"] for line in lines] == [
        "/query",
        "/query/stream",
        "/v1/chat/completions",
        "/nowhere",
        "/query",
    ]
    assert [line["outcome"] for line in lines] == [
        "answered",
        "answered",
        "answered",
        "not_found",
        "invalid_request",
    ]
    assert [line["status"] for line in lines] == [200, 200, 200, 404, 422]
    assert [line["request_id"] for line in lines[:2]] == ["query", "query.stream"]
    first, stream = lines[:2]
    assert first["index"] == openai_level.get("/health").json()["index"]["id"]
    assert first["duration_ms"] >= first["generate_ms"] > 0
    assert {"embed_ms", "retrieve_ms", "prompt_tokens", "completion_tokens"} <= first.keys()
    assert stream["first_token_ms"] > 0
    assert "parental" not in "".join(log.lines)
    assert "in-the-query" not in "".join(log.lines)


@pytest.mark.parametrize("path", ["/query", "/query/stream", "/v1/chat/completions"])
def test_a_client_that_disconnects_during_its_body_is_logged(
    sample: httpx.Client, listen: Callable[..., Lines], path: str
) -> None:
    """The outcome is not an invalid body."""
    log = listen()
    with socket.create_connection((sample.base_url.host, sample.base_url.port or 80)) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100"
        connection.sendall(f'{head}\r\n\r\n{{"query"'.encode())
    (line,) = log.requests(1)
    assert (line["path"], line["status"], line["outcome"]) == (path, 499, "client_gone")


def test_probes_are_logged_at_debug_level(sample: httpx.Client, listen: Callable[..., Lines]) -> None:
    """Other requests are logged at info level."""
    log = listen()
    for path in ("/health", "/health/live", "/metrics", "/documents"):
        assert sample.get(path).status_code == 200
    assert [line["level"] for line in log.requests(4)] == ["debug", "debug", "debug", "info"]


def test_questions_are_logged_if_configured(
    sample_settings: Settings, serve: Callable[..., httpx.Client], listen: Callable[..., Lines]
) -> None:
    """LOG_QUESTIONS adds the question to the line."""
    client = serve(with_values(sample_settings, log_questions=True))
    log = listen()
    client.post("/query", json=QUESTION)
    assert log.requests(1, "/query")[0]["question"] == QUESTION["query"]


def test_a_client_that_disconnects_is_logged(
    provider: FakeProvider, openai_level: httpx.Client, listen: Callable[..., Lines]
) -> None:
    """It disconnects while the provider is called."""
    log = listen()
    provider.embeddings.latency_s = 60
    with RawExchange(str(openai_level.base_url), QUESTION, path="/query"):
        wait_for(lambda: provider.embeddings.requests, "the provider to be asked")
    (line,) = log.requests(1)
    assert (line["status"], line["outcome"]) == (499, "client_gone")


def test_a_line_of_text_is_one_line() -> None:
    """It stays one readable line, whatever a client or a provider puts into it."""
    formatter = LogFormatter("console", [])
    line = formatter.format(
        record("cause: %s", "one\ntwo\x1b[2J\u2028three", fields={"path": "/a b", "outcome": "answered"})
    )
    assert len(line.splitlines()) == 1
    assert line.endswith(r'WARNING app.x [-] cause: one\ntwo\x1b[2J\u2028three path="/a b" outcome=answered')


def test_invalid_unicode_is_logged() -> None:
    """A file name may consist of any bytes."""
    for log_format in ("json", "console"):
        line = LogFormatter(log_format, []).format(
            record("lost %s", b"caf\xe9".decode(errors="surrogateescape"))
        )
        assert "caf" in line.encode().decode()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_variables(log_format: str) -> None:
    """The values of local variables may be secrets."""
    local = "of-a-variable"
    try:
        raise ValueError(f"failed after {len(local)}")
    except ValueError as error:
        made = record("internal error")
        made.exc_info = (type(error), error, error.__traceback__)
    line = LogFormatter(log_format, []).format(made)
    assert "ValueError: failed after 13" in line
    assert line.count("of-a-variable") == 0


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_are_hidden_however_they_are_escaped(log_format: str) -> None:
    """Keys and passwords are hidden plain, as JSON, as Python and percent-encoded."""
    settings = Settings(
        openai_api_key=SecretStr(PLANTED), database_url=SecretStr("postgresql://rag:pa%2Fssword@db/rag")
    )
    formatter = LogFormatter(log_format, secrets_of(settings))
    for said in (
        PLANTED,
        repr(PLANTED),
        json.dumps(PLANTED),
        "pa%2Fssword",
        "pa/ssword",
        "x Bearer abc.def-g, y",
        "x BEARER abc.def-g, y",
    ):
        line = formatter.format(record("they said %s", said, fields={"path": said}))
        assert not [part for part in ("planted", "ssword", "abc.def") if part in line], line


def test_no_secret_is_shown_whatever_fails(
    openai_settings: MakeSettings, provider: FakeProvider, listen: Callable[..., Lines]
) -> None:
    """No log line, response or setting shows one, even if the provider repeats what it was sent."""
    settings = openai_settings(
        openai_api_key="sk-planted-key", api_keys="someone:planted-client-key", api_keys_file=None
    )
    build(openai_settings())
    app = create_app(settings)

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError(f"a bug that tells {settings.provider.api_key.get_secret_value()}")  # type: ignore[union-attr]

    async def repeating(exchange: Exchange) -> None:
        await exchange.answer(401, json.dumps({"error": exchange.headers}).encode())

    log = listen(secrets=secrets_of(settings))
    own = {"Authorization": "Bearer planted-client-key"}
    wrong = {"Authorization": "Bearer planted-wrong-key", "X-API-Key": "planted-other"}
    with serve_in_thread(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        wait_for(lambda: client.get("/health").status_code == 200, "the index")
        provider.chat.fault = repeating
        said = [
            client.post("/query", json=QUESTION, headers=own),
            client.post("/query", json=QUESTION, headers=wrong),
            client.post("/query?api_key=planted-in-query", content=b"{", headers=own),
            client.get("/bug", headers=own),
        ]
        provider.chat.fault = faults.status(500, message="it was Bearer planted-of-the-provider")
        said.append(client.post("/query/stream", json=QUESTION, headers=own))
    assert [answer.status_code for answer in said] == [502, 401, 422, 500, 200]
    shown = "".join([*log.lines, *(answer.text + str(answer.headers) for answer in said)])
    assert '"code":"model_unavailable"' in said[-1].text
    for place in (shown, repr(settings), str(settings), settings.model_dump_json()):
        assert "planted" not in place


def test_an_unreachable_database_does_not_reveal_its_password(tmp_path: Path) -> None:
    """The whole output of a process has no secret, from its start on."""
    environment = {
        "DATABASE_URL": "postgresql://rag:planted-password@127.0.0.1:1/rag",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "DEBUG",
        "OPENAI_API_KEY": "sk-planted-key",
    }
    with server_process(environment, tmp_path / "log") as server:
        said = wait_for(server.health, "an answer")
        assert said.status_code == 503
        wait_for(lambda: "cannot be reached" in server.output, "the log to tell it")
        assert server.stop() == 0
        output = server.output
    assert "planted" not in output + said.text
    for line in output.splitlines():
        assert {"time", "level", "logger", "request_id", "message"} <= json.loads(line).keys()


@pytest.mark.parametrize("given", ["client-chosen.1:x", "not well formed", "x" * 129, ""])
def test_a_well_formed_request_id_is_kept(sample: httpx.Client, given: str) -> None:
    """A malformed one is replaced."""
    returned = sample.get("/health/live", headers={"X-Request-ID": given}).headers["x-request-id"]
    assert (returned == given) == (given == "client-chosen.1:x")
    assert returned


def test_every_error_has_its_request_id(
    openai_settings: MakeSettings, provider: FakeProvider, serve: Callable[..., httpx.Client]
) -> None:
    """The id is in the header and the body of the response, and reaches the provider."""
    build(openai_settings())
    client = serve(openai_settings(api_keys="a:some-client-key", max_body_bytes=1024))
    key = {"X-API-Key": "some-client-key"}
    answers = [
        client.post("/query", json=QUESTION, headers={"X-Request-ID": "id-401"}),
        client.get("/nowhere", headers={"X-Request-ID": "id-404"} | key),
        client.post("/query", content=b"x" * 2000, headers={"X-Request-ID": "id-413"} | key),
    ]
    for answer in answers:
        wanted = f"id-{answer.status_code}"
        assert (answer.headers["x-request-id"], answer.json()["request_id"]) == (wanted, wanted)
    stream = client.post("/query/stream", json=QUESTION, headers={"X-Request-ID": "id-stream"} | key)
    assert (stream.status_code, stream.headers["x-request-id"]) == (200, "id-stream")
    assert provider.exchanges[-1].headers["x-request-id"] == "id-stream"
