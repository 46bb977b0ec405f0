"""What has to hold before an index is served."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from app.domain.document import DocumentRecord, DocumentStatus
from app.domain.errors import IndexingError, TooManyDocumentsLost
from app.indexing.changes import Changes
from app.stores.edge_shard import BM25, DENSE, ChunkShard, vectors_of

_QUESTIONS = 20
# An approximate search may miss one.
_MUST_BE_FOUND = 0.9
_ITSELF = 0.999


def check_shrink(
    before: Sequence[DocumentRecord], changes: Changes, indexed: Collection[str], max_shrink: float
) -> None:
    """Stop a run that would lose many documents: more often a mistake than meant.

    Args:
        indexed: names of documents that the next index has, or may have.

    Raises:
        TooManyDocumentsLost
    """
    new_names = dict(changes.renamed)
    had = [record.name for record in before if record.status is DocumentStatus.INDEXED]
    lost = [name for name in had if new_names.get(name, name) not in indexed]
    if len(lost) > max_shrink * len(had):
        raise TooManyDocumentsLost(
            f"{len(lost)} of {len(had)} documents would be gone from the index, such as {lost[0]}: that is "
            f"more than MAX_SHRINK ({max_shrink:g}); if it is meant, run scripts/reindex.py --force"
        )


def judge(count: int, chunks: int, *, asked: int, found: int) -> None:
    """
    Args:
        count: of the chunks in the index; `chunks` have to be there.
        asked: for how many of its chunks it was asked, and how many of them it has found.

    Raises:
        IndexingError: it is not good enough.
    """
    if count != chunks:
        raise IndexingError(f"the index has {count} chunks instead of {chunks}: run make reindex")
    if found < _MUST_BE_FOUND * asked:
        raise IndexingError(f"the index finds {found} of {asked} of its own chunks: run make reindex")


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
    """Vectors of chunks with something to find. The first will do: ids are hashes."""
    records, _ = shard.engine.scroll(
        qdrant.ScrollRequest(limit=10 * _QUESTIONS, with_payload=["length"], with_vector=[DENSE, BM25])
    )
    vectors = [vectors_of(record) for record in records if (record.payload or {}).get("length")]
    return [each for each in vectors if np.any(each[DENSE])][:_QUESTIONS]


def _finds(shard: ChunkShard, vectors: dict[str, Any]) -> bool:
    """Whether the nearest is as near as the chunk itself, by meaning, and there is any, by words."""
    searches = [
        qdrant.QueryRequest(limit=1, query=qdrant.Query.Nearest(vectors[name], using=name))
        for name in (DENSE, BM25)
    ]
    dense, words = shard.engine.query_batch(qdrant.QueryBatchRequest(searches))
    return bool(words) and bool(dense) and dense[0].score >= _ITSELF
