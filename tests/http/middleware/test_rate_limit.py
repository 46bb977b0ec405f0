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


def test_requests_over_the_limit_are_refused(start: Start) -> None:
    """The refusal says when to try again, and each answer before it says how many requests are left."""
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


def test_a_refusal_below_v1_has_openais_shape(start: Start) -> None:
    client = start(rate_limit="1/hour")
    messages = {"model": "rag-service", "messages": [{"role": "user", "content": "leave?"}]}
    answers = [client.post("/v1/chat/completions", json=messages) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    error = answers[1].json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limited")
    assert int(answers[1].headers["retry-after"]) > 0


def test_a_stream_has_the_rate_limit_headers(start: Start) -> None:
    answer = ask(start(rate_limit="2/hour"), "/query/stream")
    assert answer.headers["ratelimit-remaining"] == "1"
    assert answer.text.endswith("data: [DONE]\n\n")


def test_only_work_is_limited(start: Start) -> None:
    """Probes and other cheap requests are not counted."""
    client = start(rate_limit="1/hour")
    assert statuses(client, 2) == [200, 429]
    for path in ("/health", "/health/live", "/documents", "/v1/models"):
        answer = client.get(path)
        assert (answer.status_code, "ratelimit-limit" in answer.headers) == (200, False)


def test_two_keys_never_share_a_limit(start: Start) -> None:
    """The limits are separate even if requests from one address are interleaved."""
    client = start(rate_limit="5/hour", api_keys=KEYS)
    found = Counter((key, ask(client, X_API_Key=key).status_code) for _ in range(8) for key in ("one", "two"))
    assert found == {("one", 200): 5, ("one", 429): 3, ("two", 200): 5, ("two", 429): 3}


def test_a_key_has_one_limit_wherever_it_is_used(start: Start) -> None:
    """Neither another header nor another address gives it a second one."""
    client = start(rate_limit="2/hour", api_keys=KEYS, trusted_proxies="127.0.0.1")
    assert ask(client, X_API_Key="one", X_Forwarded_For="192.0.2.1").status_code == 200
    assert ask(client, Authorization="Bearer one", X_Forwarded_For="192.0.2.2").status_code == 200
    assert ask(client, X_API_Key="one", X_Forwarded_For="192.0.2.3").status_code == 429


def test_refused_requests_without_a_key_do_not_count_against_a_key(start: Start) -> None:
    client = start(rate_limit="1/hour", api_keys=KEYS)
    assert statuses(client, 3, X_API_Key="wrong") == [401, 401, 401]
    assert statuses(client, 2, X_API_Key="one") == [200, 429]


def test_a_spoofed_address_makes_no_new_client(start: Start) -> None:
    client = start(rate_limit="2/hour")
    found = [ask(client, X_Forwarded_For=f"192.0.2.{n}").status_code for n in range(4)]
    assert found == [200, 200, 429, 429]


def test_clients_behind_a_trusted_proxy_are_told_apart(start: Start) -> None:
    """The address that the proxy appended counts; a client may have invented those before it."""
    client = start(rate_limit="1/hour", trusted_proxies="127.0.0.0/8")
    assert ask(client, X_Forwarded_For="192.0.2.1").status_code == 200
    assert ask(client, X_Forwarded_For="192.0.2.2").status_code == 200
    assert ask(client, X_Forwarded_For="203.0.113.7, 192.0.2.1").status_code == 429


def test_the_limit_holds_for_a_moving_window(start: Start) -> None:
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
def test_the_clients_address_is_found(trusted: str, peer: str, forwarded: list[str], address: str) -> None:
    """Proxies are trusted from the right, and an IPv6 client has a whole network."""
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    address_of = ClientAddress(parse_networks(trusted))
    assert address_of({"client": (peer, 4711), "headers": headers}) == address


def test_all_clients_without_an_address_count_as_one() -> None:
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
def test_an_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"^{name}: ") as error:
        load_settings()
    assert "\n" not in str(error.value)
    assert "planted" not in str(error.value)


def test_several_workers_need_a_shared_storage(tmp_path: Path) -> None:
    """With counts in memory, each worker would allow the full limit."""
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


def test_expired_counts_are_removed() -> None:
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
def test_decisions_equal_those_of_the_limits_library(asked: list[tuple[int, str, int]], limit: int) -> None:
    """The verdict, the remaining requests and the reset time agree after any pauses."""

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


def test_servers_with_one_redis_share_the_limit(start: Start, tmp_path: Path) -> None:
    """Requests to either of two servers are counted together."""
    with redis_server(tmp_path) as address:
        clients = [start(rate_limit="4/hour", rate_limit_storage=address + PATIENTLY) for _ in range(2)]
        assert [ask(clients[n % 2]).status_code for n in range(6)] == [200] * 4 + [429] * 2


def test_a_restarted_redis_is_used_again_at_once(start: Start, tmp_path: Path) -> None:
    """The first request finds its connection closed, and opens another."""
    with redis_server(tmp_path) as address:
        client = start(
            rate_limit="1/hour", rate_limit_storage=address + PATIENTLY, rate_limit_when_down="refuse"
        )
        assert statuses(client, 2) == [200, 429]
    port = int(address.rsplit(":", 1)[1].split("/")[0])
    with redis_server(tmp_path, port):
        assert statuses(client, 2) == [200, 429]


def test_four_workers_and_spoofed_addresses_keep_the_limit(sample_settings: Settings, tmp_path: Path) -> None:
    """The limit holds within 5 %; Redis itself counts exactly."""
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
def test_without_its_storage_the_configured_decision_applies(
    start: Start, caplog: pytest.LogCaptureFixture, policy: str, status: int
) -> None:
    """It is logged once, and later requests do not wait for the storage."""
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


def test_a_burst_waits_only_once_for_a_storage_that_hangs(start: Start) -> None:
    """Requests that wait while the first one finds out do not try the storage themselves."""
    with storage_that_hangs() as (address, tries):
        client = start(rate_limit="1/hour", rate_limit_storage=address)
        with ThreadPoolExecutor(50) as pool:
            found = Counter(pool.map(lambda _: ask(client).status_code, range(100)))
        assert found == {200: 100}
        assert len(tries) <= 64


def test_the_limit_holds_again_when_the_storage_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The storage is tried again after a pause, and its return is logged."""
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
