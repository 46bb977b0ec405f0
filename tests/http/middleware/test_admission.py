"""How many requests are let in at once, and what becomes of the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from app.bootstrap.timing import Timing
from app.config.settings import Settings
from tests.fake_provider import FakeProvider, faults
from tests.support.raw_http import RawExchange
from tests.support.serving import wait_for

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]
Ask = Callable[[], "Future[httpx.Response]"]

QUESTION = {"query": "How long is parental leave?"}


@contextmanager
def held_streams(provider: FakeProvider, client: httpx.Client) -> Iterator[tuple[Ask, threading.Event]]:
    """A way to ask in the background, and the event without which no answer ends."""
    released = threading.Event()

    provider.chat.fault = faults.held_stream(released)
    with ThreadPoolExecutor(8) as pool:
        try:
            yield (
                lambda: pool.submit(httpx.post, f"{client.base_url}/query/stream", json=QUESTION, timeout=60),
                released,
            )
        finally:
            released.set()


def wait_until_held(provider: FakeProvider, count: int) -> None:
    wait_for(lambda: len(provider.chat.requests) == count, f"{count} requests to be in flight")


def wait_until_queued(client: httpx.Client, count: int) -> None:
    line = f"\nrag_requests_queued {count}.0\n"
    wait_for(lambda: line in client.get("/metrics").text, f"{count} to wait for their turn")


@pytest.mark.parametrize("path", ["/query", "/query/stream", "/retrieve", "/v1/chat/completions"])
def test_requests_beyond_slots_and_queue_are_refused_at_once(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve, path: str
) -> None:
    """The answer is 503 with Retry-After, while probes and other cheap requests are still answered."""
    client = serve(openai_settings(max_concurrency=2, max_queue=0))
    with held_streams(provider, client) as (ask, _):
        answers = [ask(), ask()]
        wait_until_held(provider, 2)
        refused = client.post(path, json=QUESTION)
        probes = [client.get(each) for each in ("/health", "/health/live", "/documents", "/v1/models")]

    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    body = refused.json()
    assert body.get("code", body.get("error", {}).get("code")) == "overloaded"
    assert [probe.status_code for probe in probes] == [200] * 4
    assert all(answer.result().text.endswith("data: [DONE]\n\n") for answer in answers)


def test_up_to_max_queue_requests_wait_for_a_slot(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """They are answered when a slot is free, and the next request is refused."""
    client = serve(openai_settings(max_concurrency=1, max_queue=1), timing=Timing(queue_s=60))
    with held_streams(provider, client) as (ask, released):
        first = ask()
        wait_until_held(provider, 1)
        others = [ask(), ask()]
        wait_for(lambda: any(other.done() for other in others), "one of them to be refused")
        released.set()
        statuses = sorted(answer.result().status_code for answer in [first, *others])
    assert statuses == [200, 200, 503]


def test_a_queued_request_is_refused_after_a_while(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    client = serve(openai_settings(max_concurrency=1, max_queue=1), timing=Timing(queue_s=0.1))
    with held_streams(provider, client) as (ask, _):
        ask()
        wait_until_held(provider, 1)
        refused = client.post("/query", json=QUESTION)
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")


def test_a_slot_is_free_again_after_each_kind_of_end(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """An answer, an error and an invalid request each release their slot."""
    client = serve(openai_settings(max_concurrency=1, max_queue=0))
    for _ in range(3):
        assert client.post("/query", json=QUESTION).status_code == 200
        assert client.post("/query", json={}).status_code == 422
        assert client.post("/query/stream", json=QUESTION).status_code == 200


def test_a_client_that_disconnects_leaves_the_queue(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """Its place in the queue is free for the next client."""
    client = serve(openai_settings(max_concurrency=1, max_queue=1), timing=Timing(queue_s=60))
    with held_streams(provider, client) as (ask, released):
        first = ask()
        wait_until_held(provider, 1)
        for _ in range(3):
            with RawExchange(str(client.base_url), QUESTION, path="/query"):
                wait_until_queued(client, 1)
            wait_until_queued(client, 0)
        waiting = ask()
        wait_until_queued(client, 1)
        released.set()
        assert first.result().status_code == waiting.result().status_code == 200
    assert len(provider.chat.requests) == 2
