"""Retrieval: a question is embedded, and the store is searched by its vector and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from app.domain.answer import Passage
from app.domain.fingerprint import Fingerprint
from app.domain.query import Filter, Query
from app.embeddings.query_cache import QueryEmbedder
from app.observability.stage_timer import StageTimer
from app.storage.chunks import Hit
from app.storage.vector_store import ChunkStore


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The settings of the search for passages.

    Attributes:
        top_k: the number of passages, where a query does not give one.
        min_score: if the best passage scores below this, none is relevant.
        dense_weight: the share of the dense ranking in the score, from 0 to 1; BM25 has the rest.
    """

    top_k: int
    min_score: float
    dense_weight: float


class Retriever:
    """Finds passages in one index.

    Args:
        index_id: the name of the index in spans.
        fingerprint: the model and the dimensions that the index was built with.
    """

    def __init__(
        self,
        *,
        index_id: str,
        store: ChunkStore,
        embedder: QueryEmbedder,
        fingerprint: Fingerprint,
        retrieval: Retrieval,
    ) -> None:
        self._index_id = index_id
        self._store = store
        self._embedder = embedder
        self._fingerprint = fingerprint
        self._retrieval = retrieval

    async def find(self, query: Query, timer: StageTimer) -> list[Passage]:
        """Return the best passages for a query, the best first, however low they score."""
        with timer.stage("embed", model=self._fingerprint.model, dimensions=self._fingerprint.dimensions):
            vector = await self.embed(query.text)
        top_k = query.top_k or self._retrieval.top_k
        with timer.stage("retrieve", index=self._index_id, top_k=top_k):
            hits = await self._store.afind(self._store_query(query.text, vector, top_k, query.filters))
            return [_passage(marker, hit) for marker, hit in enumerate(hits, start=1)]

    async def find_relevant(self, query: Query, timer: StageTimer) -> list[Passage]:
        """Return the best passages, or none if the best of them scores below the threshold."""
        passages = await self.find(query, timer)
        return passages if passages and passages[0].score >= self._retrieval.min_score else []

    async def embed(self, text: str) -> list[float]:
        """Return the vector of a question, comparable with those of the index."""
        return await self._embedder.embed(text, self._fingerprint)

    def self_test(self) -> None:
        """Search for something; raises what the store raises if the index cannot be searched."""
        probe = [1.0] * self._fingerprint.dimensions
        self._store.find(self._store_query("test", probe, 1, ()))

    def _store_query(
        self, text: str, vector: list[float], top_k: int, filters: Sequence[Filter]
    ) -> VectorStoreQuery:
        return VectorStoreQuery(
            query_str=text,
            query_embedding=vector,
            similarity_top_k=top_k,
            mode=VectorStoreQueryMode.HYBRID,
            alpha=self._retrieval.dense_weight,
            filters=_metadata_filters(filters),
        )


def _passage(marker: int, hit: Hit) -> Passage:
    chunk, metadata = hit.chunk, hit.chunk.metadata
    return Passage(
        marker=marker,
        document=metadata["document"],
        page=metadata["page"],
        heading=metadata["heading"],
        text=chunk.text,
        score=round(hit.score, 4),
        chunk_id=chunk.id,
    )


def _metadata_filters(filters: Sequence[Filter]) -> MetadataFilters | None:
    if not filters:
        return None
    return MetadataFilters(
        filters=[
            MetadataFilter(key=one.field, value=one.values, operator=FilterOperator.IN) for one in filters
        ]
    )
