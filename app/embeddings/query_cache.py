"""Embedding of questions, with a cache."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from typing import Protocol

from app.domain.errors import ModelUnavailable
from app.domain.fingerprint import Fingerprint


class QuestionModel(Protocol):
    """An embedding model, as querying uses it.

    LlamaIndex wraps the methods of its own contract in spans and events, which have no listener here and cost
    0.15 ms each.
    """

    async def embed_question(self, text: str) -> list[float]:
        """Return the vector of a question."""
        ...


class QueryEmbedder:
    """A cache in front of an embedding model; the vectors are kept as float32.

    Entries are kept by fingerprint, so that an index never gets a vector of another model.

    Args:
        remembered: how many questions are kept, the least recently used being dropped first.
    """

    def __init__(self, embedding: QuestionModel, *, remembered: int) -> None:
        self._embedding = embedding
        self._size = remembered
        self._vectors: OrderedDict[tuple[Fingerprint, str], array[float]] = OrderedDict()

    async def embed(self, text: str, fingerprint: Fingerprint) -> list[float]:
        """Return the vector of a question, for an index with the given fingerprint.

        Raises:
            ModelUnavailable: the provider failed, or its vector has another length than those of the index.
            ModelTimeout: the provider did not answer in time.
        """
        key = (fingerprint, text)
        if (known := self._vectors.get(key)) is not None:
            self._vectors.move_to_end(key)
            return known.tolist()
        vector = await self._embedding.embed_question(text)
        if len(vector) != fingerprint.dimensions:
            raise ModelUnavailable(
                f"the embedding model returned {len(vector)} dimensions, "
                f"and the index has {fingerprint.dimensions}"
            )
        self._remember(key, vector)
        return vector

    def _remember(self, key: tuple[Fingerprint, str], vector: list[float]) -> None:
        if self._size == 0:
            return
        self._vectors[key] = array("f", vector)
        if len(self._vectors) > self._size:
            self._vectors.popitem(last=False)
