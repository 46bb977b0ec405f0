"""Questions to vectors."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from typing import Protocol

from app.domain.errors import ModelUnavailable
from app.domain.fingerprint import Fingerprint


class QuestionModel(Protocol):
    """An embedding, as far as it is asked for questions.

    LlamaIndex wraps the methods of its own contract in spans and events, which nobody listens to here, and
    which cost 0.15 ms each.
    """

    async def embed_question(self, text: str) -> list[float]: ...


class QueryEmbedder:
    """Asks the embedding model, and remembers what it said: the last `remembered` questions, as float32.

    Indexes of different fingerprints share nothing.
    """

    def __init__(self, embedding: QuestionModel, *, remembered: int) -> None:
        self._embedding = embedding
        self._size = remembered
        self._vectors: OrderedDict[tuple[Fingerprint, str], array[float]] = OrderedDict()

    async def embed(self, text: str, fingerprint: Fingerprint) -> list[float]:
        """The vector of a question, to be compared with those of an index.

        Raises:
            ModelUnavailable: the provider failed, or its vector does not fit the index.
            ModelTimeout
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
