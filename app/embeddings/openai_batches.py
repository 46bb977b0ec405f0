"""Embedding over the provider's `embeddings` route, for questions and for whole corpora."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from app.domain.errors import EmbeddingChanged, IndexingError, RagError
from app.domain.vectors import Vector, Vectors
from app.embeddings.contract import Submit
from app.provider.background_loop import background_loop
from app.provider.client import Endpoint
from app.provider.failures import ProviderFailure

# The size of one vector as JSON: 4,096 numbers of 20 digits, with a margin.
_MAX_BYTES_A_TEXT = 128 * 1024


class Answer(NamedTuple):
    """The vectors in the order of their texts, and the model if the provider names it."""

    vectors: Vectors
    model: str | None


class _OneModel:
    """A check that one model makes all vectors of a run: those of two models cannot be compared."""

    def __init__(self) -> None:
        self._model: str | None = None
        self._dimensions = 0

    def check(self, answer: Answer) -> None:
        """Compare an answer with the earlier ones.

        Raises:
            EmbeddingChanged: it has another model, or another number of dimensions.
        """
        dimensions = answer.vectors.shape[1]
        self._model = self._model or answer.model
        self._dimensions = self._dimensions or dimensions
        model = answer.model or self._model
        if (model, dimensions) != (self._model, self._dimensions):
            raise EmbeddingChanged(
                f"embedding failed: the provider's model changed during the run, from {self._model} with "
                f"{self._dimensions} dimensions to {model} with {dimensions}: run make reindex again"
            )


class OpenAIBatches:
    """A model of the provider, whose answers are checked before they are used."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.endpoint = endpoint
        self.name = name

    @contextmanager
    def session(self) -> Iterator[Submit]:
        """Open a run over one HTTP session and one thread; see `BatchEmbedding.session`."""
        one_model = _OneModel()
        with background_loop(self.endpoint.close) as loop:
            yield lambda texts: asyncio.run_coroutine_threadsafe(self._embed_batch(texts, one_model), loop)

    async def ask(self, texts: list[str]) -> Answer:
        """Embed texts with one request.

        Raises:
            RagError: see `Endpoint.post`.
        """
        # base64 takes a third of the bytes and no parsing of numbers. Servers without it send lists.
        body = {"input": texts, "model": self.name, "encoding_format": "base64"}
        return await self.endpoint.post(
            body,
            lambda answer: _parse(answer, len(texts)),
            max_bytes=_MAX_BYTES_A_TEXT * (len(texts) + 1),
        )

    async def _embed_batch(self, texts: list[str], one_model: _OneModel) -> Vectors:
        try:
            answer = await self.ask(texts)
        except RagError as error:
            raise IndexingError(f"embedding failed: {error.detail}{_advice(error)}") from error
        one_model.check(answer)
        return answer.vectors


def _parse(answer: dict[str, Any], expected: int) -> Answer:
    """Check an answer and put its vectors in the order of the texts.

    Raises:
        ProviderFailure: there is not exactly one vector for each text, their lengths differ, or a value is
            not finite.
    """
    data = sorted(answer["data"], key=lambda item: item["index"])
    if [item["index"] for item in data] != list(range(expected)):
        raise ProviderFailure(f"returned {len(data)} vectors for {expected} texts, or misnumbered them")
    rows = [_vector(item["embedding"]) for item in data]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ProviderFailure(f"returned vectors of different lengths: {sorted(lengths)}")
    vectors = np.stack(rows).astype(np.float32, copy=False)
    if not np.isfinite(vectors).all():
        raise ProviderFailure("returned a vector with a value that is not a finite number")
    model = answer.get("model")
    return Answer(vectors, model if isinstance(model, str) else None)


def _vector(embedding: str | list[float]) -> Vector:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    vector = np.array(embedding, dtype=np.float32)
    if vector.ndim != 1:
        raise TypeError(f"a vector of {vector.ndim} dimensions")
    return vector


def _advice(error: RagError) -> str:
    """Name the settings to lower if a batch was too large.

    A batch is never split: finding out which of its texts are too many would take requests that cost money.
    """
    failure = error.__cause__
    if isinstance(failure, ProviderFailure) and failure.is_too_large:
        return "; if that is too much for one request, lower EMBEDDING_BATCH_SIZE, or else CHUNK_SIZE"
    return ""
