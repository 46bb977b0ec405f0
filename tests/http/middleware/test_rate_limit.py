"""Rate limits: how many are let through, whose they are, and what happens without their storage."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits.aio.storage import MemoryStorage

from app.config.networks import parse_networks
from app.config.settings import Settings, SettingsError, load_settings
from app.domain.errors import Overloaded
from app.http.client_address import ClientAddress
from app.http.rate_limiter import MovingWindows, RateLimiter, make_storage
from app.main import create_app
from tests.config.test_settings import start_with
from tests.support.redis import redis_server
from tests.support.serving import free_port, serve_in_thread, server_process, wait_for
from tests.support.settings import with_values

Start = Callable[..., httpx.Client]

QUESTION = {"query": "How long is parental leave?"}
# Behind the address of a Redis: one that a busy machine keeps waiting does answer.
PATIENTLY = "?socket_timeout=60&socket_connect_timeout=60"
KEYS = "alice:one bob:two"


@pytest.fixture
def start(sample_settings: Settings) -> Iterator[Start]:
    """A server with given settings, whose limits begin anew."""
    opened = []

    def enter(**values: Any) -> httpx.Client:
        settings = with_values(sample_settings, **values)
        # As `python -m app` does: else uvicorn believes X-Forwarded-For from 127.0.0.1.
        serving = serve_in_thread(create_app(settings), proxy_headers=False)
        client = httpx.Client(base_url=serving.__enter__(), timeout=30)
        opened.append((serving, client))
        return client

    yield enter
    for serving, client in opened:
        client.close()
        serving.__exit__(None, None, None)


def ask(client: httpx.Client, path: str = "/retrieve", **headers: str) -> httpx.Response:
    return client.post(
        path, json=QUESTION, headers={name.replace("_", "-"): headers[name] for name in headers}
    )


def statuses(client: httpx.Client, count: int, **headers: str) -> list[int]:
    return [ask(client, **headers).status_code for _ in range(count)]


def test_what_is_over_the_limit_is_refused(start: Start) -> None:
    """With when to come back; and each answer before says how many are left."""
    client = start(rate_limit="3/hour")
    answers = [ask(client) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["ratelimit-limit"] for answer in answers} == {"3"}
    assert all(3500 < int(answer.headers["ratelimit-reset"]) <= 3600 for answer in answers)
    refused = answers[-1]
    assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "rate_limited"
    assert "retry-after" not in answers[0].headers


def test_openai_clients_understand_it(start: Start) -> None:
    client = start(rate_limit="1/hour")
    messages = {"model": "rag-service", "messages": [{"role": "user", "content": "leave?"}]}
    answers = [client.post("/v1/chat/completions", json=messages) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    error = answers[1].json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limited")
    assert int(answers[1].headers["retry-after"]) > 0


def test_a_stream_says_it_too(start: Start) -> None:
    answer = ask(start(rate_limit="2/hour"), "/query/stream")
    assert answer.headers["ratelimit-remaining"] == "1"
    assert answer.text.endswith("data: [DONE]\n\n")


def test_only_work_is_limited(start: Start) -> None:
    """Probes above all are not."""
    client = start(rate_limit="1/hour")
    assert statuses(client, 2) == [200, 429]
    for path in ("/health", "/health/live", "/documents", "/v1/models"):
        answer = client.get(path)
        assert (answer.status_code, "ratelimit-limit" in answer.headers) == (200, False)


def test_two_keys_never_share_a_limit(start: Start) -> None:
    """From one address, and interleaved."""
    client = start(rate_limit="5/hour", api_keys=KEYS)
    found = Counter((key, ask(client, X_API_Key=key).status_code) for _ in range(8) for key in ("one", "two"))
    assert found == {("one", 200): 5, ("one", 429): 3, ("two", 200): 5, ("two", 429): 3}


def test_a_key_has_one_limit_wherever_it_is_used(start: Start) -> None:
    """In either header, and from any address."""
    client = start(rate_limit="2/hour", api_keys=KEYS, trusted_proxies="127.0.0.1")
    assert ask(client, X_API_Key="one", X_Forwarded_For="192.0.2.1").status_code == 200
    assert ask(client, Authorization="Bearer one", X_Forwarded_For="192.0.2.2").status_code == 200
    assert ask(client, X_API_Key="one", X_Forwarded_For="192.0.2.3").status_code == 429


def test_who_has_no_key_takes_nothing_from_who_has(start: Start) -> None:
    client = start(rate_limit="1/hour", api_keys=KEYS)
    assert statuses(client, 3, X_API_Key="wrong") == [401, 401, 401]
    assert statuses(client, 2, X_API_Key="one") == [200, 429]


def test_a_spoofed_address_makes_no_new_client(start: Start) -> None:
    client = start(rate_limit="2/hour")
    found = [ask(client, X_Forwarded_For=f"192.0.2.{n}").status_code for n in range(4)]
    assert found == [200, 200, 429, 429]


def test_a_trusted_proxy_tells_clients_apart(start: Start) -> None:
    """By what it appended; what a client wrote before that is made up."""
    client = start(rate_limit="1/hour", trusted_proxies="127.0.0.0/8")
    assert ask(client, X_Forwarded_For="192.0.2.1").status_code == 200
    assert ask(client, X_Forwarded_For="192.0.2.2").status_code == 200
    assert ask(client, X_Forwarded_For="203.0.113.7, 192.0.2.1").status_code == 429


def test_the_window_moves(start: Start) -> None:
    client = start(rate_limit="1/second")
    assert 429 in statuses(client, 20)
    wait_for(lambda: ask(client).status_code == 200, "the limit to allow one again")


# Addresses


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "address"),
    [
        ("", "198.51.100.1", [], "198.51.100.1"),
        ("", "198.51.100.1", ["192.0.2.1"], "198.51.100.1"),
        ("10.0.0.0/8", "198.51.100.1", ["192.0.2.1"], "198.51.100.1"),
        ("10.0.0.0/8", "10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.1", ["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.1", ["203.0.113.9, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.1", ["203.0.113.9", "192.0.2.1,10.0.0.2"], "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.1", ["10.0.0.9, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.0/8", "10.0.0.1", ["192.0.2.1, unknown"], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.0/8", "10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["192.0.2.1:4711"], "192.0.2.1"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.1", ["[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2::"),
        ("10.0.0.1, 2001:db8::/32", "2001:db8::1", ["192.0.2.1"], "192.0.2.1"),
        ("", "2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::"),
        ("", "not an address", [], "not an address"),
    ],
)
def test_addresses(trusted: str, peer: str, forwarded: list[str], address: str) -> None:
    """Proxies are believed from the right; of IPv6, a client has a network."""
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    address_of = ClientAddress(parse_networks(trusted))
    assert address_of({"client": (peer, 4711), "headers": headers}) == address


def test_a_socket_without_an_address_is_one_client() -> None:
    assert ClientAddress(())({"client": None, "headers": []}) == ""


# The settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RATE_LIMIT", "many"),
        ("RATE_LIMIT", "60"),
        ("RATE_LIMIT", "60/fortnight"),
        ("RATE_LIMIT", "0/minute"),
        ("RATE_LIMIT", "-1/minute"),
        ("RATE_LIMIT", "1/second; 60/minute"),
        ("RATE_LIMIT", "1000000/day"),
        ("RATE_LIMIT_STORAGE", "planted"),
        ("RATE_LIMIT_STORAGE", "http://:planted@localhost"),
        ("RATE_LIMIT_STORAGE", "redis://:planted@localhost:many"),
        ("RATE_LIMIT_STORAGE", "redis://"),
        ("RATE_LIMIT_WHEN_DOWN", "maybe"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("TRUSTED_PROXIES", "proxy.example.com"),
        ("ALLOW_ANONYMOUS", "perhaps"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"^{name}: ") as error:
        load_settings()
    assert "\n" not in str(error.value)
    assert "planted" not in str(error.value)


def test_several_workers_need_a_storage_that_they_share(tmp_path: Path) -> None:
    """In memory, each would let as many through."""
    done = start_with({"RATE_LIMIT": "60/minute", "WORKERS": "2"}, tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith("Wrong setting: RATE_LIMIT_STORAGE is memory://")
    assert "WORKERS" in done.stderr


# The storage


class Clock:
    """A clock that shows what a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def test_what_is_over_is_forgotten() -> None:
    """A scan from many addresses does not fill the memory."""
    clock = Clock()
    storage = MovingWindows(clock)
    limits = RateLimiter("5/second", storage, refuse_when_down=False, clock=clock)

    async def scan() -> None:
        for number in range(200):
            await limits.take("address", str(number))
        assert len(storage.times) == 200
        clock.now += 1.5
        await limits.take("address", "another")
        assert len(storage.times) == 1

    asyncio.run(scan())
    assert isinstance(make_storage("memory://"), MovingWindows)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.integers(1, 2)), max_size=60),
    st.integers(1, 6),
)
def test_the_windows_are_those_of_the_library(asked: list[tuple[int, str, int]], limit: int) -> None:
    """Who is let in, how many are left, and from when, after any pauses."""

    clock = Clock()

    async def compare() -> None:
        own, stock = MovingWindows(clock), MemoryStorage()
        for pause, client, amount in asked:
            clock.now += 0.3 * pause  # never the window's very end, where the library's two methods differ
            let_in = [await each.acquire_entry(client, limit, 2, amount) for each in (own, stock)]
            windows = [await each.get_moving_window(client, limit, 2) for each in (own, stock)]
            assert let_in[0] == let_in[1]
            assert windows[0][1] == windows[1][1]
            assert windows[0][0] == pytest.approx(windows[1][0]) or not windows[0][1]

    # The library takes no clock. The functions of the module `time` themselves stay: event loops of other
    # threads set their timers by them.
    with mock.patch("limits.aio.storage.memory.time", clock):
        asyncio.run(compare())


def test_a_redis_keeps_the_count(start: Start, tmp_path: Path) -> None:
    """Two servers that share one share the limit."""
    with redis_server(tmp_path) as address:
        clients = [start(rate_limit="4/hour", rate_limit_storage=address + PATIENTLY) for _ in range(2)]
        assert [ask(clients[n % 2]).status_code for n in range(6)] == [200] * 4 + [429] * 2


def test_a_redis_that_is_started_again_is_used_again(start: Start, tmp_path: Path) -> None:
    """At once: the first request finds its connection closed, and makes another."""
    with redis_server(tmp_path) as address:
        client = start(
            rate_limit="1/hour", rate_limit_storage=address + PATIENTLY, rate_limit_when_down="refuse"
        )
        assert statuses(client, 2) == [200, 429]
    port = int(address.rsplit(":", 1)[1].split("/")[0])
    with redis_server(tmp_path, port):
        assert statuses(client, 2) == [200, 429]


def test_four_workers_and_spoofed_addresses_keep_the_limit(sample_settings: Settings, tmp_path: Path) -> None:
    """Within 5 %: in fact, Redis counts exactly."""
    with redis_server(tmp_path) as address:
        environment = {
            "DOCUMENTS_DIR": str(sample_settings.documents.dir),
            "INDEX_DIR": str(sample_settings.index.dir),
            "WORKERS": "4",
            "RATE_LIMIT": "100/hour",
            "RATE_LIMIT_STORAGE": address + PATIENTLY,
        }
        with server_process(environment, tmp_path / "log") as server:
            server.wait_until_ready()
            # The workers start one after another; before all of them listen, one would answer everything.
            wait_for(lambda: server.output.count("index: serving") == 4, "all workers")

            # Each request is a connection, which any worker may take; a client that threads share, and that
            # keeps none, sometimes closes one that another thread reads.
            def post(number: int) -> int:
                spoofed = {"X-Forwarded-For": f"192.0.2.{number % 250}", "X-Real-IP": "192.0.2.1"}
                with httpx.Client(verify=False, timeout=30) as client:
                    return client.post(f"{server.url}/retrieve", json=QUESTION, headers=spoofed).status_code

            with ThreadPoolExecutor(16) as pool:
                found = Counter(pool.map(post, range(300)))
            assert set(found) == {200, 429}
            assert 95 <= found[200] <= 105


@contextmanager
def storage_that_hangs() -> Iterator[tuple[str, list[int]]]:
    """It lets everybody connect and never answers; the list grows with each who does."""
    tries: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        held = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return
                tries.append(1)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{port}", tries
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


@pytest.mark.parametrize(("policy", "status"), [("allow", 200), ("refuse", 503)])
def test_without_its_storage_it_does_what_is_set(
    start: Start, caplog: pytest.LogCaptureFixture, policy: str, status: int
) -> None:
    """Says so once, and does not wait for it with each request."""
    with storage_that_hangs() as (address, tries):
        client = start(
            rate_limit="1/hour",
            rate_limit_storage=address.replace("//", "//:planted@"),
            rate_limit_when_down=policy,
        )
        answers = [ask(client) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {status}
    assert not any("ratelimit-limit" in answer.headers for answer in answers)
    if status == 503:
        assert answers[0].json()["code"] == "overloaded"
        assert int(answers[0].headers["retry-after"]) > 0
    assert 1 <= len(tries) <= 4
    told = [record for record in caplog.records if "RATE_LIMIT_STORAGE" in record.getMessage()]
    assert [record.levelname for record in told] == ["ERROR"]
    assert "planted" not in caplog.text


def test_a_burst_does_not_wait_for_a_storage_that_hangs(start: Start) -> None:
    """Those that wait for the first to find out do not try for themselves."""
    with storage_that_hangs() as (address, tries):
        client = start(rate_limit="1/hour", rate_limit_storage=address)
        with ThreadPoolExecutor(50) as pool:
            found = Counter(pool.map(lambda _: ask(client).status_code, range(100)))
        assert found == {200: 100}
        assert len(tries) <= 64


def test_the_storage_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again after a pause; then the limit holds, and the log says it."""
    port = free_port()
    storage = make_storage(f"redis://127.0.0.1:{port}{PATIENTLY}")
    limits = RateLimiter("1/hour", storage, refuse_when_down=True, pause_s=0.1)

    async def go() -> None:
        with pytest.raises(Overloaded):
            await limits.take("key", "alice")
        with redis_server(tmp_path, port):
            verdict = None
            while verdict is None:
                try:
                    verdict = await limits.take("key", "alice")
                except Overloaded:
                    await asyncio.sleep(0.02)
            assert verdict.allowed
            after = await limits.take("key", "alice")
            assert after is not None
            assert not after.allowed
        await limits.close()

    asyncio.run(asyncio.wait_for(go(), 30))
    told = [record.levelname for record in caplog.records if record.name == "app.http.rate_limiter"]
    assert told == ["ERROR", "WARNING"]
