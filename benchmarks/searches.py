"""Searches of several stores in turn, in one process: their times and their results."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from app.bootstrap.postgres import make_replicas
from app.config.settings import Settings
from app.embeddings.local import LocalEmbedding
from app.storage.chunks import Entry, Hit
from app.storage.postgres.replicas import Replicas
from app.storage.postgres.vector_store import PostgresVectorStore
from benchmarks.questions import all_questions

Ask = Callable[[VectorStoreQuery], Awaitable[list[Hit]]]
Floats = npt.NDArray[np.float32]

# The weight that the service uses with the local model.
DENSE_WEIGHT = 0.3
DEPTH = 10
_HYBRID = 5
# The number of questions that are compared with all chunks at once.
_BLOCK = 50


def hybrid_queries(number: int) -> list[VectorStoreQuery]:
    """Make the queries that the service sends to its store by default, for real questions."""
    texts = list(islice(all_questions(), number))
    return [
        VectorStoreQuery(
            query_str=text,
            query_embedding=vector,
            similarity_top_k=_HYBRID,
            mode=VectorStoreQueryMode.HYBRID,
            alpha=DENSE_WEIGHT,
        )
        for text, vector in zip(texts, LocalEmbedding().embed(texts).tolist(), strict=True)
    ]


def dense(query: VectorStoreQuery) -> VectorStoreQuery:
    """Change a query to search only for the nearest vectors."""
    return replace(query, mode=VectorStoreQueryMode.DEFAULT, similarity_top_k=DEPTH)


@asynccontextmanager
async def opened(settings: Settings, index_id: str) -> AsyncIterator[tuple[PostgresVectorStore, Replicas]]:
    """Open the store of an index in the database, with a connected pool."""
    servers = make_replicas(settings)
    await servers.open()
    try:
        servers.look()
        chunks = servers.load(index_id)[1]
        yield PostgresVectorStore(chunks, servers, dense_weight=DENSE_WEIGHT), servers
    finally:
        await servers.close()


async def times(
    sides: Sequence[Ask], queries: Sequence[VectorStoreQuery], *, warm_up: int
) -> list[list[float]]:
    """Measure each side's searches in milliseconds, sending every query to all sides in turn.

    Args:
        warm_up: the number of queries that are sent before, and not counted.
    """
    for query in queries[:warm_up]:
        for ask in sides:
            await ask(query)
    taken: list[list[float]] = [[] for _ in sides]
    for query in queries[warm_up:]:
        for ask, milliseconds in zip(sides, taken, strict=True):
            started = time.perf_counter()
            await ask(query)
            milliseconds.append((time.perf_counter() - started) * 1000)
    return taken


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is not below a share of all values."""
    return float(np.quantile(values, share, method="higher"))


def matrix(entries: Sequence[Entry]) -> Floats:
    """Return the vectors of chunks, of shape (chunks, dimensions) and length 1."""
    vectors = np.stack([np.asarray(entry.vector, dtype=np.float32) for entry in entries])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return vectors


def nearest(
    vectors: Floats, ids: Sequence[str], queries: Sequence[VectorStoreQuery], depth: int = DEPTH
) -> list[set[str]]:
    """Find the ids of the nearest vectors to each question by comparing it with all of them."""
    found: list[set[str]] = []
    for start in range(0, len(queries), _BLOCK):
        block = [query.query_embedding for query in queries[start : start + _BLOCK]]
        scores = vectors @ np.asarray(block, dtype=np.float32).T
        rows = np.argpartition(-scores, depth, axis=0)[:depth].T
        found += [{ids[row] for row in best} for best in rows.tolist()]
    return found


async def recall(ask: Ask, queries: Sequence[VectorStoreQuery], expected: Sequence[set[str]]) -> float:
    """Return the share of the expected chunks that a dense search finds."""
    hits = 0
    for query, wanted in zip(queries, expected, strict=True):
        hits += len(wanted & {hit.chunk.id for hit in await ask(dense(query))})
    return hits / sum(map(len, expected))
