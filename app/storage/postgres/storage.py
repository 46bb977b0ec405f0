"""Indexes in PostgreSQL, written: a new generation beside the served one, then one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from app.domain.document import Document
from app.domain.errors import SnapshotDamaged
from app.storage.chunks import Entry
from app.storage.contract import PreviousIndex, Recipe, ReusedChunks
from app.storage.manifest import IndexSummary, Manifest
from app.storage.postgres import schema
from app.storage.postgres.chunk_table import ChunkTable, Hnsw
from app.storage.postgres.database import Database, database_errors
from app.storage.postgres.embedding_cache import PostgresEmbeddingCache
from app.storage.postgres.generations import ENGINE, Generations
from app.storage.postgres.statement import SEARCHING
from app.storage.self_test import judge

# Chunks that the self-test asks for.
_ASKED = 20


@dataclass(frozen=True)
class Building:
    """Parameters of building indexes in the database.

    Attributes:
        maintenance_mb: memory for it; an HNSW graph that does not fit takes many times as long.
    """

    hnsw: Hnsw
    maintenance_mb: int

    def session(self) -> dict[str, str]:
        """Return settings of a connection whose statements take long, and must not be ended by a limit."""
        return SEARCHING | {
            "maintenance_work_mem": f"{self.maintenance_mb}MB",
            "statement_timeout": "0",
            "idle_in_transaction_session_timeout": "0",
        }


class PostgresStorage:
    """Generations in PostgreSQL; see `Storage`. Errors of the database come as DatabaseError."""

    def __init__(self, database: Database, *, keep: int, building: Building) -> None:
        self._database = database
        self._keep = keep
        self._building = building
        self._writing: Generations | None = None

    @property
    def engine(self) -> str:
        return ENGINE

    @contextmanager
    def writer(self) -> Iterator[None]:
        with database_errors(), self._database.connect("writer") as connection:
            generations = Generations(connection, self._database)
            connection.use(self._building.session())
            with generations.lock():
                schema.migrate(connection, self._database)
                generations.remove_leftovers()
                self._writing = generations
                try:
                    yield
                finally:
                    self._writing = None

    @contextmanager
    def previous_index(self, recipe: Recipe | None, *, full: bool = False) -> Iterator[PreviousIndex]:
        with self._reading() as generations:
            yield PreviousIndex() if generations is None else _previous(generations, recipe, full=full)

    @contextmanager
    def stage(self, previous: PreviousIndex) -> Iterator[PostgresStaging]:
        staging = PostgresStaging(self._own(), previous, self._building.hnsw, self._keep)
        try:
            yield staging
        finally:
            staging.clean_up()

    @contextmanager
    def cache(self, *, read_only: bool) -> Iterator[PostgresEmbeddingCache]:
        with self._reading() as generations:
            connection = generations.connection if generations else None
            yield PostgresEmbeddingCache(connection, self._database.table("embeddings"))

    def prune(self) -> None:
        self._own().prune(self._keep)

    def roll_back(self, index_id: str | None, check: Callable[[Manifest], None]) -> str:
        with self.writer():
            generations = self._own()
            manifest = generations.find_for_rollback(index_id).manifest
            check(manifest)
            _check_answers(generations, generations.chunks(manifest.id), manifest)
            generations.point_to(manifest.id)
            return manifest.id

    def summaries(self) -> list[IndexSummary]:
        with self._reading() as generations:
            return [] if generations is None else generations.summaries()

    @contextmanager
    def _reading(self) -> Iterator[Generations | None]:
        """Read by the writer's connection, or by one of its own; None where there are no tables yet."""
        if self._writing is not None:
            yield self._writing
            return
        with database_errors(), self._database.connect("reader") as connection:
            has_tables = schema.check(connection, self._database)
            yield Generations(connection, self._database) if has_tables else None

    def _own(self) -> Generations:
        assert self._writing is not None, "only within writer()"  # noqa: S101
        return self._writing


class PostgresStaging:
    """A generation that is being written; see `Staging`."""

    def __init__(self, generations: Generations, previous: PreviousIndex, hnsw: Hnsw, keep: int) -> None:
        self.id = generations.next_id()
        self.built_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._generations = generations
        self._previous = previous
        self._hnsw = hnsw
        self._keep = keep
        self._table: ChunkTable | None = None
        self._is_published = False

    def reuse(self, previous: PreviousIndex, reused: ReusedChunks) -> None:
        other = previous.chunks
        assert isinstance(other, ChunkTable)  # noqa: S101 - a storage is given what it gave
        table = self._create(previous.dimensions, other.average_length)
        table.reuse(other, reused.kept)
        for name, new_name in reused.copied:
            table.copy_document(other, name, new_name)

    def add(self, entries: Sequence[Entry]) -> None:
        if self._table is None:
            chunks = self._previous.chunks
            average = chunks.average_length if chunks else None
            average = average or sum(each.terms.length for each in entries) / len(entries)
            self._create(len(entries[0].vector), max(1.0, average))
        assert self._table is not None  # noqa: S101 - just made
        self._table.add(entries)

    def save(self) -> int:
        if self._table is None:
            return 0
        self._table.build_indexes(self._hnsw)
        self._table.save_statistics()
        return self._table.chunk_count

    def publish(self, manifest: Manifest, documents: list[Document]) -> None:
        assert self._table is not None  # noqa: S101 - there are chunks
        _check_answers(self._generations, self._table, manifest)
        self._generations.publish(manifest, documents)
        self._is_published = True
        self._generations.prune(self._keep)

    def clean_up(self) -> None:
        if self._is_published or self._table is None:
            return
        with suppress(psycopg.Error):  # then the next writer does it
            self._generations.remove_leftovers()

    def _create(self, dimensions: int, average_length: float) -> ChunkTable:
        self._table = self._generations.create_chunks(
            self.id, dimensions=dimensions, average_length=average_length
        )
        return self._table


def _previous(generations: Generations, recipe: Recipe | None, *, full: bool) -> PreviousIndex:
    current = generations.current_id()
    if current is None:
        return PreviousIndex()
    try:
        generation = generations.open(current)
        generations.check_count(current, generation.manifest.chunks)
    except SnapshotDamaged:
        return PreviousIndex()
    manifest = generation.manifest
    recipe = recipe or Recipe.of(manifest)
    if full or not recipe.makes_vectors_of(manifest):
        return PreviousIndex(manifest, list(generation.documents()), is_current=True)
    return PreviousIndex(
        manifest,
        list(generation.documents()),
        has_chunks=recipe.makes_chunks_of(manifest) and manifest.engine == ENGINE,
        is_current=True,
        open_chunks=lambda: generations.chunks(current),
    )


def _check_answers(generations: Generations, table: ChunkTable, manifest: Manifest) -> None:
    asked = table.sample(_ASKED)
    found = sum(table.finds(*each) for each in asked)
    judge(table.count(), manifest.chunks, asked=len(asked), found=found)
