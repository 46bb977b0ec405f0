"""API keys: who is let in, and that nobody else is."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.config.api_key_entries import parse_keys
from app.config.settings import Settings, load_settings
from app.http.api_keys import ApiKeys
from app.http.middleware.authentication import Authentication
from app.http.paths import DOCS, PROBES
from app.main import create_app
from app.observability.request_context import current_context, start_context
from tests.config.test_settings import start_with
from tests.support.raw_http import connect
from tests.support.serving import (
    ROOT,
    clean_environment,
    serve_in_thread,
    server_process,
    wait_for,
)
from tests.support.settings import with_values

KEY = "a-key-of-alice"
QUESTION = {"query": "How long is parental leave?"}
ROUTES = [
    *[("POST", path) for path in ("/query", "/query/stream", "/retrieve", "/v1/chat/completions")],
    *[("GET", path) for path in ("/v1/models", "/documents", "/docs", "/openapi.json", "/metrics")],
    *[("GET", path) for path in ("/", "/no/such", "/health/", "/HEALTH", "//health", "/health/../query")],
    *[("GET", "/query"), ("POST", "/documents"), ("OPTIONS", "/query"), ("TRACE", "/")],
]


def with_keys(base: Settings, **values: Any) -> Settings:
    return with_values(base, **{"api_keys": f"alice:{KEY}"} | values)


@pytest.fixture(scope="module")
def closed(sample_settings: Settings) -> Iterator[httpx.Client]:
    """A server that wants a key."""
    with (
        serve_in_thread(create_app(with_keys(sample_settings))) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_path_needs_a_key(closed: httpx.Client, method: str, path: str) -> None:
    """Existing and missing paths get the same answer without a key, whatever the method."""
    answer = closed.request(method, path, json=QUESTION)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    problem = answer.json()
    if path.startswith("/v1/"):
        assert problem["error"]["code"] == "unauthorized"
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["code"] == "unauthorized"
        assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", sorted(PROBES))
def test_probes_need_no_key(closed: httpx.Client, path: str) -> None:
    """Kubernetes has no key to send."""
    assert closed.get(path).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"X-API-Key": KEY},
        {"X-API-Key": KEY, "Authorization": "Bearer of-somebody-else"},
        {"X-API-Key": "wrong", "Authorization": f"Bearer {KEY}"},
        {"X-API-Key": KEY, "Authorization": "Basic YTpi"},
    ],
)
def test_a_known_key_is_accepted(closed: httpx.Client, header: dict[str, str]) -> None:
    """It may be in either header, since a proxy may use one of them for itself."""
    assert closed.post("/query", json=QUESTION, headers=header).json()["status"] == "answered"
    assert closed.get("/documents", headers=header).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer alice:{KEY}"},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY.upper()},
        {"X-API-Key": f"{KEY}, {KEY}"},
        {"Cookie": f"key={KEY}"},
    ],
)
def test_an_unknown_or_malformed_key_is_refused(closed: httpx.Client, header: dict[str, str]) -> None:
    answer = closed.post("/query", json=QUESTION, headers=header)
    assert answer.status_code == 401
    assert KEY not in answer.text


def test_an_openai_clients_key_is_accepted(closed: httpx.Client) -> None:
    models = closed.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    assert models.json()["data"][0]["id"] == "rag-service"


@pytest.mark.parametrize(
    ("entries", "key", "name"),
    [
        ("alice:one", b"one", "alice"),
        ("alice:one bob:two", b"two", "bob"),
        ("alice:one,bob:two", b"two", "bob"),
        ("alice:a:b", b"a:b", "alice"),
        ("alice:one alice:two", b"two", "alice"),
    ],
)
def test_entries_give_their_keys_and_names(entries: str, key: bytes, name: str) -> None:
    assert asyncio.run(ApiKeys(parse_keys(entries)).client_of(key)) == name


def test_a_key_without_a_name_gets_a_name_of_its_own() -> None:
    """It therefore has a rate limit of its own, too."""
    one, two = parse_keys("one two").values()
    assert re.fullmatch("key-[0-9a-f]{8}", one)
    assert one != two


@pytest.mark.parametrize(
    "entry",
    [
        "sha256:" + "0" * 64,
        "bob:sha256:planted",
        ":planted",
        "bob:",
        "b/b:planted",
        f"{'b' * 65}:planted",
        "bob:plantedé",
        "bob:planted eve:planted",
    ],
)
def test_a_malformed_entry_is_reported_but_not_shown(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setenv("API_KEYS", entry)
    with pytest.raises(Exception, match=r"API_KEYS: entry [12]:") as error:
        load_settings()
    assert "planted" not in str(error.value)


def test_a_setting_without_any_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template with nothing to fill in must not open the service."""
    monkeypatch.setenv("API_KEYS", " , ")
    with pytest.raises(Exception, match="API_KEYS: there is no key"):
        load_settings()


def test_keys_are_kept_as_hashes() -> None:
    """The memory and a dump of the settings do not contain the keys."""
    loaded = Settings(api_keys=SecretStr(f"alice:{KEY}"))
    assert loaded.access.api_keys is not None
    assert loaded.access.api_keys.get_secret_value().startswith("alice:sha256:")
    assert KEY not in repr(vars(loaded)) + repr(vars(ApiKeys(parse_keys(f"alice:{KEY}"))))


def test_open_docs_opens_the_documentation_only(
    serve: Callable[..., httpx.Client], sample_settings: Settings
) -> None:
    """The page, the OpenAPI document and the files that the page loads need no key; all other paths do."""
    client = serve(with_keys(sample_settings, open_docs=True))
    page = client.get("/docs")
    assert page.status_code == 200
    loaded = set(re.findall(r"""(?:href|src|url)\s*[=:]\s*["'](/[^"']+)""", page.text))
    assert {"/openapi.json", "/static-offline-docs/swagger-ui-bundle.js"} <= loaded <= DOCS
    assert {client.get(path).status_code for path in loaded | DOCS} == {200}
    for path in ("/static-offline-docs/redoc.standalone.js", "/documents", "/metrics", "/query"):
        assert client.get(path).status_code == 401
    schema = client.get("/openapi.json").json()
    assert schema["paths"]["/query"]["post"]["security"] == [{"key": []}]
    assert schema["paths"]["/health"]["get"]["security"] == []


def test_open_metrics_opens_the_metrics(
    serve: Callable[..., httpx.Client], sample_settings: Settings
) -> None:
    client = serve(with_keys(sample_settings, open_metrics=True))
    assert client.get("/metrics").status_code != 401
    assert client.get("/docs").status_code == 401


def seen_by_the_application(
    scope: dict[str, Any], keys: str = f"alice:{KEY}"
) -> tuple[list[str | None], list[Any]]:
    """The client's name behind the middleware, in a list, and what was sent."""
    seen: list[str | None] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_context().client)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    async def ask() -> None:
        start_context("an-id", [])
        await Authentication(app, ApiKeys(parse_keys(f"alice:{KEY}")), PROBES)(scope, receive, send)

    asyncio.run(ask())
    return seen, sent


def test_the_application_knows_the_keys_name() -> None:
    """Logs, metrics and limits use it; requests to open paths have none."""
    headers = [(b"x-api-key", KEY.encode())]
    seen, _ = seen_by_the_application({"type": "http", "path": "/query", "headers": headers})
    assert seen == ["alice"]
    seen, _ = seen_by_the_application({"type": "http", "path": "/health", "headers": headers})
    assert seen == [None]


def test_websockets_without_a_key_are_closed() -> None:
    """The service has none, but a route that is added later would not be open."""
    seen, sent = seen_by_the_application({"type": "websocket", "path": "/health", "headers": []})
    assert seen == []
    assert sent == [{"type": "websocket.close", "code": 1008}]


# Keys in a file


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\nalice:{KEY}  # until May\nbob:one\n")
    return path


def opens(client: httpx.Client, key: str) -> bool:
    return client.get("/documents", headers={"X-API-Key": key}).status_code == 200


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What is said of keys; other servers of this process may have something to say, too."""
    return [record for record in caplog.records if record.name == "app.http.api_keys"]


@pytest.fixture
def by_file(serve: Callable[..., httpx.Client], sample_settings: Settings, key_file: Path) -> httpx.Client:
    """A server whose keys are in a file, but for one."""
    return serve(with_keys(sample_settings, api_keys="fixed:of-the-setting", api_keys_file=key_file))


def test_keys_are_read_from_a_file(by_file: httpx.Client) -> None:
    assert all(opens(by_file, key) for key in (KEY, "one", "of-the-setting"))
    assert not opens(by_file, "# ours")


def test_a_changed_file_is_read_again(by_file: httpx.Client, key_file: Path) -> None:
    """A removed key is soon refused, an added one is accepted, and the keys of the setting stay."""
    key_file.write_text("carol:three\n")
    wait_for(lambda: opens(by_file, "three"), "the new key to be let in")
    assert not opens(by_file, KEY)
    assert opens(by_file, "of-the-setting")


def test_a_mounted_secret_that_is_swapped_is_read_again(
    serve: Callable[..., httpx.Client], sample_settings: Settings, tmp_path: Path
) -> None:
    """Kubernetes swaps a symbolic link, and size and time stamps may be the same."""
    for name, key in (("old", "one"), ("new", "two")):
        (tmp_path / name).write_text(f"alice:{key}\n")
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / "data").symlink_to("old")
    client = serve(with_keys(sample_settings, api_keys=None, api_keys_file=tmp_path / "data"))
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").replace(tmp_path / "data")
    wait_for(lambda: opens(client, "two"), "the new key to be let in")
    assert not opens(client, "one")


@pytest.mark.parametrize("content", ["bob:\n", "carol:ok\nb/b:planted\n", "\xff", None])
def test_an_unreadable_file_leaves_the_previous_keys_valid(
    by_file: httpx.Client, key_file: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    """The log reports it once, without the file's content."""
    with caplog.at_level(logging.INFO, "app.http.api_keys"):
        key_file.unlink()
        if content is not None:
            key_file.write_text(content, encoding="latin-1")
        wait_for(lambda: opens(by_file, KEY) and told(caplog), "it to be told")
        key_file.write_text("carol:three\n")
        wait_for(lambda: opens(by_file, "three"), "the next file to be read")
    assert [record.levelname for record in told(caplog)] == ["ERROR", "INFO"]
    assert "planted" not in caplog.text


def test_an_emptied_file_closes_the_service(
    serve: Callable[..., httpx.Client],
    sample_settings: Settings,
    key_file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An empty file refuses every key, and never opens the service."""
    by_file = serve(with_keys(sample_settings, api_keys=None, api_keys_file=key_file))
    with caplog.at_level(logging.INFO, "app.http.api_keys"):
        key_file.write_text("")
        wait_for(lambda: not opens(by_file, KEY), "the key to be refused")
    assert [(each.levelname, "0 keys" in each.message) for each in told(caplog)] == [("WARNING", True)]
    assert by_file.get("/documents").status_code == 401


def test_the_file_is_checked_at_most_once_a_second(key_file: Path) -> None:
    """It is not checked with each request."""
    keys = ApiKeys({}, key_file, look_each_s=3600)

    assert asyncio.run(keys.client_of(b"one")) == "bob"
    key_file.write_text("carol:three\n")
    assert asyncio.run(keys.client_of(b"one")) == "bob"


# The start


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_network_address_without_keys_stops_the_start(tmp_path: Path, host: str) -> None:
    done = start_with({"HOST": host}, tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("Wrong setting: API_KEYS: none is set")
    assert "ALLOW_ANONYMOUS" in done.stderr


@pytest.mark.parametrize("content", [None, "", "# none\n", "b/b:planted\n"])
def test_an_invalid_keys_file_stops_the_start(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content)
    done = start_with({"API_KEYS_FILE": "keys"}, tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith("Wrong setting: API_KEYS_FILE: keys: ")
    assert "planted" not in done.stderr


@pytest.mark.parametrize(("setting", "status"), [("ALLOW_ANONYMOUS", 200), ("API_KEYS", 401)])
def test_a_network_address_needs_keys_or_allow_anonymous(
    sample_settings: Settings, tmp_path: Path, setting: str, status: int
) -> None:
    """The image binds 0.0.0.0 in this way."""
    environment = {
        "HOST": "0.0.0.0",
        "DOCUMENTS_DIR": str(sample_settings.documents.dir),
        "INDEX_DIR": str(sample_settings.index.dir),
        setting: "true",
    }
    with server_process(environment, tmp_path / "log") as server:
        server.wait_until_ready()
        assert httpx.get(f"{server.url}/documents", timeout=60).status_code == status
        assert server.stop() == 0


# The command


def make_key(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_key.py"), *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_make_key_prints_a_new_key_and_its_hash() -> None:
    """The line for the file has only the hash, and every key is different."""
    made = [make_key("alice") for _ in range(2)]
    keys = [one.stderr.splitlines()[-1] for one in made]
    assert keys[0] != keys[1]
    for one, key in zip(made, keys, strict=True):
        assert len(key) > 40
        assert key not in one.stdout
        assert asyncio.run(ApiKeys(parse_keys(one.stdout)).client_of(key.encode())) == "alice"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "sha256"])
def test_make_key_refuses_an_invalid_name(name: str) -> None:
    assert make_key(name).returncode == 2


# Whatever is asked

PLACES = [
    *("query", "query/stream", "retrieve", "documents", "v1", "models", "chat", "completions", "metrics"),
    *("docs", "openapi.json", "static-offline-docs", "swagger-ui.css", "health", "live", "HEALTH", "Query"),
    *("..", ".", "", "%2e%2e", "%2f", "%5c", "%00", ";", "*", "%252e%252e", "health%2flive", "%68ealth"),
]
paths = st.one_of(
    st.lists(st.sampled_from(PLACES), max_size=5).map(lambda parts: "/" + "/".join(parts)),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#? "), max_size=30).map(
        lambda text: "/" + text
    ),
    st.sampled_from(["http://127.0.0.1/query", "http://health/query", "/query?/health", "/query#/health"]),
)
methods = st.sampled_from(
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "SEARCH"]
)
values = st.one_of(
    st.sampled_from(
        [
            "/health",
            "127.0.0.1",
            "localhost",
            "Bearer",
            "Bearer null",
            "Basic YTpi",
            "GET",
            "1",
            "on",
            "alice",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)
NAMES = [
    *("Host", "Authorization", "X-API-Key", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Prefix"),
    *("X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "Forwarded", "Origin", "Cookie", "Via"),
    *("Access-Control-Request-Method", "Upgrade", "Connection", "X-Real-IP", "Client", "Proxy-Authorization"),
]
headers = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=6)


@settings(max_examples=300, deadline=None)
@given(method=methods, path=paths, sent=headers)
def test_no_request_without_a_key_reaches_a_route(
    closed: httpx.Client, method: str, path: str, sent: list[tuple[str, str]]
) -> None:
    """Any path, host, method and header gets 401, except for probes and for malformed HTTP."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent), "Connection: close"]
    with connect(str(closed.base_url)) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        with connection.makefile("rb") as answer:
            content = answer.read()
    status = int(content.split(b" ", 2)[1])
    if unquote(urlsplit(path).path if "://" in path else re.split(r"[?#]", path)[0]) in PROBES:
        assert status in {200, 405}, content
    elif status == 400:
        assert b"Invalid HTTP request received." in content
    else:
        assert status == 401, content


def test_the_fuzzed_requests_reach_routes_with_a_key(closed: httpx.Client) -> None:
    """The test above would notice a request that was let in."""
    assert closed.request("PUT", "/query", headers={"X-API-Key": KEY}).status_code == 405
    assert closed.request("GET", "/no/such", headers={"X-API-Key": KEY}).status_code == 404
