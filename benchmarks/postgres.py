"""An index in PostgreSQL: loading, retrieval compared with the embedded engine, recall, and the pool.

Both stores are searched from this process in turn, over the same chunks, with the same questions and vectors.
PostgreSQL is a process tree of its own, reached over TCP with a password.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import uvloop
from llama_index.core.vector_stores.types import VectorStoreQuery

from app.config.settings import FIELDS, Settings
from app.storage.chunks import Entry, Hit
from app.storage.disk.snapshot_store import SnapshotStore
from app.storage.disk.vector_store import EdgeVectorStore
from app.storage.postgres import schema
from app.storage.postgres.database import Connection
from app.storage.postgres.replica import Limits
from app.storage.postgres.replicas import Replicas
from app.storage.postgres.rows import chunk_of_row
from app.storage.postgres.search import Search
from app.text.bm25 import TermCounter
from benchmarks import corpus
from benchmarks.database import database, settings
from benchmarks.generation import load
from benchmarks.report import Report
from benchmarks.searches import (
    DENSE_WEIGHT,
    DEPTH,
    Ask,
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
_QUESTIONS = 600
_WARM_UP = 100
_DEFAULT_EF = FIELDS["hnsw_ef_search"].default
_OTHER_EFS = (40, 100, 200, 400)
# Fewer questions, since opening a connection for each one takes many times as long.
_CONNECTIONS = 200
_SCHEMA = "benchmark"


@dataclass(frozen=True)
class Questions:
    """Questions with the results of an exact search.

    Attributes:
        expected: the ids of the nearest chunks of each question.
    """

    queries: list[VectorStoreQuery]
    expected: list[set[str]]

    @classmethod
    def over(cls, entries: list[Entry]) -> Questions:
        queries = hybrid_queries(_QUESTIONS)
        return cls(queries, nearest(matrix(entries), [entry.chunk.id for entry in entries], queries))


def measure(chunks: int = _CHUNKS) -> Report:
    """Measure an index of so many chunks in both stores."""
    report = Report("postgres")
    on_disk, entries = corpus.service_index(chunks), corpus.entries(chunks)
    with database() as url, _embedded(on_disk) as embedded:
        configured = settings(url, _SCHEMA)
        loaded = load(configured, entries)
        loaded.report(report)
        questions = Questions.over(entries)
        uvloop.run(_measure_searches(report, configured, loaded.id, embedded, questions))
        uvloop.run(_measure_pool(report, configured, loaded.id, questions.queries))
    return report.save()


@contextmanager
def _embedded(folder: Path) -> Iterator[EdgeVectorStore]:
    """Open the store of an index on disk, and restore the times of its files afterwards."""
    snapshots = SnapshotStore(folder, keep=1)
    current = snapshots.current_id()
    assert current is not None
    snapshot = snapshots.open(current)
    with (
        snapshot.times_kept(),
        closing(EdgeVectorStore.open(snapshot.path, dense_weight=DENSE_WEIGHT)) as store,
    ):
        yield store


async def _measure_searches(
    report: Report, configured: Settings, index_id: str, embedded: EdgeVectorStore, questions: Questions
) -> None:
    """Measure the embedded engine, and PostgreSQL with each `hnsw.ef_search`."""
    async with AsyncExitStack() as stack:
        sides: dict[str, Ask] = {"embedded": embedded.afind}
        for ef in sorted({*_OTHER_EFS, _DEFAULT_EF}):
            changed = Settings(**configured.model_dump() | {"hnsw_ef_search": ef})
            store, _ = await stack.enter_async_context(opened(changed, index_id))
            sides[_name(ef)] = store.afind
        asks = list(sides.values())
        hybrid = await times(asks, questions.queries, warm_up=_WARM_UP)
        nearest_only = await times(asks, [dense(query) for query in questions.queries], warm_up=_WARM_UP)
        recalls = [await recall(ask, questions.queries, questions.expected) for ask in asks]
    base = median(hybrid[0])
    for name, whole, part, share in zip(sides, hybrid, nearest_only, recalls, strict=True):
        is_default = name == _name(_DEFAULT_EF)
        report.add(f"{name}, recall@{DEPTH} of the dense part", share, at_least=0.95 if is_default else None)
        report.add(f"{name}, dense retrieval of {DEPTH}, p50", median(part), "ms")
        report.add(f"{name}, hybrid retrieval of 5, p50", median(whole), "ms")
        report.add(f"{name}, hybrid retrieval of 5, p95", quantile(whole, 0.95), "ms")
        if name != "embedded":
            ratio = median(whole) / base
            report.add(f"{name} / embedded, hybrid p50", ratio, at_most=8 if is_default else None)


def _name(ef: int) -> str:
    return f"ef_search {ef}{' (the default)' if ef == _DEFAULT_EF else ''}"


async def _measure_pool(
    report: Report, configured: Settings, index_id: str, queries: list[VectorStoreQuery]
) -> None:
    """Compare connections of the pool with ones that are made, prepared and closed for each request."""
    async with opened(configured, index_id) as (store, servers):
        fresh = _Fresh(configured, servers, index_id)
        pooled, new, connecting = await times(
            [store.afind, fresh.afind, fresh.connect], queries[: _WARM_UP + _CONNECTIONS], warm_up=_WARM_UP
        )
    report.add("pooled connection, hybrid retrieval of 5, p50", median(pooled), "ms")
    report.add("new connection for each, hybrid retrieval of 5, p50", median(new), "ms")
    report.add("of it connecting and preparing the session", median(connecting), "ms")
    report.add("new connection / pooled", median(new) / median(pooled))


class _Fresh:
    """A store that opens a connection for each search, with the session settings and types of the pool's."""

    def __init__(self, configured: Settings, servers: Replicas, index_id: str) -> None:
        chunks = servers.load(index_id)[1]
        self._database = servers.primary.database
        self._session = Limits(
            pool_min=1,
            pool_max=1,
            wait_s=configured.database.pool_timeout_s,
            statement_s=configured.database.statement_timeout_s,
            ef_search=configured.database.hnsw_ef_search,
        ).session()
        self._search = Search(chunks.name, chunks.terms, TermCounter(), DENSE_WEIGHT)

    async def afind(self, query: VectorStoreQuery) -> list[Hit]:
        statement = self._search.statement(query)
        with self._connected() as connection:
            rows = connection.execute(statement.text, statement.values, binary=True).fetchall()
        return [Hit(row[-1], chunk_of_row(row[:-1])) for row in rows]

    async def connect(self, _: VectorStoreQuery) -> list[Hit]:
        with self._connected():
            return []

    def _connected(self) -> Connection:
        connection = self._database.connect("benchmark")
        schema.use_vectors(connection)
        for name, value in self._session.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        return connection
