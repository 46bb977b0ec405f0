"""Clients that go away: what was done for them ends, at the provider too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest

from app.bootstrap.timing import Timing
from tests.fake_provider import Endpoint, Exchange, FakeProvider, faults
from tests.observability.test_metrics import scrape
from tests.support.raw_http import RawExchange
from tests.support.serving import wait_for
from tests.support.watched import Outcome, WatchedService, question

GetService = Callable[..., WatchedService]

CLIENTS = 200
PATIENT = {"request_timeout_s": 60, "stream_idle_timeout_s": 60}


async def hang_in_mid_answer(exchange: Exchange) -> None:
    """Of a stream after its first token."""
    await (faults.after(2, faults.hang)(exchange) if exchange.streaming else exchange.hang())


def test_requests_of_two_hundred_vanished_clients_end(
    provider: FakeProvider, watched_service: GetService
) -> None:
    """The model's requests end for streams and plain answers, and after FIN and RST alike."""
    service = watched_service(max_concurrency=CLIENTS, max_queue=CLIENTS, **PATIENT)
    provider.chat.fault = hang_in_mid_answer
    clients = [
        RawExchange(service.url, question(), path=path)
        for _ in range(CLIENTS // 2)
        for path in ("/query", "/query/stream")
    ]
    wait_for(lambda: provider.open_requests == CLIENTS, "all to be at the model")
    for stream in clients[1::2]:
        events = stream.read_head().events()
        assert [next(events).name for _ in range(2)] == ["citations", "message"]

    for number, client in enumerate(clients):
        client.vanish(abruptly=number % 4 < 2)

    wait_for(lambda: provider.open_requests == 0, "the model's requests to end")
    assert len(provider.chat.requests) == CLIENTS, "one was tried for again"
    service.check_nothing_is_left()


@pytest.mark.parametrize("stage", ["embeddings", "chat"])
@pytest.mark.parametrize("path", ["/query", "/query/stream"])
@pytest.mark.parametrize("abruptly", [True, False])
def test_a_vanished_client_frees_its_slot(
    provider: FakeProvider, watched_service: GetService, stage: str, path: str, abruptly: bool
) -> None:
    """It does so at any stage, also before the first byte of the answer."""
    service = watched_service(**PATIENT)
    endpoint: Endpoint = getattr(provider, stage)
    endpoint.fault = faults.hang
    client = RawExchange(service.url, question(), path=path)
    wait_for(lambda: len(endpoint.requests) == 1, "the request to be at the provider")
    client.vanish(abruptly=abruptly)
    service.check_nothing_is_left()


@pytest.mark.parametrize("path", ["/query", "/query/stream"])
def test_no_retry_is_made_for_a_vanished_client(
    provider: FakeProvider, watched_service: GetService, path: str
) -> None:
    """The pause that the provider asked for ends as well."""
    service = watched_service(**PATIENT)
    provider.chat.fault = faults.status(429, retry_after="30")
    client = RawExchange(service.url, question(), path=path)
    wait_for(lambda: provider.chat.requests and provider.open_requests == 0, "the provider's refusal")
    client.vanish()
    service.check_nothing_is_left()


def test_queued_requests_of_vanished_clients_never_reach_the_provider(
    provider: FakeProvider, watched_service: GetService
) -> None:
    """One client is served while five wait and vanish: the provider gets one request."""
    # Nobody leaves the queue in another way.
    service = watched_service(timing=Timing(queue_s=300), max_queue=10, **PATIENT)
    provider.chat.fault = faults.when_told(Exchange.answer_well)
    with ExitStack() as stack:
        prober = stack.enter_context(httpx.Client(base_url=service.url, timeout=60))
        served = stack.enter_context(RawExchange(service.url, question(), path="/query"))
        wait_for(lambda: provider.open_requests == 1, "the first to be at the model")
        waiting = [RawExchange(service.url, question(), path="/query/stream") for _ in range(5)]
        wait_for(lambda: scrape(prober).get("rag_requests_queued") == len(waiting), "the others to wait")
        for client in waiting:
            client.vanish()
        wait_for(lambda: scrape(prober).get("rag_requests_queued") == 0, "the queue to be empty")
        provider.go_on.set_result(None)
        assert served.read_head().status == 200
        served.read()
        assert len(provider.embeddings.requests) == len(provider.chat.requests) == 1
    service.check_nothing_is_left()


@pytest.mark.parametrize("path", ["/query", "/query/stream"])
def test_a_refused_client_is_told_when_to_retry(
    provider: FakeProvider, watched_service: GetService, path: str
) -> None:
    """It gets an ordinary error at once, and the client that holds the slot is answered."""
    service = watched_service(**PATIENT)
    provider.chat.fault = faults.when_told(Exchange.answer_well)
    with RawExchange(service.url, question(), path="/query") as served:
        wait_for(lambda: provider.open_requests == 1, "the first to be at the model")
        with RawExchange(service.url, question(), path=path) as refused:
            assert refused.read_head().status == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert b'"overloaded"' in refused.read()
        provider.go_on.set_result(None)
        assert served.read_head().status == 200
        served.read()
    service.check_nothing_is_left()


def test_an_open_connection_holds_no_slot_after_its_answer(
    provider: FakeProvider, watched_service: GetService
) -> None:
    """The client has read to the end and stays connected, and its slot is free."""
    service = watched_service(**PATIENT)
    with RawExchange(service.url, question()) as stayed:
        stayed.read_head().read()
        wait_for(lambda: service.ask() == Outcome(200, "answered"), "the slot to be free")
    service.check_nothing_is_left()
