"""An index that does not answer is not published, nor gone back to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.domain.errors import IndexingError
from app.storage.chunks import Entry, StoredChunk
from app.storage.disk.self_test import check_answers
from app.storage.disk.shard import ChunkShard
from app.text.bm25 import TermCounts

CHUNKS = 30
DIMENSIONS = 8
NOT_A_NUMBER = np.full(DIMENSIONS, np.nan, dtype=np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a shard of chunks that point in as many directions."""
    return make(tmp_path, np.random.default_rng(0).normal(size=(CHUNKS, DIMENSIONS)).astype(np.float32))


def make(folder: Path, vectors: np.ndarray) -> Path:
    shard = ChunkShard.create(folder, dimensions=DIMENSIONS, average_length=2.0)
    shard.add([entry(number, vector) for number, vector in enumerate(vectors)])
    shard.save()
    shard.close()
    return folder


def entry(number: int, vector: np.ndarray) -> Entry:
    chunk = StoredChunk(str(number), "a.md", "text", 0, 4, {"document": "a.md"}, str(number), 1)
    return Entry(chunk, vector, TermCounts([number + 1, 1000], [1, 1]))


def test_an_intact_index_passes(folder: Path) -> None:
    check_answers(folder, chunks=CHUNKS)


def test_a_wrong_number_of_chunks_is_refused(folder: Path) -> None:
    for expected in (CHUNKS - 1, CHUNKS + 1):
        with pytest.raises(IndexingError, match=f"has {CHUNKS} chunks instead of {expected}"):
            check_answers(folder, chunks=expected)


def test_an_index_that_does_not_find_its_chunks_is_refused(tmp_path: Path) -> None:
    """Vectors that are near nothing cause this."""
    make(tmp_path, np.tile(NOT_A_NUMBER, (CHUNKS, 1)))
    with pytest.raises(IndexingError, match="finds 0 of 20 of its own chunks: run make reindex"):
        check_answers(tmp_path, chunks=CHUNKS)


def test_chunks_with_a_zero_vector_are_not_searched_for(tmp_path: Path) -> None:
    """A text without any word has such a vector, and is no reason to refuse the others."""
    vectors = np.eye(DIMENSIONS, dtype=np.float32).repeat(2, axis=0)
    vectors[::4] = 0
    make(tmp_path, vectors)
    check_answers(tmp_path, chunks=len(vectors))


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("store.json", lose),
        ("store.json", cut),
        ("terms.npy", lose),
        ("terms.npy", cut),
        ("edge_config.json", cut),
        ("edge_config.json", garble),
        ("payload_index/config.json", cut),
        ("mutable_id_tracker.mappings", lose),
        ("mutable_id_tracker.mappings", garble),
        # At least one of the others is of the kind that the engine panics on.
        ("is_null/status.dat", cut),
    ],
)
def test_an_index_that_cannot_be_loaded_is_refused(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    """Any error of the engine counts."""
    for path in folder.rglob(name.rpartition("/")[2]):
        if path.as_posix().endswith(name):
            damage(path)
    with pytest.raises(IndexingError, match="run make reindex"):
        check_answers(folder, chunks=CHUNKS)
