"""Building and searching an index of a million chunks in PostgreSQL.

These are ten copies of 100,000 chunks, with the same text, other ids, and noise of 0.3 of a vector's length,
so that copies are as far apart as similar chunks are. Terms are thus as frequent as in a corpus of that size,
but lexical scores have more ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from statistics import median

import numpy as np
import uvloop

from app.config.settings import Settings
from app.storage.chunks import Entry
from benchmarks import corpus
from benchmarks.database import database, settings
from benchmarks.generation import load
from benchmarks.report import Report
from benchmarks.searches import (
    DEPTH,
    Ask,
    Floats,
    dense,
    hybrid_queries,
    matrix,
    nearest,
    opened,
    quantile,
    recall,
    times,
)

_CHUNKS = 100_000
_COPIES = 10
_NOISE = 0.3
_SEED = 20261120
# The graph of a million chunks does not fit into the default of 512 MB, and would take many times as long.
_MAINTENANCE_MB = 2048
_QUESTIONS = 400
_WARM_UP = 100
_EFS = (100, 200, 400)


def measure(chunks: int = _CHUNKS, copies: int = _COPIES) -> Report:
    """Measure an index of so many copies of so many chunks."""
    report = Report("postgres_scale")
    originals = corpus.entries(chunks)
    vectors = _perturbed(matrix(originals), copies)
    with database() as url:
        configured = settings(url, "benchmark", db_maintenance_mb=_MAINTENANCE_MB)
        loaded = load(configured, _copied(originals, vectors))
        loaded.report(report)
        uvloop.run(_measure_searches(report, configured, loaded.id, originals, vectors))
    return report.save()


def _perturbed(vectors: Floats, copies: int) -> Floats:
    """Copy vectors to shape (copies * chunks, dimensions), of length 1, with noise in all but the first."""
    generator = np.random.default_rng(_SEED)
    made = np.tile(vectors, (copies, 1))
    chunks, dimensions = vectors.shape
    for start in range(chunks, len(made), chunks):
        part = made[start : start + chunks]
        part += generator.standard_normal(part.shape, dtype=np.float32) * (_NOISE / dimensions**0.5)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


def _copied(originals: list[Entry], vectors: Floats) -> Iterator[Entry]:
    for row, vector in enumerate(vectors):
        copy, place = divmod(row, len(originals))
        entry = originals[place]
        chunk = entry.chunk._replace(id=_id(entry, copy), ref_doc_id=f"{copy}/{entry.chunk.ref_doc_id}")
        yield entry._replace(chunk=chunk, vector=vector)


def _id(entry: Entry, copy: int) -> str:
    return f"{entry.chunk.id}-{copy}"


async def _measure_searches(
    report: Report, configured: Settings, index_id: str, originals: list[Entry], vectors: Floats
) -> None:
    queries = hybrid_queries(_QUESTIONS)
    ids = [_id(entry, copy) for copy in range(len(vectors) // len(originals)) for entry in originals]
    expected = nearest(vectors, ids, queries)
    async with AsyncExitStack() as stack:
        asks: list[Ask] = []
        for ef in _EFS:
            changed = Settings(**configured.model_dump() | {"hnsw_ef_search": ef})
            store, _ = await stack.enter_async_context(opened(changed, index_id))
            asks.append(store.afind)
        hybrid = await times(asks, queries, warm_up=_WARM_UP)
        only_dense = await times(asks, [dense(query) for query in queries], warm_up=_WARM_UP)
        recalls = [await recall(ask, queries, expected) for ask in asks]
    for ef, whole, part, share in zip(_EFS, hybrid, only_dense, recalls, strict=True):
        report.add(f"ef_search {ef}, recall@{DEPTH} of the dense part", share)
        report.add(f"ef_search {ef}, dense retrieval of {DEPTH}, p50", median(part), "ms")
        report.add(f"ef_search {ef}, hybrid retrieval of 5, p50", median(whole), "ms")
        report.add(f"ef_search {ef}, hybrid retrieval of 5, p95", quantile(whole, 0.95), "ms")
