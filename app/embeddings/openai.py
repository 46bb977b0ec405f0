"""Embeddings of OpenAI, or of any server that speaks its API."""

from __future__ import annotations

import math
from typing import Any

from llama_index.embeddings.openai import OpenAIEmbedding
from openai.types import CreateEmbeddingResponse

from app.errors import ModelUnavailable
from app.provider_errors import provider_errors


class CheckedOpenAIEmbedding(OpenAIEmbedding):
    """LlamaIndex's, with its answers checked.

    The stock class takes vectors in the order they arrive in, as many as arrive, and puts its own retries on
    top of the client's: 10 times 10 requests for one. Here only the client retries.
    """

    @classmethod
    def class_name(cls) -> str:
        return "CheckedOpenAIEmbedding"

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        with provider_errors():
            response = self._get_client().embeddings.create(**self._request(texts, self._text_engine))
            return _checked(response, len(texts))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        with provider_errors():
            response = await self._get_aclient().embeddings.create(**self._request(texts, self._text_engine))
            return _checked(response, len(texts))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self._aget_text_embedding(query)

    def _request(self, texts: list[str], model: str) -> dict[str, Any]:
        return {"input": texts, "model": model, "encoding_format": "float", **self.additional_kwargs}


def _checked(response: CreateEmbeddingResponse, expected: int) -> list[list[float]]:
    """The vectors in the order of the texts.

    Raises:
        ModelUnavailable: they are not one for each text, of one length, all finite.
    """
    data = sorted(response.data or [], key=lambda item: item.index)
    if [item.index for item in data] != list(range(expected)):
        raise ModelUnavailable(
            f"the embedding model returned {len(data)} vectors for {expected} texts, or misnumbered them"
        )
    vectors = [item.embedding for item in data]
    lengths = {len(vector) for vector in vectors}
    if len(lengths) != 1 or 0 in lengths:
        raise ModelUnavailable(
            f"the embedding model returned vectors of different lengths: {sorted(lengths)}"
        )
    if not all(
        isinstance(value, (int, float)) and math.isfinite(value) for vector in vectors for value in vector
    ):
        raise ModelUnavailable(
            "the embedding model returned a vector with a value that is not a finite number"
        )
    return vectors
