"""Questions' embeddings: asked for once, and never mixed up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from app.config.settings import Settings
from app.domain.errors import ModelUnavailable
from app.domain.fingerprint import Fingerprint
from app.embeddings.query_cache import QueryEmbedder
from tests.fake_provider import FakeProvider

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]

INDEX = Fingerprint(provider="p", model="m", dimensions=3)


class CountingEmbedding:
    """Embeds a text as its length, and keeps what it was asked."""

    def __init__(self, dimensions: int = 3) -> None:
        self.dimensions = dimensions
        self.asked: list[str] = []

    async def embed_question(self, text: str) -> list[float]:
        self.asked.append(text)
        return [float(len(text))] * self.dimensions


def embed_all(
    embedding: CountingEmbedding, *questions: str, remembered: int, fingerprint: Fingerprint = INDEX
) -> list[list[float]]:
    async def run() -> list[list[float]]:
        embedder = QueryEmbedder(embedding, remembered=remembered)
        return [await embedder.embed(question, fingerprint) for question in questions]

    return asyncio.run(run())


def test_the_same_question_is_asked_once() -> None:
    embedding = CountingEmbedding()
    assert embed_all(embedding, "a", "bb", "a", remembered=2) == [[1.0] * 3, [2.0] * 3, [1.0] * 3]
    assert embedding.asked == ["a", "bb"]


def test_the_one_that_was_not_asked_for_longest_is_forgotten() -> None:
    embedding = CountingEmbedding()
    embed_all(embedding, "a", "b", "a", "c", "a", "b", remembered=2)
    assert embedding.asked == ["a", "b", "c", "b"]


def test_indexes_of_other_fingerprints_share_nothing() -> None:
    """A provider may change what stands behind a model's name."""
    embedding = CountingEmbedding()
    embedder = QueryEmbedder(embedding, remembered=10)
    other = INDEX.model_copy(update={"dimensions": 4})

    async def run() -> None:
        await embedder.embed("a", INDEX)
        embedding.dimensions = 4
        assert len(await embedder.embed("a", other)) == 4
        assert len(await embedder.embed("a", INDEX)) == 3

    asyncio.run(run())


def test_a_vector_that_does_not_fit_is_refused_and_not_remembered() -> None:
    embedding = CountingEmbedding(dimensions=4)
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="4 dimensions, and the index has 3"):
            embed_all(embedding, "a", remembered=10)
    assert embedding.asked == ["a", "a"]


def test_the_service_asks_its_provider_once(provider: FakeProvider, openai_level: httpx.Client) -> None:
    answers = [openai_level.post("/query", json={"query": "weeks of leave"}).json() for _ in range(3)]
    assert len(provider.embeddings.requests) == 1
    assert len(provider.chat.requests) == 3
    assert answers[0]["citations"] == answers[2]["citations"]
