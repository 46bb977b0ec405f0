"""Bounds: what is too large or too slow ends, and everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config.settings import Settings, SettingsError, load_settings
from app.http.middleware.header_limit import MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL_BYTES
from app.http.server.protocol import BoundedProtocol
from app.main import create_app
from tests.support.raw_http import connect
from tests.support.serving import ServerProcess, serve_in_thread, server_process, wait_for
from tests.support.settings import with_values

QUESTION = {"query": "How long is parental leave?"}
MIB = 1024 * 1024
# Where a server has this much more after it refused something, it has kept it.
KEPT_MIB = 24


class Impatient(BoundedProtocol):
    head_timeout_s = 0.3


@pytest.fixture(scope="module")
def impatient(sample_settings: Settings) -> Iterator[httpx.Client]:
    """A server that waits for 0.3 s, where the real one waits for 10."""
    with (
        serve_in_thread(create_app(sample_settings), http=Impatient) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        wait_for(lambda: client.get("/health").status_code == 200, "the index to be ready")
        yield client


@pytest.fixture(scope="module")
def real(sample_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """As users start it."""
    environment = {
        "DOCUMENTS_DIR": str(sample_settings.documents.dir),
        "INDEX_DIR": str(sample_settings.index.dir),
        "API_KEYS": "alice:one",
    }
    with server_process(environment, tmp_path_factory.mktemp("bounds") / "log") as server:
        server.wait_until_ready()
        ask(server)  # what the first request loads is no part of what is measured
        yield server


def ask(server: ServerProcess) -> None:
    answer = httpx.post(f"{server.url}/query", json=QUESTION, headers={"X-API-Key": "one"}, timeout=30)
    assert answer.status_code == 200


def resident_mib(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes, with or without what it had not read."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionError:
        pass
    return received


def send_until_closed(connection: socket.socket, parts: Iterator[bytes]) -> int:
    """Bytes that were sent before the server closed the connection, or all of them."""
    sent = 0
    try:
        for part in parts:
            connection.sendall(part)
            sent += len(part)
    except ConnectionError:
        pass
    return sent


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def ask_live(connection: socket.socket) -> None:
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
    received = b""
    while not received.endswith(b'{"status":"ok"}'):
        part = connection.recv(65536)
        assert part, f"the connection ended: {received!r}"
        received += part


# Sizes


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/documents?" + "a" * MAX_URL_BYTES, {}, 414, "uri_too_long"),
        ("/" + "a" * MAX_URL_BYTES, {}, 414, "uri_too_long"),
        ("/documents", {"X-Long": "a" * MAX_HEADER_BYTES}, 431, "headers_too_large"),
        ("/documents", {f"X-{n}": "a" for n in range(MAX_HEADERS + 1)}, 431, "headers_too_large"),
    ],
)
def test_too_large_a_head_is_refused(
    impatient: httpx.Client, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = impatient.get(path, headers=headers)
    assert answer.status_code == status
    assert answer.json()["code"] == code


def test_a_head_of_usual_size_is_accepted(impatient: httpx.Client) -> None:
    """Browsers and proxies send a few kilobytes."""
    headers = {f"X-{n}": "a" * 400 for n in range(60)}
    assert impatient.get("/documents?" + "a" * 8000, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "part", [b"X-Long: " + b"a" * 65536, b"X-Many: a\r\n" * 6000, b"a" * 65536], ids=["one", "many", "url"]
)
def test_an_endless_head_takes_no_memory(real: ServerProcess, part: bytes) -> None:
    """uvicorn's own protocol buffers all of it: 300 MB for 300 MB of headers. This test sends 50 MB."""
    before = resident_mib(real)
    with connect(real.url) as connection:
        start = b"GET /" if part.startswith(b"a") else b"GET / HTTP/1.1\r\nHost: a\r\n"
        sent = send_until_closed(connection, iter([start, *[part] * (50 * MIB // len(part))]))
        received = read_all(connection)
    assert sent < 20 * MIB
    assert not received or status_of(received) == 431
    assert resident_mib(real) < before + KEPT_MIB
    ask(real)


def chunks(size: int) -> Iterator[bytes]:
    chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    for _ in range(size // 65536):
        yield chunk


@pytest.mark.parametrize("key", ["one", "wrong"])
def test_a_huge_chunked_body_is_refused_while_it_arrives(real: ServerProcess, soak: bool, key: str) -> None:
    """The status is 413 with a key and 401 without, and the rest of the body is not read."""
    before = resident_mib(real)
    with connect(real.url) as connection:
        head = f"POST /query HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        sent = send_until_closed(connection, chunks((1024 if soak else 50) * MIB))
        received = read_all(connection)
    assert sent < 20 * MIB
    assert not received or status_of(received) == (413 if key == "one" else 401)
    assert resident_mib(real) < before + KEPT_MIB
    ask(real)


def test_a_client_without_a_key_can_read_its_401_while_sending(
    serve: Callable[..., httpx.Client], settings: Callable[..., Settings]
) -> None:
    """A body of usual size is not cut off, so that the client reads the reason."""
    client = serve(settings(api_keys="alice:one"), ready=False)
    for _ in range(3):
        assert client.post("/query", content=b"a" * 500_000).status_code == 401


# Time


def trickle(connection: socket.socket, data: bytes, pause_s: float = 0.02) -> bytes:
    """Send byte by byte until the server has enough; what it said."""
    try:
        for byte in data:
            connection.sendall(bytes([byte]))
            connection.settimeout(pause_s)
            try:
                return connection.recv(65536)
            except TimeoutError:
                connection.settimeout(20)
    except ConnectionError:
        return b""
    raise AssertionError(f"the server read all of {len(data)} bytes")


def test_a_head_sent_byte_by_byte_times_out(impatient: httpx.Client) -> None:
    """uvicorn's own protocol waits forever."""
    with connect(str(impatient.base_url)) as connection:
        received = trickle(connection, b"GET /health HTTP/1.1\r\n" + b"X-Slow: a\r\n" * 1000)
        assert status_of(received) == 408
        assert b'"request_timeout"' in received
        assert read_all(connection) == b""


def test_blank_lines_do_not_keep_a_connection_open(impatient: httpx.Client) -> None:
    """They do not begin a head, not even on a connection that was used before."""
    for used in (False, True):
        with connect(str(impatient.base_url)) as connection:
            if used:
                ask_live(connection)
            assert trickle(connection, b"\r\n" * 5000) == b""


def test_a_silent_connection_is_closed(impatient: httpx.Client) -> None:
    with connect(str(impatient.base_url)) as connection:
        assert read_all(connection) == b""


@pytest.mark.parametrize("path", ["/query", "/health"])
def test_a_body_sent_byte_by_byte_times_out(
    serve: Callable[..., httpx.Client], settings: Callable[..., Settings], path: str
) -> None:
    client = serve(settings(request_timeout_s=0.5), ready=False)
    with connect(str(client.base_url)) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n".encode())
        assert status_of(trickle(connection, b"a" * 4000)) == 408


def test_an_unread_body_does_not_keep_the_connection_open(sample_settings: Settings) -> None:
    """Its request has already been answered."""
    settings = with_values(sample_settings, api_keys="alice:one")
    with serve_in_thread(create_app(settings), http=Impatient) as url, connect(url) as connection:
        connection.sendall(b"POST /query HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n")
        received = answer = trickle(connection, b"a" * 1000)
        while received:
            received = trickle(connection, b"a" * 1000)
    assert status_of(answer) == 401


def test_a_slow_answer_is_not_cut_off(impatient: httpx.Client) -> None:
    """The deadline is for requests, and a kept-alive connection may pause between them."""
    with connect(str(impatient.base_url)) as connection:
        for pause_s in (0, 0.5, 0.5):
            time.sleep(pause_s)
            ask_live(connection)


def test_a_slow_next_head_does_not_cut_off_the_previous_answer() -> None:
    """A client may send the next head while it reads: the deadline begins after the answer."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        for _ in range(4):
            await asyncio.sleep(0.3)
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with serve_in_thread(slow, http=Impatient) as url, connect(url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHo")
        received = read_all(connection)
    first, _, rest = received.partition(b"\r\n\r\n")
    assert status_of(first) == 200
    assert rest.startswith(b"aaaa")
    assert not rest[4:] or status_of(rest[4:]) == 408


def test_slow_clients_and_idle_connections_do_not_stop_the_service(
    impatient: httpx.Client, soak: bool
) -> None:
    """Other requests are answered meanwhile, and all of these connections end."""
    held = [connect(str(impatient.base_url)) for _ in range(5000 if soak else 400)]
    for number, connection in enumerate(held):
        if number % 2:
            connection.sendall(b"POST /query HTTP/1.1\r\nHost: a\r\n")
    assert impatient.post("/query", json=QUESTION).status_code == 200
    for connection in held:
        received = read_all(connection)
        assert not received or status_of(received) == 408
        connection.close()


def test_idle_connections_take_little_memory(real: ServerProcess, soak: bool) -> None:
    """Each takes about 3 kB."""
    before = resident_mib(real)
    held = [connect(real.url) for _ in range(10_000 if soak else 400)]
    ask(real)
    assert resident_mib(real) < before + KEPT_MIB + len(held) // 50
    for connection in held:
        connection.close()


# What browsers are told


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *[("GET", path, 200) for path in ("/health", "/docs", "/openapi.json", "/documents", "/v1/models")],
        ("GET", "/static-offline-docs/swagger-ui-bundle.js", 200),
        ("GET", "/no/such", 404),
        ("POST", "/query", 200),
        ("POST", "/query/stream", 200),
        ("PUT", "/query", 405),
        ("GET", "/" + "a" * 9000, 414),
    ],
)
def test_every_response_has_the_security_headers(
    sample: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = sample.request(method, path, json=QUESTION)
    assert answer.status_code == status
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers.get_list("x-frame-options") == ["DENY"]
    assert answer.headers.get_list("referrer-policy") == ["no-referrer"]
    assert answer.headers.get_list("cache-control") == ["no-store"]


def test_a_refusal_has_the_security_headers(real: ServerProcess) -> None:
    """No header names the software of the service."""
    answer = httpx.get(f"{real.url}/documents", timeout=60)
    assert answer.status_code == 401
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-api-key",
}


@pytest.fixture(scope="module")
def with_cors(sample_settings: Settings) -> Iterator[httpx.Client]:
    values = {"api_keys": "alice:one", "cors_origins": f"http://localhost:3000, {ORIGIN}"}
    settings = with_values(sample_settings, **values)
    with serve_in_thread(create_app(settings)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def test_a_preflight_needs_no_key(with_cors: httpx.Client) -> None:
    """A browser never sends a key with it."""
    answer = with_cors.options("/query", headers=PREFLIGHT)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "content-type", "x-api-key", "x-request-id"))


def test_pages_of_allowed_origins_may_read_answers_and_refusals(with_cors: httpx.Client) -> None:
    """Without this, a page would see a network error instead of a 401."""
    for key, status in (("one", 200), ("wrong", 401)):
        answer = with_cors.post("/query", json=QUESTION, headers={"Origin": ORIGIN, "X-API-Key": key})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "Retry-After" in answer.headers["access-control-expose-headers"]


def test_pages_of_other_origins_may_not_read_answers(with_cors: httpx.Client, sample: httpx.Client) -> None:
    """If no origin is set, no page may."""
    evil = {**PREFLIGHT, "Origin": "https://evil.example.com"}
    assert with_cors.options("/query", headers=evil).status_code == 400
    for client, headers in ((with_cors, evil), (sample, PREFLIGHT)):
        assert "access-control-allow-origin" not in client.options("/query", headers=headers).headers
        answer = client.post("/query", json=QUESTION, headers={"Origin": headers["Origin"]})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("value", ["app.example.com", "https://app.example.com/", "ftp://a", "https://a b/c"])
def test_an_invalid_origin_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", value)
    with pytest.raises(SettingsError, match=r"^CORS_ORIGINS: "):
        load_settings()
