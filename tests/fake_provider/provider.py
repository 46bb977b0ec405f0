"""The provider as a test sees it: what it says, how long it takes, what fails, and what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fake_provider import answers
from tests.fake_provider.answers import Answer, Json, Reply
from tests.fake_provider.exchange import Exchange, Fault
from tests.fake_provider.vectors import BagOfWords, Vectors

if TYPE_CHECKING:
    from tests.fake_provider.server import Connection


@dataclass
class Endpoint:
    """A path of the provider's API.

    Attributes:
        answer: makes the answer to a request's body where nothing is wrong.
        latency_s: until the whole answer or, of a stream, until its first piece.
        fault: answers each request in its own way instead.
        requests: those that have come, in order.
    """

    path: str
    answer: Callable[[FakeProvider, Json], Answer] = field(compare=False)
    method: str = "POST"
    latency_s: float = 0.0
    fault: Fault | None = None
    requests: list[Exchange] = field(default_factory=list)


def _health() -> Endpoint:
    return Endpoint("/health", lambda _provider, _request: answers.health(), method="GET")


def _embeddings() -> Endpoint:
    return Endpoint("/v1/embeddings", lambda provider, request: answers.embeddings(request, provider.vectors))


def _chat() -> Endpoint:
    return Endpoint("/v1/chat/completions", lambda provider, request: answers.chat(request, provider.said()))


@dataclass(eq=False)
class FakeProvider:
    """Embeds texts, and answers every question with `reply`, whole or as a stream.

    Attributes:
        pieces: the reply as a stream cuts it; by words where they are not given.
        finish_reason: why the reply ends.
        token_s: from one piece of a stream to the next.
        recording: keep the requests; without it a long load test takes no memory.
        exchanges: all requests, in order; those to unknown paths, too.
        go_on: done when the test says so; see `faults.when_told`.
        sent_bytes: of all answers.
    """

    reply: str = "The passage says so [1]."
    pieces: Sequence[str] | None = None
    finish_reason: str = "stop"
    token_s: float = 0.0
    vectors: Vectors = field(default_factory=BagOfWords)
    health: Endpoint = field(default_factory=_health)
    embeddings: Endpoint = field(default_factory=_embeddings)
    chat: Endpoint = field(default_factory=_chat)
    recording: bool = True
    exchanges: list[Exchange] = field(default_factory=list)
    go_on: Future[None] = field(default_factory=Future)
    sent_bytes: int = 0
    _connections: set[Connection] = field(default_factory=set)

    def __post_init__(self) -> None:
        endpoints = [each for each in vars(self).values() if isinstance(each, Endpoint)]
        self._endpoints = {(endpoint.method, endpoint.path): endpoint for endpoint in endpoints}

    def reset(self) -> None:
        """Forget all that was set and asked; the connections stay."""
        vars(self).update(vars(FakeProvider(_connections=self._connections)))

    def said(self) -> Reply:
        pieces = answers.words(self.reply) if self.pieces is None else self.pieces
        return Reply(tuple(pieces), self.finish_reason)

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        return self._endpoints.get((method, path))

    def record(self, exchange: Exchange) -> None:
        if self.recording:
            self.exchanges.append(exchange)
            if exchange.endpoint is not None:
                exchange.endpoint.requests.append(exchange)

    @property
    def open_requests(self) -> int:
        """The number of requests whose answer is not finished, and whose client is still there."""
        return sum(connection.exchange is not None for connection in list(self._connections))

    @property
    def connections(self) -> int:
        return len(self._connections)

    def close_idle(self) -> None:
        """Close the connections that are kept for a next request; from any thread."""
        for connection in list(self._connections):
            connection.close_if_idle()
