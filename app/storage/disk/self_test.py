"""Ask an index on disk for some of its own chunks before it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from app.domain.errors import IndexingError
from app.storage.disk.payloads import LENGTH
from app.storage.disk.shard import BM25, DENSE, ChunkShard, payload_of, vectors_of
from app.storage.self_test import judge

_QUESTIONS = 20
_ITSELF = 0.999


def check_answers(folder: Path, *, chunks: int) -> None:
    """Load an index as a server does, and ask for some of its own chunks.

    Raises:
        IndexingError: it cannot be loaded, or does not find them.
    """
    try:
        shard = ChunkShard.open(folder)
    except (OSError, RuntimeError, ValueError) as error:
        raise IndexingError(f"the index cannot be loaded ({error}): run make reindex") from error
    try:
        count = shard.engine.count(qdrant.CountRequest())
        asked = _sample(shard)
        judge(count, chunks, asked=len(asked), found=sum(_finds(shard, each) for each in asked))
    finally:
        shard.close()


def _sample(shard: ChunkShard) -> list[dict[str, Any]]:
    """Return vectors of chunks with something to find. The first will do: ids are hashes."""
    records, _ = shard.engine.scroll(
        qdrant.ScrollRequest(limit=10 * _QUESTIONS, with_payload=[LENGTH], with_vector=[DENSE, BM25])
    )
    vectors = [vectors_of(record) for record in records if payload_of(record).get(LENGTH)]
    return [each for each in vectors if np.any(each[DENSE])][:_QUESTIONS]


def _finds(shard: ChunkShard, vectors: dict[str, Any]) -> bool:
    """Return whether the dense search finds a chunk as near as this one, and the lexical search any."""
    searches = [
        qdrant.QueryRequest(limit=1, query=qdrant.Query.Nearest(vectors[name], using=name))
        for name in (DENSE, BM25)
    ]
    dense, lexical = shard.engine.query_batch(qdrant.QueryBatchRequest(searches))
    return bool(lexical) and bool(dense) and dense[0].score >= _ITSELF
