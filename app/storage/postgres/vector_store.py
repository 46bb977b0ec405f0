"""The chunks of one index in PostgreSQL, with LlamaIndex's contract.

LlamaIndex's own PGVectorStore writes the names and values of filters into its SQL. Here every value is bound,
and the fields that can be filtered by are a list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from psycopg import sql
from pydantic import PrivateAttr

from app.storage.chunks import FIELDS, Entry, Hit
from app.storage.nodes import chunk_of, node_of
from app.storage.postgres.chunk_table import ChunkTable, Hnsw
from app.storage.postgres.database import Database
from app.storage.postgres.filters import condition_of, joined
from app.storage.postgres.generations import Generations
from app.storage.postgres.replicas import Replicas
from app.storage.postgres.rows import CHUNK_COLUMNS, chunk_of_row, storable
from app.storage.postgres.schema import check, migrate
from app.storage.postgres.search import Search
from app.storage.postgres.statement import SEARCHING, Condition, Statement
from app.storage.vector_store import ChunkStore
from app.text.bm25 import DEFAULT_AVERAGE_LENGTH, TermCounter


class PostgresVectorStore(ChunkStore):
    """A `ChunkTable` that can be searched.

    `afind` and `aquery` go by the pool of `servers`; all else by the one connection of `table`, from one
    thread at a time.

    Attributes:
        filter_fields: of the metadata; a filter on another one is refused.
    """

    filter_fields: tuple[str, ...] = FIELDS

    _table: ChunkTable = PrivateAttr()
    _servers: Replicas | None = PrivateAttr()
    _search: Search = PrivateAttr()
    _counter: TermCounter = PrivateAttr(default_factory=TermCounter)

    def __init__(self, table: ChunkTable, servers: Replicas | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        self._table = table
        self._servers = servers
        self._search = Search(table.name, table.terms, self._counter, self.dense_weight, self.filter_fields)

    @classmethod
    def create(
        cls,
        database: Database,
        name: str,
        *,
        dimensions: int,
        average_length: float = DEFAULT_AVERAGE_LENGTH,
        **fields: Any,
    ) -> PostgresVectorStore:
        """Make a new, empty store of a name, with a connection of its own; for one thread."""
        connection = database.connect("store")
        migrate(connection, database)
        connection.use(SEARCHING)
        generations = Generations(connection, database)
        table = generations.create_chunks(name, dimensions=dimensions, average_length=average_length)
        table.build_indexes(Hnsw())
        return cls(table, **fields)

    @classmethod
    def open(cls, database: Database, name: str, **fields: Any) -> PostgresVectorStore:
        """Open the store that was saved under a name.

        Raises:
            SnapshotDamaged: there is none.
        """
        connection = database.connect("store")
        check(connection, database)
        connection.use(SEARCHING)
        return cls(Generations(connection, database).chunks(name), **fields)

    def save(self) -> None:
        """Bring the statistics of what was added and deleted to the database."""
        self._table.save_statistics()

    def close(self) -> None:
        self._table.connection.close()

    @classmethod
    def class_name(cls) -> str:
        return "PostgresVectorStore"

    @property
    def client(self) -> psycopg.Connection:
        return self._table.connection

    @property
    def chunk_count(self) -> int:
        return self._table.chunk_count

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Add nodes with their embeddings; one whose id is known is replaced."""
        entries = {node.node_id: self._entry(node) for node in nodes}
        with self._table.connection.transaction():
            self._table.delete((sql.SQL("id = ANY(%s)"), [storable(list(entries))]))
            self._table.add(entries.values())
        return list(entries)

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Delete a document's nodes."""
        self._table.delete((sql.SQL("ref_doc_id = %s"), [storable(ref_doc_id)]))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **_: Any
    ) -> None:
        """Delete the nodes that have one of the ids and match the filters, as far as these are given.

        Raises:
            ValueError: neither is: `clear` deletes everything. Or there is no such field.
        """
        if node_ids is None and filters is None:
            raise ValueError("give node_ids or filters; clear() deletes everything")
        self._table.delete(self._selection(node_ids, filters))

    def clear(self) -> None:
        self._table.delete((sql.SQL("true"), []))

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        rows = self._table.fetch(self._nodes(node_ids, filters))
        return [node_of(chunk_of_row(row)) for row in rows]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        rows = await self._fetch(self._nodes(node_ids, filters))
        return [node_of(chunk_of_row(row)) for row in rows]

    def find(self, query: VectorStoreQuery) -> list[Hit]:
        return _hits(self._table.fetch(self._search.statement(query)))

    async def afind(self, query: VectorStoreQuery) -> list[Hit]:
        """Return what `find` does, by a connection of the pool.

        Raises:
            IndexNotReady: the database cannot be reached.
            Overloaded: it is too slow, or all its connections are in use.
        """
        return _hits(await self._fetch(self._search.statement(query)))

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        return _result(self.find(query))

    async def aquery(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        return _result(await self.afind(query))

    async def _fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        if self._servers is None:
            return await asyncio.to_thread(self._table.fetch, statement)
        return await self._servers.fetch(self._table.index_id, statement)

    def _entry(self, node: BaseNode) -> Entry:
        counted = self._counter.count(node.get_content(MetadataMode.EMBED))
        return Entry(chunk_of(node), node.get_embedding(), counted)

    def _nodes(self, node_ids: list[str] | None, filters: MetadataFilters | None) -> Statement:
        wanted, values = self._selection(node_ids, filters)
        columns = sql.SQL(", ").join(map(sql.Identifier, CHUNK_COLUMNS))
        text = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY id").format(columns, self._table.name, wanted)
        return Statement(text, values)

    def _selection(self, node_ids: list[str] | None, filters: MetadataFilters | None) -> Condition:
        parts = [condition_of(filters, self.filter_fields)]
        if node_ids is not None:
            parts.append((sql.SQL("id = ANY(%s)"), [storable(node_ids)]))
        return joined(" AND ", parts)


def _hits(rows: list[tuple[Any, ...]]) -> list[Hit]:
    return [Hit(row[-1], chunk_of_row(row[:-1])) for row in rows]


def _result(hits: list[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[node_of(hit.chunk) for hit in hits],
        similarities=[hit.score for hit in hits],
        ids=[hit.chunk.id for hit in hits],
    )
