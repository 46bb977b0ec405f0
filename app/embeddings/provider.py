"""Embeddings of the model provider, as a LlamaIndex embedding."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import PrivateAttr

from app.provider.client import Endpoint
from app.provider.failures import ProviderFailure

# A text's vector as JSON: 4,096 numbers of 20 digits, and some.
_MAX_BYTES_A_TEXT = 128 * 1024


class ProviderEmbedding(BaseEmbedding):
    """Any model behind the provider's `embeddings`, with its answers checked.

    LlamaIndex's OpenAIEmbedding takes vectors in the order they arrive in, as many as arrive, puts its own
    retries on top of the client's (10 times 10 requests for one), and costs 3.6 ms a call.
    """

    _endpoint: Endpoint = PrivateAttr()

    def __init__(self, endpoint: Endpoint, **fields: Any) -> None:
        super().__init__(**fields)
        self._endpoint = endpoint

    @classmethod
    def class_name(cls) -> str:
        return "ProviderEmbedding"

    async def embed_question(self, text: str) -> list[float]:
        """As `aget_query_embedding`; see `QuestionModel`."""
        return (await self._embed([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._embed(texts)

    async def _embed(self, texts: list[str]) -> list[list[float]]:
        # A third of the bytes, and no numbers to parse. Servers that know only lists send lists.
        body = {"input": texts, "model": self.model_name, "encoding_format": "base64"}
        return await self._endpoint.post(
            body,
            lambda answer: _vectors(answer, len(texts)),
            max_bytes=_MAX_BYTES_A_TEXT * (len(texts) + 1),
        )

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await self.embed_question(text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self.embed_question(query)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._endpoint.run_alone(self._embed(texts))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def _vectors(answer: dict[str, Any], expected: int) -> list[list[float]]:
    """The vectors in the order of the texts.

    Raises:
        ProviderFailure: they are not one for each text, of one length, all finite.
    """
    data = sorted(answer["data"], key=lambda item: item["index"])
    if [item["index"] for item in data] != list(range(expected)):
        raise ProviderFailure(f"returned {len(data)} vectors for {expected} texts, or misnumbered them")
    vectors = [_vector(item["embedding"]) for item in data]
    lengths = {len(vector) for vector in vectors}
    if len(lengths) != 1 or 0 in lengths:
        raise ProviderFailure(f"returned vectors of different lengths: {sorted(lengths)}")
    if not all(np.isfinite(vector).all() for vector in vectors):
        raise ProviderFailure("returned a vector with a value that is not a finite number")
    return [vector.tolist() for vector in vectors]


def _vector(embedding: str | list[float]) -> npt.NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    return np.array(embedding, dtype=np.float32)
