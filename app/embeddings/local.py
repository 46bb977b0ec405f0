"""The bundled model as a LlamaIndex embedding."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import PrivateAttr

from app.domain.vectors import Vectors
from app.embeddings.static_model import MODEL, StaticModel

# Embedding a question of this length takes 0.2 ms, as long as handing it to a thread.
_INLINE_CHARS = 500


class LocalEmbedding(BaseEmbedding):
    """A LlamaIndex embedding over `StaticModel`.

    The model is a class of its own, because reading a pydantic model's private attribute takes 2 µs.
    """

    _vectors: StaticModel = PrivateAttr(default_factory=StaticModel)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(model_name=MODEL, **kwargs)

    @classmethod
    def class_name(cls) -> str:
        return "LocalEmbedding"

    def embed(self, texts: list[str]) -> Vectors:
        """Embed texts; see `StaticModel.embed`."""
        return self._vectors.embed(texts)

    async def embed_question(self, text: str) -> list[float]:
        """Embed a question, in a thread if it is long; see `QuestionModel`."""
        if len(text) <= _INLINE_CHARS:
            return self._vector(text)
        return await asyncio.to_thread(self._vector, text)

    def _vector(self, text: str) -> list[float]:
        vector: list[float] = self.embed([text])[0].tolist()
        return vector

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.embed(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self.embed_question(query)
