"""The cache of questions' embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

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
    """An embedding that returns a text's length, and keeps the texts."""

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


def test_a_repeated_question_is_embedded_once() -> None:
    """The second vector comes from the cache."""
    embedding = CountingEmbedding()
    assert embed_all(embedding, "a", "bb", "a", remembered=2) == [[1.0] * 3, [2.0] * 3, [1.0] * 3]
    assert embedding.asked == ["a", "bb"]


def test_the_least_recently_used_question_is_dropped() -> None:
    """A full cache keeps the questions that were asked last."""
    embedding = CountingEmbedding()
    embed_all(embedding, "a", "b", "a", "c", "a", "b", remembered=2)
    assert embedding.asked == ["a", "b", "c", "b"]


def test_indexes_with_different_fingerprints_share_no_vectors() -> None:
    """A provider may change the model behind a name."""
    embedding = CountingEmbedding()
    embedder = QueryEmbedder(embedding, remembered=10)
    other = replace(INDEX, dimensions=4)

    async def run() -> None:
        await embedder.embed("a", INDEX)
        embedding.dimensions = 4
        assert len(await embedder.embed("a", other)) == 4
        assert len(await embedder.embed("a", INDEX)) == 3

    asyncio.run(run())


def test_a_vector_of_the_wrong_length_is_rejected() -> None:
    """The error gives both lengths, and a second try asks the model again."""
    embedding = CountingEmbedding(dimensions=4)
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="4 dimensions, and the index has 3"):
            embed_all(embedding, "a", remembered=10)
    assert embedding.asked == ["a", "a"]


def test_the_service_embeds_a_repeated_question_once(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    """The same question three times takes one embedding request."""
    answers = [openai_level.post("/query", json={"query": "weeks of leave"}).json() for _ in range(3)]
    assert len(provider.embeddings.requests) == 1
    assert len(provider.chat.requests) == 3
    assert answers[0]["citations"] == answers[2]["citations"]
