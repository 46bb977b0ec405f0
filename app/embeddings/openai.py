"""The provider's embedding models as a LlamaIndex embedding."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import PrivateAttr

from app.embeddings.openai_batches import OpenAIBatches


class OpenAIEmbedding(BaseEmbedding):
    """A LlamaIndex embedding over `OpenAIBatches`.

    LlamaIndex's own OpenAIEmbedding trusts the number and the order of the vectors that arrive, adds its
    retries to those of the client (10 times 10 requests for one), and costs 3.6 ms a call.
    """

    _model: OpenAIBatches = PrivateAttr()

    def __init__(self, model: OpenAIBatches, **fields: Any) -> None:
        super().__init__(model_name=model.name, **fields)
        self._model = model

    @classmethod
    def class_name(cls) -> str:
        return "OpenAIEmbedding"

    async def embed_question(self, text: str) -> list[float]:
        """Embed a question; see `QuestionModel`."""
        return (await self._embed([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._embed(texts)

    async def _embed(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = (await self._model.ask(texts)).vectors.tolist()
        return vectors

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await self.embed_question(text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self.embed_question(query)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._model.endpoint.run_alone(self._embed(texts))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)
