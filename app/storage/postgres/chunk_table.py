"""The chunks of one index, in a table of their own, with their term statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from pgvector import HalfVector, SparseVector
from psycopg import sql

from app.domain.errors import SnapshotDamaged
from app.domain.vectors import Vector
from app.storage.chunks import Entry
from app.storage.postgres.database import Database
from app.storage.postgres.rows import COLUMNS, entry_of_row, row_of, sparse_vector, vector_of
from app.storage.postgres.statement import Condition, Statement
from app.text.bm25 import TermStatistics, has_drifted, weights

_PAGE = 1000
# With 16 bits a number, a vector's product with itself is 1 within a thousandth.
_ITSELF = 0.998

_TABLE = """
CREATE TABLE {table} (
    id text COLLATE "C" NOT NULL,
    ref_doc_id text COLLATE "C",
    text text NOT NULL,
    start_char int,
    end_char int,
    metadata jsonb NOT NULL,
    text_hash text COLLATE "C" NOT NULL,
    occurrence int NOT NULL,
    length int NOT NULL,
    embedding halfvec({dimensions}) NOT NULL,
    terms int[] NOT NULL,
    weights sparsevec NOT NULL
);
-- What is compared for each candidate stays in its row; the text is looked up for those that are cited.
ALTER TABLE {table} ALTER embedding SET STORAGE MAIN, ALTER weights SET STORAGE MAIN
"""


_SELECT = f"SELECT {', '.join(COLUMNS)} FROM {{table}}"  # noqa: S608 - names of this module
_COPY = "COPY {table} FROM STDIN (FORMAT BINARY)"
# After everything was added: that takes a third of the time.
_INDEXES = """
ALTER TABLE {table} ADD PRIMARY KEY (id);
CREATE INDEX ON {table} (ref_doc_id);
CREATE INDEX ON {table} (text_hash);
CREATE INDEX ON {table} ((metadata -> 'document'));
CREATE INDEX ON {table} ((metadata -> 'format'));
CREATE INDEX ON {table} ((metadata -> 'heading'));
CREATE INDEX ON {table} ((metadata -> 'page'));
CREATE INDEX ON {table} USING gin (terms) WITH (fastupdate = off);
CREATE INDEX ON {table} USING hnsw (embedding halfvec_ip_ops) WITH (m = {m}, ef_construction = {ef})
"""


_STATISTICS = "SELECT chunks, terms, average_length, tokens FROM {statistics} WHERE id = %s"
_SAVE = """
INSERT INTO {statistics} (id, chunks, terms, average_length, tokens) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (id) DO UPDATE SET (chunks, terms, average_length, tokens)
= (excluded.chunks, excluded.terms, excluded.average_length, excluded.tokens)
"""


@dataclass(frozen=True)
class Hnsw:
    """Parameters of pgvector's HNSW index: more of either is slower to build, and finds more."""

    m: int = 16
    ef_construction: int = 64


class ChunkTable:
    """A table of chunks, by one connection, which understands vectors (`schema.check`).

    Attributes:
        average_length: of the corpus, in tokens, as it is part of every chunk's weights.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        database: Database,
        index_id: str,
        terms: TermStatistics,
        average_length: float,
        tokens: int,
    ) -> None:
        self.connection = connection
        self.index_id = index_id
        self.name = database.chunk_table(index_id)
        self.terms = terms
        self.average_length = average_length
        self._statistics = database.table("statistics")
        self._tokens = tokens

    @classmethod
    def create(
        cls,
        connection: psycopg.Connection,
        database: Database,
        index_id: str,
        *,
        dimensions: int,
        average_length: float,
    ) -> ChunkTable:
        """Make a new, empty one, without any database index; there are statistics of it from now on."""
        table = cls(connection, database, index_id, TermStatistics(), average_length, tokens=0)
        with connection.transaction():
            connection.execute(sql.SQL(_TABLE).format(table=table.name, dimensions=dimensions))
            table.save_statistics()
        return table

    @classmethod
    def open(cls, connection: psycopg.Connection, database: Database, index_id: str) -> ChunkTable:
        """Open the table of an index.

        Raises:
            SnapshotDamaged: there is none.
        """
        statement = sql.SQL(_STATISTICS).format(statistics=database.table("statistics"))
        row = connection.execute(statement, [index_id], binary=True).fetchone()
        if row is None:
            raise SnapshotDamaged(f"the database has no chunks of the index {index_id}: run make reindex")
        chunks, terms, average_length, tokens = row
        statistics = TermStatistics.of_bytes(terms, chunks)
        return cls(connection, database, index_id, statistics, average_length, tokens)

    def save_statistics(self) -> None:
        values = [self.index_id, self.chunk_count, self.terms.as_bytes(), self.average_length, self._tokens]
        self.connection.execute(sql.SQL(_SAVE).format(statistics=self._statistics), values)

    @property
    def chunk_count(self) -> int:
        return self.terms.chunks

    def add(self, entries: Iterable[Entry]) -> None:
        """Add chunks whose ids are new."""
        entries = list(entries)
        with self.connection.cursor() as cursor, cursor.copy(self._statement(_COPY)) as copy:
            copy.set_types(list(COLUMNS.values()))
            for entry in entries:
                copy.write_row(row_of(entry, self.average_length))
        for entry in entries:
            self.terms.add(entry.terms.terms)
            self._tokens += entry.terms.length

    def reuse(self, other: ChunkTable, kept: Sequence[str]) -> None:
        """Begin with another table's chunks of some documents, copied within the database."""
        names = self.name, other.name
        with self.connection.transaction():
            self.connection.execute("CREATE TEMP TABLE kept (name text PRIMARY KEY) ON COMMIT DROP")
            with self.connection.cursor() as cursor, cursor.copy("COPY kept FROM STDIN") as copy:
                for name in kept:
                    copy.write_row([name])
            self.connection.execute(
                sql.SQL("INSERT INTO {} SELECT c.* FROM {} c JOIN kept ON name = ref_doc_id").format(*names)
            )
            gone = self.connection.execute(
                sql.SQL(
                    "SELECT terms, length FROM {} WHERE ref_doc_id NOT IN (SELECT name FROM kept)"
                ).format(other.name)
            ).fetchall()
        self.average_length = other.average_length
        self.terms, self._tokens = other.terms.copy(), other._tokens
        self._forget(gone)

    def copy_document(self, other: ChunkTable, document: str, name: str) -> None:
        self.add(entry._replace(chunk=entry.chunk.moved(name)) for entry in other.entries(document))

    def build_indexes(self, hnsw: Hnsw) -> None:
        """Build what searching needs, after everything was added."""
        if has_drifted(self._tokens, self.chunk_count, self.average_length):
            self._reweigh()
            # The rows as they were before take as much room again; nothing else would give it back.
            self._execute("VACUUM (FULL) {table}")
        for statement in _INDEXES.split(";"):
            self._execute(statement, m=hnsw.m, ef=hnsw.ef_construction)
        self._execute("VACUUM (ANALYZE) {table}")

    def delete(self, wanted: Condition) -> None:
        statement = sql.SQL("DELETE FROM {} WHERE {} RETURNING terms, length").format(self.name, wanted[0])
        self._forget(self.connection.execute(statement, wanted[1], binary=True).fetchall())

    def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement.text, statement.values, binary=True).fetchall()

    def count(self) -> int:
        """Count the rows that there are, whatever the statistics say."""
        row = self._execute("SELECT count(*) FROM {table}").fetchone()
        return int(row[0]) if row else 0

    def entries(self, document: str) -> list[Entry]:
        """Return a document's chunks, as they were added."""
        rows = self._execute(f"{_SELECT} WHERE ref_doc_id = %s", [document])
        return [entry_of_row(row, self.average_length) for row in rows]

    def vectors(self, text_hashes: Sequence[str]) -> dict[str, Vector]:
        """Return the vectors of those texts that it has, by their hashes, at length 1."""
        rows = self._execute(
            "SELECT text_hash, embedding FROM {table} WHERE text_hash = ANY(%s)", [list(text_hashes)]
        )
        return {text_hash: vector_of(embedding) for text_hash, embedding in rows}

    def known(self, text_hashes: Sequence[str]) -> set[str]:
        """Return those of the hashes whose texts it has."""
        rows = self._execute("SELECT text_hash FROM {table} WHERE text_hash = ANY(%s)", [list(text_hashes)])
        return {text_hash for (text_hash,) in rows}

    def sample(self, size: int) -> list[tuple[HalfVector, SparseVector, list[int]]]:
        """Return vectors, weights and terms of the first chunks with something to find: ids are hashes."""
        return self._execute(
            "SELECT embedding, weights, terms FROM {table} WHERE length > 0 AND l2_norm(embedding) > 0 "
            "ORDER BY id LIMIT %s",
            [size],
        ).fetchall()

    def finds(self, vector: HalfVector, weights: SparseVector, terms: list[int]) -> bool:
        """Return whether the dense search finds a chunk as near as this one, and the lexical search any."""
        row = self._execute(
            "SELECT -(embedding <#> %s), (SELECT max(-(weights <#> %s)) FROM {table} "
            "WHERE terms && %s::int4[]) FROM {table} ORDER BY embedding <#> %s LIMIT 1",
            [vector, weights, terms[:1], vector],
        ).fetchone()
        return row is not None and row[0] >= _ITSELF and bool(row[1])

    def _forget(self, chunks: Iterable[tuple[list[int], int]]) -> None:
        for terms, length in chunks:
            self.terms.remove(term % 2**32 for term in terms)
            self._tokens -= length

    def _reweigh(self) -> None:
        """Write all rows again, with weights that fit the corpus."""
        average = self._tokens / self.chunk_count
        with self.connection.transaction():
            self._execute("CREATE TEMP TABLE reweighed (id text, weights sparsevec) ON COMMIT DROP")
            for page in self._pages():
                statement = "COPY reweighed FROM STDIN (FORMAT BINARY)"
                with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
                    copy.set_types(["text", "sparsevec"])
                    for entry in page:
                        terms, counts = entry.terms
                        values = weights(counts, length=entry.terms.length, average_length=average)
                        copy.write_row([entry.chunk.id, sparse_vector(terms, values)])
            self._execute("UPDATE {table} t SET weights = r.weights FROM reweighed r WHERE r.id = t.id")
        self.average_length = average

    def _pages(self) -> Iterator[list[Entry]]:
        with self.connection.cursor("pages") as cursor:
            cursor.execute(self._statement(_SELECT))
            while rows := cursor.fetchmany(_PAGE):
                yield [entry_of_row(row, self.average_length) for row in rows]

    def _execute(
        self, statement: str, values: Sequence[object] | None = None, **parts: int
    ) -> psycopg.Cursor:
        return self.connection.execute(self._statement(statement, **parts), values, binary=True)

    def _statement(self, statement: str, **parts: int) -> sql.Composed:
        return sql.SQL(statement).format(table=self.name, **parts)
