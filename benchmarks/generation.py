"""Publishing an index in PostgreSQL in the way of a reindex, and timing each step."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from llama_index.core.utils import iter_batch
from psycopg import sql

from app.bootstrap.postgres import make_postgres_storage
from app.config.choices import EmbeddingProvider
from app.config.settings import Settings
from app.domain.chunk import ChunkUnit
from app.domain.document import Document, DocumentStatus
from app.domain.fingerprint import Fingerprint
from app.embeddings.static_model import DIMENSIONS, MODEL
from app.storage.chunks import Entry
from app.storage.contract import PreviousIndex
from app.storage.manifest import Manifest
from app.storage.postgres.chunk_table import Hnsw
from app.storage.postgres.database import Connection, Database
from app.storage.postgres.generations import ENGINE
from app.storage.postgres.storage import Building, PostgresStorage
from app.text.chunking import Chunking
from benchmarks.report import Report

# Statements, and the seconds that each took.
Took = list[tuple[str, float]]


@dataclass(frozen=True)
class Loaded:
    """A published index in the database; times in seconds.

    Attributes:
        copying: making the rows and sending them with COPY.
        others: building all indexes except HNSW's.
        vacuum: VACUUM with ANALYZE.
        saving: everything after COPY: besides the above, rewriting all rows if the first ones have another
            average length than the rest.
        size: the size of the table and its indexes, in bytes.
    """

    id: str
    chunks: int
    copying: float
    hnsw: float
    others: float
    vacuum: float
    saving: float
    size: int

    def report(self, report: Report) -> None:
        """Add the figures to a report."""
        label = f"{self.chunks:,} chunks"
        report.add(f"{label}, rows a second by COPY", self.chunks / self.copying, "rows/s")
        report.add(f"{label}, COPY", self.copying, "s")
        report.add(f"{label}, HNSW build", self.hnsw, "s")
        report.add(f"{label}, all other indexes", self.others, "s")
        report.add(f"{label}, VACUUM (ANALYZE)", self.vacuum, "s")
        report.add(f"{label}, all that follows COPY", self.saving, "s")
        report.add(f"{label}, size on the disk", self.size / 2**20, "MiB")
        report.add(f"{label}, size of a chunk", self.size / self.chunks, "bytes")


@dataclass(frozen=True)
class TimedDatabase(Database):
    """A database that times its statements.

    Attributes:
        took: the statements of its connections, except COPY, with their times.
    """

    took: Took = field(default_factory=list)

    def connect(self, purpose: str) -> Connection:
        connection = super().connect(purpose)
        connection.cursor_factory = _timed_cursor(self.took)
        return connection


def load(settings: Settings, entries: Iterable[Entry]) -> Loaded:
    """Publish an index of these chunks, in batches of the same size as those of a reindex."""
    assert settings.database.url is not None
    database = TimedDatabase(settings.database.url.get_secret_value(), settings.database.schema_name)
    building = Building(
        Hnsw(settings.database.hnsw_m, settings.database.hnsw_ef_construction),
        maintenance_mb=settings.database.maintenance_mb,
    )
    storage = PostgresStorage(database, keep=settings.index.keep_snapshots, building=building)
    names: dict[str, None] = {}
    copying = 0.0
    with storage.writer(), storage.stage(PreviousIndex()) as staging:
        for batch in iter_batch(entries, settings.embedding.batch_size):
            names.update(dict.fromkeys(str(entry.chunk.ref_doc_id) for entry in batch))
            started = time.perf_counter()
            staging.add(batch)
            copying += time.perf_counter() - started
        started = time.perf_counter()
        chunks = staging.save()
        saving = time.perf_counter() - started
        staging.publish(_manifest(staging.id, len(names), chunks), [_record(name) for name in names])
    size = make_postgres_storage(settings).summaries()[0].bytes
    assert size is not None
    return Loaded(
        id=staging.id,
        chunks=chunks,
        copying=copying,
        hnsw=_seconds(database.took, "USING hnsw"),
        others=_seconds(database.took, "CREATE INDEX", "PRIMARY KEY (id)", but="USING hnsw"),
        vacuum=_seconds(database.took, "VACUUM (ANALYZE)"),
        saving=saving,
        size=size,
    )


def _seconds(took: Took, *texts: str, but: str = "\0") -> float:
    return sum(
        seconds
        for statement, seconds in took
        if but not in statement and any(text in statement for text in texts)
    )


def _timed_cursor(took: Took) -> type[psycopg.Cursor[Any]]:
    class TimedCursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> TimedCursor:
            started = time.perf_counter()
            super().execute(query, *arguments, **options)
            text = query.as_string(self) if isinstance(query, sql.Composable) else str(query)
            took.append((text, time.perf_counter() - started))
            return self

    return TimedCursor


def _manifest(index_id: str, documents: int, chunks: int) -> Manifest:
    return Manifest(
        id=index_id,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        engine=ENGINE,
        reader="",
        embedding=Fingerprint(provider=EmbeddingProvider.LOCAL, model=MODEL, dimensions=DIMENSIONS),
        chunking=Chunking(1000, 100, ChunkUnit.CHARACTERS),
        documents=documents,
        unread_documents=0,
        chunks=chunks,
    )


def _record(name: str) -> Document:
    return Document(
        name=name, sha256=None, size=0, pages=None, chunks=0, status=DocumentStatus.INDEXED, problem=None
    )
