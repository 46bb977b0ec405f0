"""The complete content of an index on disk, for comparison with another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as qdrant

from app.domain.document import Document
from app.storage.chunks import StoredChunk
from app.storage.disk.payloads import LABELS, labels_of
from app.storage.disk.shard import DENSE, ChunkShard
from app.storage.disk.snapshot_store import SnapshotStore


@dataclass(frozen=True)
class Stored:
    """The complete content of an index.

    Attributes:
        chunks: chunk, vector and terms with their counts, by id.
        tokens: of all chunks.
        frequencies: in how many chunks each term stands.
    """

    documents: list[Document]
    chunks: dict[str, tuple[StoredChunk, list[float], dict[int, int]]]
    tokens: int
    frequencies: dict[int, int]
    average_length: float


def stored(index_dir: Path) -> Stored:
    """Read the index that `CURRENT` names, after verifying every file of it."""
    snapshots = SnapshotStore(index_dir, keep=1)
    current = snapshots.current_id()
    assert current is not None
    snapshot = snapshots.open(current)
    snapshot.verify()
    with snapshot.times_kept():
        shard = ChunkShard.open(snapshot.path)
        try:
            entries = [entry for record in list(snapshot.documents()) for entry in shard.entries(record.name)]
            assert shard.engine.count(qdrant.CountRequest()) == len(entries) == shard.chunk_count
            hashes = {entry.chunk.text_hash for entry in entries}
            assert shard.known([*hashes, "no such"]) == hashes
            for record in shard.scroll(qdrant.Filter(), True, False):
                assert record.payload is not None
                assert record.payload[LABELS] == labels_of(record.payload["metadata"])
            frequencies = dict(zip(*shard.terms._saved.tolist(), strict=True))
            return Stored(
                list(snapshot.documents()),
                {
                    entry.chunk.id: (
                        entry.chunk,
                        list(entry.vector),
                        dict(zip(entry.terms.terms, entry.terms.counts, strict=True)),
                    )
                    for entry in entries
                },
                shard._tokens,
                frequencies,
                shard.average_length,
            )
        finally:
            shard.close()


def assert_same_index(one: Stored, other: Stored, *, atol: float = 1e-5) -> None:
    """Compare two indexes, except for the tolerated drift of the average length: see `has_drifted`."""
    assert one.documents == other.documents
    assert one.chunks.keys() == other.chunks.keys()
    for chunk_id, (chunk, vector, counts) in one.chunks.items():
        other_chunk, other_vector, other_counts = other.chunks[chunk_id]
        assert chunk == other_chunk
        assert counts == other_counts
        assert np.allclose(vector, other_vector, atol=atol), DENSE
    assert (one.tokens, one.frequencies) == (other.tokens, other.frequencies)
    for each in (one, other):
        # Weights are rewritten when the average length drifts by a tenth: at most 1 / 0.9 times as long.
        assert each.average_length == pytest.approx(each.tokens / len(each.chunks), rel=0.112)
