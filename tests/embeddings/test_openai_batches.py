"""Batches of a corpus over HTTP, with a provider that fails."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from app.domain.errors import EmbeddingChanged, IndexingError
from app.domain.vectors import Vectors
from app.embeddings.contract import BatchEmbedding, Submit
from app.embeddings.openai_batches import OpenAIBatches
from app.provider.client import Endpoint, ProviderClient
from app.provider.retry import offline
from tests.fake_provider import DIMENSIONS, Exchange, FakeProvider, Fault, embed, faults, slow_faults
from tests.support.moved_clock import Clock
from tests.support.serving import wait_for

CONCURRENCY = 4
BATCHES = [[f"text {number} of {batch}" for number in range(3)] for batch in range(20)]
EXPECTED = [np.array([embed(text) for text in texts], dtype=np.float32) for texts in BATCHES]

MIDDLE = 9  # batches are done before it
LIMIT_S = 30  # for a future to be done, wherever it is not the point how long that takes


@pytest.fixture(autouse=True)
def _nothing_is_left(provider: FakeProvider) -> Iterator[None]:
    """A test leaves no request, no connection and no thread."""
    provider.close_idle()
    wait_for(lambda: provider.connections == 0, "connections of other tests to be closed")
    before = own_threads()  # those of other tests may end meanwhile
    yield
    wait_for(lambda: provider.open_requests == 0, "requests to end")
    wait_for(lambda: provider.connections == 0, "connections to be closed")
    wait_for(lambda: not own_threads() - before, "threads to end")


def own_threads() -> set[threading.Thread]:
    """List the threads except those that event loops keep for blocking calls."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


@pytest.fixture
def embedding(provider_url: str) -> Callable[..., OpenAIBatches]:
    def make(*, attempt_s: float = 30, retry_s: float = 60) -> OpenAIBatches:
        # Hardly any pause before the first retries, where the provider does not say how long.
        retry_policy = replace(offline(attempt_s=attempt_s, retry_s=retry_s), first_backoff_s=0.01)
        endpoint = Endpoint(
            ProviderClient(f"{provider_url}/v1", "sk-test"), "embeddings", "the embedding model", retry_policy
        )
        return OpenAIBatches(endpoint, "text-embedding-3-small")

    return make


MakeEmbedding = Callable[..., OpenAIBatches]


def run(embedding: BatchEmbedding, batches: list[list[str]] = BATCHES) -> list[Vectors]:
    """Embed all batches, a few at once, like an indexer."""
    done: list[Vectors] = []
    with embedding.session() as submit:
        waiting: deque[Future[Vectors]] = deque()
        for batch in batches:
            if len(waiting) == CONCURRENCY:
                done.append(waiting.popleft().result(LIMIT_S))
            waiting.append(submit(batch))
        done.extend(future.result(LIMIT_S) for future in waiting)
    return done


def assert_right(vectors: list[Vectors]) -> None:
    assert len(vectors) == len(EXPECTED)
    for made, expected in zip(vectors, EXPECTED, strict=True):
        assert made.dtype == np.float32
        assert np.array_equal(made, expected)


def requests_for(provider: FakeProvider, texts: list[str]) -> int:
    return sum(exchange.body["input"] == texts for exchange in provider.embeddings.requests)


@pytest.mark.parametrize("encoding", ["base64", "lists"])
def test_each_batch_is_sent_once_over_few_connections(
    provider: FakeProvider, embedding: MakeEmbedding, encoding: str
) -> None:
    """One HTTP session serves the whole run."""
    if encoding == "lists":
        provider.embeddings.fault = faults.distorted(lambda _: None)
    assert_right(run(embedding()))
    assert [requests_for(provider, texts) for texts in BATCHES] == [1] * len(BATCHES)
    assert len({exchange.connection for exchange in provider.exchanges}) <= CONCURRENCY


def test_vectors_are_in_the_order_of_their_texts(provider: FakeProvider, embedding: MakeEmbedding) -> None:
    """Neither the order of the answers nor the order within an answer matters."""
    held: list[asyncio.Event] = []

    async def last_first(exchange: Exchange) -> None:
        held.append(asyncio.Event())
        mine = held[-1]
        if len(held) == CONCURRENCY:
            held.pop().set()
        await mine.wait()
        await faults.distorted(lambda answer: answer["data"].reverse())(exchange)
        if held:
            held.pop().set()

    provider.embeddings.fault = last_first
    with embedding().session() as submit:
        for start in range(0, len(BATCHES), CONCURRENCY):
            futures = [submit(texts) for texts in BATCHES[start : start + CONCURRENCY]]
            for future, expected in zip(futures, EXPECTED[start:], strict=False):
                assert np.array_equal(future.result(LIMIT_S), expected)


def test_every_pending_future_has_one_open_request(provider: FakeProvider, embedding: MakeEmbedding) -> None:
    """Batches do not wait for each other, and a slow one is not sent twice."""
    most: list[int] = []

    async def slowly(exchange: Exchange) -> None:
        most.append(provider.open_requests)
        if len(most) <= CONCURRENCY:  # the first wait for each other
            while len(most) < CONCURRENCY:  # noqa: ASYNC110 - the fault has no other sign
                await asyncio.sleep(0.01)
        await exchange.answer_well()

    provider.embeddings.fault = slowly
    assert_right(run(embedding()))
    assert max(most) == CONCURRENCY
    assert len(most) == len(BATCHES)


def drop_last(answer: dict[str, Any]) -> None:
    answer["data"].pop()


def repeat_index(answer: dict[str, Any]) -> None:
    answer["data"][1]["index"] = 0


def nest(answer: dict[str, Any]) -> None:
    for item in answer["data"]:
        item["embedding"] = [[1.0] * DIMENSIONS]


SENSELESS: dict[str, Fault] = {
    "too few": faults.distorted(drop_last),
    "misnumbered": faults.distorted(repeat_index),
    "nested": faults.distorted(nest),
    "malformed": faults.body(faults.MALFORMED),
    "empty": faults.body(b"", content_type="application/json"),
    "HTML": faults.body(b"<html>", content_type="text/html"),
    "error with status 200": faults.body(faults.ERROR_OBJECT),
}
PASSING: dict[str, Fault] = {
    **{str(status): faults.status(status) for status in (408, 429, 500, 502, 503, 504)},
    "429 with a time": faults.status(429, "0"),
    "429 with a date": faults.status(429, faults.http_date(-60)),
    "reset": faults.reset,
    "cut off": faults.cut,
    "reset in the body": faults.reset_in_body,
    "cut off in the body": faults.cut_in_body,
}
HANGS: dict[str, Fault] = {"hang": faults.hang, "hang in the body": faults.hang_in_body}


@pytest.mark.parametrize("fault", (PASSING | SENSELESS).values(), ids=PASSING | SENSELESS)
def test_a_run_survives_transient_failures(
    provider: FakeProvider, embedding: MakeEmbedding, fault: Fault
) -> None:
    """It retries more often than a request with a waiting client, and only the batches that failed."""
    provider.embeddings.fault = faults.later(fault, after=MIDDLE, times=4)
    assert_right(run(embedding()))
    assert len(provider.embeddings.requests) == len(BATCHES) + 4


@pytest.mark.parametrize("fault", HANGS.values(), ids=HANGS)
def test_a_request_that_hangs_is_retried(
    provider: FakeProvider, embedding: MakeEmbedding, fault: Fault
) -> None:
    """It is retried again and again, as in any other outage."""
    provider.embeddings.fault = faults.later(fault, after=1, times=6)
    made = run(embedding(attempt_s=0.25), BATCHES[:2])
    assert all(np.array_equal(*pair) for pair in zip(made, EXPECTED[:2], strict=True))
    assert len(provider.embeddings.requests) >= 2 + 6


@pytest.mark.parametrize("number", [302, 400, 401, 403, 404, 422])
def test_a_permanent_failure_ends_the_batch_at_once(
    provider: FakeProvider, embedding: MakeEmbedding, number: int
) -> None:
    """The error for everybody does not quote the provider; its reason, for operators, does."""
    provider.embeddings.fault = faults.later(faults.status(number), after=MIDDLE)
    with pytest.raises(IndexingError, match=f"embedding failed: .* answered with status {number}") as error:
        run(embedding())
    assert max(requests_for(provider, texts) for texts in BATCHES) == 1
    assert faults.SECRET not in str(error.value)
    assert faults.SECRET in error.value.reason


# An attempt has 30 s, and none begins later than 60 s after the first.
OUTAGES: dict[str, Callable[[Clock], Fault]] = {
    **{name: partial(slow_faults.late, 25, fault=fault) for name, fault in PASSING.items()},
    "hang": partial(slow_faults.taking, 30, slow=slow_faults.hang),
    "hang in the body": partial(slow_faults.taking, 30, slow=slow_faults.hang_in_body),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_an_outage_ends_the_batch_after_the_retry_time(
    provider: FakeProvider, embedding: MakeEmbedding, outage: Callable[[Clock], Fault]
) -> None:
    """The error names the setting, and earlier batches keep their vectors."""
    made = embedding()
    with made.session() as submit:
        for texts, expected in zip(BATCHES[:MIDDLE], EXPECTED[:MIDDLE], strict=True):
            assert np.array_equal(submit(texts).result(LIMIT_S), expected)
        provider.embeddings.fault = outage(clock_of(made))
        with pytest.raises(IndexingError, match=r"\(tried \d+ times; EMBEDDING_RETRY_S is 60 s\)"):
            submit(BATCHES[MIDDLE]).result(LIMIT_S)
    assert requests_for(provider, BATCHES[MIDDLE]) >= 2


def clock_of(embedding: OpenAIBatches) -> Clock:
    """Return the clock of a session in which a batch was sent."""
    loop = embedding.endpoint._client._loop
    assert loop
    return Clock(loop)


@pytest.mark.parametrize("fault", SENSELESS.values(), ids=SENSELESS)
def test_malformed_answers_end_the_batch_after_a_few_retries(
    provider: FakeProvider, embedding: MakeEmbedding, fault: Fault
) -> None:
    """The address may be that of another kind of server."""
    provider.embeddings.fault = fault
    with pytest.raises(IndexingError, match="embedding failed"):
        run(embedding(retry_s=600))
    assert requests_for(provider, BATCHES[0]) == 5


@pytest.mark.parametrize(("times", "is_told"), [(2, False), (4, True)])
def test_a_lasting_outage_is_logged(
    provider: FakeProvider,
    embedding: MakeEmbedding,
    caplog: pytest.LogCaptureFixture,
    times: int,
    is_told: bool,
) -> None:
    """An operator sees why nothing moves; a short failure is not logged."""
    provider.embeddings.fault = faults.at_first(faults.status(503), times)
    run(embedding(), BATCHES[:1])
    assert ("the embedding model answered with status 503: retrying in" in caplog.text) == is_told
    assert faults.SECRET not in caplog.text


def test_a_retry_after_is_respected(provider: FakeProvider, embedding: MakeEmbedding) -> None:
    """The retry comes no earlier than the provider asked."""
    provider.embeddings.fault = faults.at_first(faults.status(429, "1"))
    run(embedding(), BATCHES[:1])
    first, second = provider.embeddings.requests
    assert second.arrived - first.arrived >= 1


@pytest.mark.parametrize("written", [str, faults.http_date], ids=["seconds", "a date"])
def test_a_retry_after_beyond_the_retry_time_fails_at_once(
    provider: FakeProvider, embedding: MakeEmbedding, written: Callable[[float], str]
) -> None:
    """The error names the pause and the setting."""
    provider.embeddings.fault = faults.status(429, written(3600))
    with pytest.raises(IndexingError, match=r"a pause of 3\d{3} s; EMBEDDING_RETRY_S is 60 s"):
        run(embedding(), BATCHES[:1])
    assert len(provider.embeddings.requests) == 1


def test_no_circuit_breaker_stops_a_run(provider: FakeProvider, embedding: MakeEmbedding) -> None:
    """Every batch gets all its retries, however many failed before."""
    provider.embeddings.fault = faults.later(faults.status(503), after=0, times=12)
    with embedding(retry_s=0).session() as submit:
        futures = [submit(texts) for texts in BATCHES[:12]]
        assert all(isinstance(future.exception(LIMIT_S), IndexingError) for future in futures)
        assert np.array_equal(submit(BATCHES[12]).result(LIMIT_S), EXPECTED[12])
    assert len(provider.embeddings.requests) == 13


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (413, b""),
        (400, b"Requested 604573 tokens, max 300000 tokens per request"),
        (400, b"the input length exceeds the context length"),
        (422, b"batch size 100 > maximum allowed batch size 32"),
    ],
)
def test_the_error_of_a_batch_that_is_too_large_names_the_setting(
    provider: FakeProvider, embedding: MakeEmbedding, number: int, said: bytes
) -> None:
    """The batch is not split behind the operator's back."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(number, b'{"error": {"message": "%b"}}' % said)

    provider.embeddings.fault = refuse
    with pytest.raises(IndexingError, match="lower EMBEDDING_BATCH_SIZE"):
        run(embedding(), BATCHES[:1])
    assert len(provider.embeddings.requests) == 1


def test_the_error_of_another_rejection_names_no_setting(
    provider: FakeProvider, embedding: MakeEmbedding
) -> None:
    """A status 400 alone does not mean that the batch was too large."""
    provider.embeddings.fault = faults.status(400)
    with pytest.raises(IndexingError) as error:
        run(embedding(), BATCHES[:1])
    assert "EMBEDDING_BATCH_SIZE" not in str(error.value)


def renamed(name: object) -> Fault:
    return faults.distorted(lambda answer: answer.update(model=name))


def lengthen(answer: dict[str, Any]) -> None:
    for item in answer["data"]:
        item["embedding"] = [1.0] * (DIMENSIONS + 1)


@pytest.mark.parametrize(
    ("fault", "other"),
    [
        (renamed("text-embedding-4"), f"text-embedding-4 with {DIMENSIONS}"),
        (faults.distorted(lengthen), f"text-embedding-3-small with {DIMENSIONS + 1}"),
    ],
    ids=["name", "dimensions"],
)
def test_a_model_that_changes_during_a_run_ends_the_run(
    provider: FakeProvider, embedding: MakeEmbedding, fault: Fault, other: str
) -> None:
    """Vectors of two models cannot be compared; the error names both."""
    provider.embeddings.fault = faults.later(fault, after=MIDDLE)
    with pytest.raises(EmbeddingChanged) as error:
        run(embedding())
    assert f"from text-embedding-3-small with {DIMENSIONS} dimensions to {other}" in str(error.value)


def test_another_run_may_have_another_model(provider: FakeProvider, embedding: MakeEmbedding) -> None:
    """Only the answers of one run must come from one model."""
    one = embedding()
    run(one, BATCHES[:1])
    provider.embeddings.fault = faults.distorted(lengthen)
    assert run(one, BATCHES[:1])[0].shape == (3, DIMENSIONS + 1)


@pytest.mark.parametrize("name", [None, 7, ""])
def test_a_provider_need_not_name_its_model(
    provider: FakeProvider, embedding: MakeEmbedding, name: object
) -> None:
    """Its answers may lack a model's name, always or sometimes."""
    provider.embeddings.fault = faults.later(renamed(name), after=MIDDLE)
    assert_right(run(embedding()))


def hang_all(submit: Submit, provider: FakeProvider) -> list[Future[Vectors]]:
    futures = [submit(texts) for texts in BATCHES[:CONCURRENCY]]
    wait_for(lambda: provider.open_requests == CONCURRENCY, "all requests to be open")
    return futures


def test_leaving_the_session_cancels_open_requests(provider: FakeProvider, embedding: MakeEmbedding) -> None:
    """An interrupted run leaves no request, connection or thread, which the fixture checks."""
    provider.embeddings.fault = faults.hang
    with pytest.raises(KeyboardInterrupt), embedding().session() as submit:
        futures = hang_all(submit, provider)
        raise KeyboardInterrupt
    assert all(future.cancelled() for future in futures)


def test_leaving_the_session_does_not_wait_for_a_retry(
    provider: FakeProvider, embedding: MakeEmbedding
) -> None:
    """A batch that pauses between two attempts is cancelled."""
    provider.embeddings.fault = faults.status(429, "50")
    with embedding().session() as submit:
        future = submit(BATCHES[0])
        wait_for(lambda: provider.embeddings.requests and not provider.open_requests, "the answer")
    assert future.cancelled()


def test_cancelling_a_future_ends_only_its_request(provider: FakeProvider, embedding: MakeEmbedding) -> None:
    """The other requests stay open."""
    provider.embeddings.fault = faults.hang
    with embedding().session() as submit:
        hang_all(submit, provider)[0].cancel()
        wait_for(lambda: provider.open_requests == CONCURRENCY - 1, "one request to end")
