"""Chunks as rows of a table, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pgvector import HalfVector, SparseVector
from psycopg.types.json import Jsonb

from app.domain.vectors import Vector
from app.storage.chunks import Entry, StoredChunk
from app.text.bm25 import TermCounts, counts_of, weights

# The most that a `sparsevec` has. The tokenizer's ids of terms are numbers up to 2**32: of 200,000 terms,
# twenty share their place with another.
DIMENSIONS_OF_WORDS = 1_000_000_000

COLUMNS = {
    "id": "text",
    "ref_doc_id": "text",
    "text": "text",
    "start_char": "int4",
    "end_char": "int4",
    "metadata": "jsonb",
    "text_hash": "text",
    "occurrence": "int4",
    "length": "int4",
    "embedding": "halfvec",
    "terms": "int4[]",
    "weights": "sparsevec",
}
# The first of them, which are the fields of a `StoredChunk`.
CHUNK_COLUMNS = tuple(COLUMNS)[: len(StoredChunk._fields)]

_UNSTORABLE = {0: "\N{REPLACEMENT CHARACTER}"} | dict.fromkeys(
    range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}"
)


def row_of(entry: Entry, average_length: float) -> tuple[Any, ...]:
    """Return the values of a row, in the order of `COLUMNS`."""
    chunk, vector, counted = entry
    return (
        storable(chunk.id),
        storable(chunk.ref_doc_id),
        storable(chunk.text),
        chunk.start,
        chunk.end,
        Jsonb(storable(chunk.metadata)),
        chunk.text_hash,
        chunk.occurrence,
        counted.length,
        HalfVector(normalized(vector)),
        signed(counted.terms),
        sparse_vector(
            counted.terms, weights(counted.counts, length=counted.length, average_length=average_length)
        ),
    )


def chunk_of_row(row: Sequence[Any]) -> StoredChunk:
    """Return the chunk of a row with the columns `CHUNK_COLUMNS`."""
    return StoredChunk._make(row)


def entry_of_row(row: Sequence[Any], average_length: float) -> Entry:
    """Return the entry of a row with the columns `COLUMNS`."""
    *columns, length, embedding, terms, sparse = row
    ids = [term % 2**32 for term in terms]
    weight_of = dict(zip(sparse.indices(), sparse.values(), strict=True))
    found = [weight_of[place(term)] for term in ids]
    counts = counts_of(found, length=length, average_length=average_length)
    return Entry(chunk_of_row(columns), vector_of(embedding), TermCounts(ids, counts))


def vector_of(embedding: HalfVector) -> Vector:
    """Return the vector in a column `embedding`."""
    return embedding.to_numpy().astype(np.float32)


def normalized(vector: Sequence[float] | Vector) -> Vector:
    """Return a vector at length 1, so that inner products are cosines; one of zeros stays as it is."""
    array = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(array))
    return array / length if length else array


def sparse_vector(terms: Sequence[int], values: Sequence[float]) -> SparseVector:
    """Return the values of terms as a `sparsevec`."""
    return SparseVector(dict(zip(map(place, terms), values, strict=True)), DIMENSIONS_OF_WORDS)


def place(term: int) -> int:
    """Return the index of a term in a `sparsevec`."""
    return term % DIMENSIONS_OF_WORDS


def signed(terms: Sequence[int]) -> list[int]:
    """Return the ids of terms as PostgreSQL's integers, which have a sign."""
    return [term - 2**32 if term >= 2**31 else term for term in terms]


def storable(value: Any) -> Any:
    """Return the same, without what PostgreSQL's texts cannot hold: NUL, and halves of surrogate pairs."""
    if isinstance(value, str):
        return value.translate(_UNSTORABLE)
    if isinstance(value, dict):
        return {storable(name): storable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [storable(one) for one in value]
    return value
