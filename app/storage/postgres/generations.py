"""Indexes in PostgreSQL, by one connection: which there are, which is served, and one writer at a time."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from app.domain.document import Document
from app.domain.errors import IndexLocked, SnapshotDamaged
from app.storage.ids import ID, candidates, next_id, rollback_target
from app.storage.manifest import IndexSummary, Manifest
from app.storage.postgres.chunk_table import ChunkTable
from app.storage.postgres.database import Database
from app.storage.stored_forms import ManifestForm, decode_document, encode_document

# On this channel servers hear of another index; the message is the schema.
CHANNEL = "rag_index"
ENGINE = "PostgreSQL with pgvector, layout 1"

# A question that began before an index was replaced may still be on its way to it, from a server that has
# not heard of the next one.
_IN_USE = "10 minutes"
_LOCK_TIMEOUT = "5s"
_LOCK_SPACE = 0x52414758

_DECODER = json.JSONDecoder()

_INSERT = "INSERT INTO {generations} (id, manifest, documents) VALUES (%s, %s, %s)"
_SERVE = """
UPDATE {generations} SET last_served = now() WHERE id = (SELECT id FROM {served});
INSERT INTO {served} (id) VALUES ({id}) ON CONFLICT (one) DO UPDATE SET id = excluded.id;
SELECT pg_notify({channel}, {schema})
"""
_READERS = """
SELECT DISTINCT grantee::regrole::text FROM pg_class, aclexplode(relacl)
WHERE pg_class.oid = %s::regclass AND privilege_type = 'SELECT' AND grantee NOT IN (relowner, 0)
"""
_HOLDER = """
SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s
AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True)
class Generation:
    """An index, without its chunks.

    Attributes:
        documents_json: what `encode_documents` has made of the documents.
    """

    manifest: Manifest
    documents_json: bytes

    def documents(self) -> Iterator[Document]:
        """Yield the documents, by name.

        One by one: to parse 100,000 at once would keep Python's lock for 0.1 s.
        """
        text, place = self.documents_json.decode(), 1
        while place < len(text) - 1:
            stored, end = _DECODER.raw_decode(text, place)
            yield decode_document(stored)
            place = end + 1


def encode_documents(documents: Sequence[Document]) -> bytes:
    """Return a JSON array, without blanks: its elements are taken apart by their lengths."""
    return b"[" + b",".join(map(encode_document, documents)) + b"]"


class Generations:
    """The generations of a schema; errors not named below are psycopg's: see `database.database_errors`."""

    def __init__(self, connection: psycopg.Connection, database: Database) -> None:
        self.connection = connection
        self._database = database

    def current_id(self) -> str | None:
        """Return the index that is to be served; None where none was ever published."""
        row = self._execute("SELECT id FROM {served}").fetchone()
        return None if row is None else str(row[0])

    def ids(self) -> list[str]:
        """Return the ids of all that there are, oldest first."""
        return [row[0] for row in self._execute("SELECT id FROM {generations} ORDER BY id")]

    def open(self, index_id: str) -> Generation:
        """Open an index, without its chunks.

        Raises:
            SnapshotDamaged: it is gone, or not as this version of the service writes it.
        """
        row = self._execute(
            "SELECT manifest, documents FROM {generations} WHERE id = %s", [index_id]
        ).fetchone()
        if row is None:
            raise SnapshotDamaged(f"the database has no index {index_id}: run make reindex")
        try:
            return Generation(ManifestForm.model_validate(row[0]).manifest(), row[1])
        except ValueError:
            raise SnapshotDamaged(
                f"the manifest of {index_id} cannot be understood: run make reindex"
            ) from None

    def chunks(self, index_id: str) -> ChunkTable:
        """Open the chunks of an index.

        Raises:
            SnapshotDamaged: there are none.
        """
        return ChunkTable.open(self.connection, self._database, index_id)

    def check_count(self, index_id: str, chunks: int) -> None:
        """Make sure that an index has so many chunks.

        Raises:
            SnapshotDamaged: it has not as many.
        """
        try:
            found = self.chunks(index_id).count()
        except errors.UndefinedTable:
            found = 0
        if found != chunks:
            raise SnapshotDamaged(
                f"the index {index_id} has {found} chunks, and had {chunks}: run make reindex"
            )

    def summaries(self) -> list[IndexSummary]:
        """Describe all, newest first."""
        current = self.current_id()
        return [self._summary(index_id, current) for index_id in reversed(self.ids())]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer, until the connection ends, however that happens.

        Raises:
            IndexLocked: somebody else is; says who.
        """
        key = [_LOCK_SPACE, zlib.crc32(self._database.schema.encode()) & 0x7FFFFFFF]
        row = self.connection.execute("SELECT pg_try_advisory_lock(%s, %s)", key).fetchone()
        if row != (True,):
            holder = self.connection.execute(_HOLDER, key).fetchone()
            raise IndexLocked(
                f"the index in the schema {self._database.schema} is being written by "
                f"{holder[0] if holder else 'somebody who has just ended'}: wait for it to end"
            )
        try:
            yield
        finally:
            with suppress(psycopg.Error):  # with the connection, it is gone
                self.connection.execute("SELECT pg_advisory_unlock(%s, %s)", key)

    def create_chunks(self, index_id: str, *, dimensions: int, average_length: float) -> ChunkTable:
        """Make an empty table, which `remove_leftovers` knows from now on."""
        return ChunkTable.create(
            self.connection, self._database, index_id, dimensions=dimensions, average_length=average_length
        )

    def publish(self, manifest: Manifest, documents: list[Document]) -> None:
        """Serve an index whose chunks are there; roles that may read the others may read it."""
        readers = self.connection.execute(_READERS, [f'"{self._database.schema}".generations']).fetchall()
        with self.connection.transaction():
            for (role,) in readers:
                # As PostgreSQL quotes it.
                self._execute("GRANT SELECT ON {chunks} TO {role}", index_id=manifest.id, role=sql.SQL(role))
            form = ManifestForm.of(manifest).model_dump(mode="json")
            self._execute(_INSERT, [manifest.id, Jsonb(form), encode_documents(documents)])
            self._serve(manifest.id)

    def point_to(self, index_id: str) -> None:
        """Serve an index that is there."""
        with self.connection.transaction():
            self._serve(index_id)

    def prune(self, keep: int) -> None:
        """Remove what is too old to keep; what was served a moment ago is left to the next run."""
        kept = candidates(self.ids(), self.current_id())[:keep]
        old = self._execute(
            "SELECT id FROM {generations} WHERE id <> ALL(%s) AND (last_served < now() - %s::interval) "
            "IS NOT FALSE",
            [kept, _IN_USE],
        ).fetchall()
        for (index_id,) in old:
            self._execute("DELETE FROM {generations} WHERE id = %s", [index_id])
            self._drop(index_id)

    def remove_leftovers(self) -> None:
        """Remove the chunks that a writer that died left: those of no generation."""
        rows = self._execute(
            "SELECT id FROM {statistics} WHERE id NOT IN (SELECT id FROM {generations})"
        ).fetchall()
        for (index_id,) in rows:
            if ID.fullmatch(index_id):
                self._drop(index_id)

    def find_for_rollback(self, index_id: str | None) -> Generation:
        """Open the index to go back to; see `SnapshotStore.find_for_rollback`."""
        return self.open(rollback_target(index_id, self.ids(), self.current_id()))

    def next_id(self) -> str:
        return next_id(self.ids())

    def _serve(self, index_id: str) -> None:
        self._execute(_SERVE, id=index_id)

    def _drop(self, index_id: str) -> None:
        """Drop the chunks of an index; while a question of long ago is in it, leave that to the next run."""
        with suppress(errors.LockNotAvailable), self.connection.transaction():
            self._execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
            self._execute("DROP TABLE IF EXISTS {chunks}", index_id=index_id)
            self._execute("DELETE FROM {statistics} WHERE id = %s", [index_id])

    def _summary(self, index_id: str, current: str | None) -> IndexSummary:
        summary = IndexSummary(id=index_id, current=index_id == current)
        try:
            manifest = self.open(index_id).manifest
            summary.built_at, summary.embedding = manifest.built_at, manifest.embedding
            summary.documents, summary.chunks = manifest.documents, manifest.chunks
            self.check_count(index_id, manifest.chunks)
            row = self._execute("SELECT pg_total_relation_size({name})", index_id=index_id).fetchone()
            summary.bytes = row[0] if row else None
        except SnapshotDamaged as damage:
            summary.problem = str(damage)
        return summary

    def _execute(
        self, statement: str, values: Sequence[Any] | None = None, *, index_id: str = "", **parts: Any
    ) -> psycopg.Cursor:
        tables = {name: self._database.table(name) for name in ("generations", "served", "statistics")}
        chunks = self._database.chunk_table(index_id)
        ready = sql.SQL(statement).format(
            **tables,
            **parts,
            chunks=chunks,
            name=sql.Literal(chunks.as_string()),
            channel=sql.Literal(CHANNEL),
            schema=sql.Literal(self._database.schema),
        )
        return self.connection.execute(ready, values)
