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


def test_two_hundred_clients_that_vanish_leave_nothing(
    provider: FakeProvider, watched_service: GetService
) -> None:
    """Half from a stream, half from a plain answer; by FIN and by RST: the model's requests end with them."""
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
def test_a_client_that_vanishes_frees_its_slot(
    provider: FakeProvider, watched_service: GetService, stage: str, path: str, abruptly: bool
) -> None:
    """At any stage, before a first byte of the answer, too."""
    service = watched_service(**PATIENT)
    endpoint: Endpoint = getattr(provider, stage)
    endpoint.fault = faults.hang
    client = RawExchange(service.url, question(), path=path)
    wait_for(lambda: len(endpoint.requests) == 1, "the request to be at the provider")
    client.vanish(abruptly=abruptly)
    service.check_nothing_is_left()


@pytest.mark.parametrize("path", ["/query", "/query/stream"])
def test_a_client_that_vanishes_between_two_tries_is_not_tried_for_again(
    provider: FakeProvider, watched_service: GetService, path: str
) -> None:
    """The pause that the provider asked for ends with it."""
    service = watched_service(**PATIENT)
    provider.chat.fault = faults.status(429, retry_after="30")
    client = RawExchange(service.url, question(), path=path)
    wait_for(lambda: provider.chat.requests and provider.open_requests == 0, "the provider's refusal")
    client.vanish()
    service.check_nothing_is_left()


def test_who_vanishes_from_the_queue_is_never_asked_for(
    provider: FakeProvider, watched_service: GetService
) -> None:
    """One is served, five wait and go: the provider hears of one."""
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
def test_who_finds_every_place_taken_is_told_when_to_come_back(
    provider: FakeProvider, watched_service: GetService, path: str
) -> None:
    """At once, by an ordinary error; and the one who has the place is answered."""
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


def test_a_client_that_reads_to_the_end_and_stays_holds_nothing(
    provider: FakeProvider, watched_service: GetService
) -> None:
    """Its connection is open, and its slot is free."""
    service = watched_service(**PATIENT)
    with RawExchange(service.url, question()) as stayed:
        stayed.read_head().read()
        wait_for(lambda: service.ask() == Outcome(200, "answered"), "the slot to be free")
    service.check_nothing_is_left()
