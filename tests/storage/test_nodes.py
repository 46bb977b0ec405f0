"""Chunks as LlamaIndex's nodes: the same is embedded, stored and shown, whichever way they take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.schema import Document as LlamaDocument

from app.documents.pages import Page, markdown_headings
from app.domain.chunk import Chunk, ChunkUnit, text_hash
from app.embeddings.static_model import DIMENSIONS
from app.storage.chunks import StoredChunk
from app.storage.disk.shard import payload_of
from app.storage.disk.vector_store import EdgeVectorStore
from app.storage.nodes import Chunker, chunk_of, node_of
from app.storage.postgres.database import Database
from app.storage.postgres.rows import CHUNK_COLUMNS
from app.storage.postgres.vector_store import PostgresVectorStore
from app.text.chunking import Chunking, cut
from tests.support.stores import EMBEDDING, Store, ask
from tests.support.timing import PATIENT

CHUNKING = Chunking(1000, 0, ChunkUnit.CHARACTERS)
# The same text thrice below the same heading; text with and without a heading.
HANDBOOK = """\
Before any heading.

# Handbook

Same.

## Leave

Sixteen weeks.

# Handbook

Same.

# Handbook

Same.
"""
# What no splitter leaves, but an engine must not change: blanks around texts and headings.
ODD = [
    Chunk("a.pdf", 3, " Heading ", " text \x1f", 0, 8, text_hash(" Heading \n text \x1f"), 7),
    Chunk("a.pdf", 4, None, "\ttext\n", 8, 14, text_hash("\ttext\n"), 1),
    Chunk("日本.md", None, "", "no heading", 0, 10, text_hash("no heading"), 1),
]


def handbook() -> list[Chunk]:
    page = Page(None, HANDBOOK, tuple(markdown_headings(HANDBOOK)))
    return list(cut("folder/name.md", (page,), CHUNKING))


def embedded(node: BaseNode) -> BaseNode:
    """With the vector that an index of LlamaIndex's would give it."""
    node.embedding = EMBEDDING.get_text_embedding(node.get_content(MetadataMode.EMBED))
    return node


class Opened:
    """Stores of both kinds, and what they hold."""

    def __init__(self, folder: Path, database: dict[str, Any]) -> None:
        self._folder = folder
        self._database = Database(database["database_url"], database["db_schema"], PATIENT.database)
        self._stores: list[Store] = []

    def make(self, kind: str, name: str) -> Store:
        """Return a new store of the kind."""
        made: Store
        if kind == "disk":
            made = EdgeVectorStore.create(self._folder / name, dimensions=DIMENSIONS)
        else:
            made = PostgresVectorStore.create(self._database, name, dimensions=DIMENSIONS)
        self._stores.append(made)
        return made

    def close(self) -> None:
        """Close all stores that were made."""
        for store in self._stores:
            store.close()


@pytest.fixture
def opened(tmp_path: Path, database: dict[str, Any]) -> Iterator[Opened]:
    made = Opened(tmp_path, database)
    yield made
    made.close()


def contents(store: Store) -> list[str]:
    """Return all that a store holds of each chunk but its vectors, as the engine or the database gives it."""
    if isinstance(store, EdgeVectorStore):
        records = store._shard.scroll(store._selection(None, None), True, False)
        held = [payload_of(record) for record in records]
    else:
        columns = [*CHUNK_COLUMNS, "length", "terms"]
        statement = f"SELECT {', '.join(columns)} FROM {store._table.name.as_string()}"
        rows = store.client.execute(statement.encode()).fetchall()
        held = [dict(zip(columns, row, strict=True)) for row in rows]
    return sorted(json.dumps(each, sort_keys=True) for each in held)


@pytest.mark.parametrize("target", ["disk", "postgres"])
@pytest.mark.parametrize("source", ["disk", "postgres"])
def test_chunks_are_unchanged_in_another_store(opened: Opened, source: str, target: str) -> None:
    """Nodes that are read from one store and added to another keep payload, id, hash and embedded text."""
    chunks = [*handbook(), *ODD]
    wanted = {chunk.id: StoredChunk.of(chunk) for chunk in chunks}
    assert len(wanted) == len(chunks)
    assert [chunk.occurrence for chunk in chunks if chunk.text == "Same."] == [1, 2, 3]
    first = opened.make(source, "first")
    first.add([embedded(node_of(chunk)) for chunk in wanted.values()])
    nodes = first.get_nodes()
    assert {node.node_id: chunk_of(node) for node in nodes} == wanted
    by_id = {chunk.id: chunk for chunk in chunks}
    for node in nodes:
        assert node.get_content(MetadataMode.EMBED) == by_id[node.node_id].embed_text
        assert node.get_content() == by_id[node.node_id].text

    second, same = opened.make(target, "second"), opened.make(target, "same")
    assert sorted(second.add([embedded(node) for node in nodes])) == sorted(wanted)
    same.add([embedded(node_of(chunk)) for chunk in wanted.values()])
    assert contents(second) == contents(same)
    assert second.find(ask("weeks")) == same.find(ask("weeks"))


@pytest.mark.parametrize("kind", ["disk", "postgres"])
def test_foreign_nodes_are_returned_unchanged(opened: Opened, kind: str) -> None:
    """They have LlamaIndex's own templates, which embed all metadata."""
    # In the order that jsonb gives them: it does not keep the one in which they came.
    metadata = {"tags": ["x"], "author": "A. B.", "heading": "Leave"}
    node = TextNode(text="Sixteen weeks.", metadata=metadata)
    store = opened.make(kind, "first")
    store.add([embedded(node)])
    (found,) = store.get_nodes()
    assert found.get_content(MetadataMode.EMBED) == node.get_content(MetadataMode.EMBED)
    assert "author: A. B." in found.get_content(MetadataMode.EMBED)
    assert (found.node_id, found.ref_doc_id, found.metadata) == (node.node_id, None, node.metadata)
    assert chunk_of(found) == chunk_of(node)


def test_a_node_without_metadata_is_hashed_by_its_embedded_text() -> None:
    """This includes nodes whose metadata is excluded from the embedding."""
    node = TextNode(text="text", metadata={"author": "A. B."}, excluded_embed_metadata_keys=["author"])
    assert chunk_of(node).text_hash == text_hash("text")
    assert node_of(chunk_of(node)).get_content(MetadataMode.EMBED) == "text"


def test_a_node_equals_its_chunk() -> None:
    """Metadata, position and document are where LlamaIndex looks for them, and a copy is equal."""
    chunk = StoredChunk.of(Chunk("folder/name.md", 7, None, "Text.", 3, 8, text_hash("Text."), 2))
    node = node_of(chunk)
    assert node.metadata == {"document": "folder/name.md", "format": "md", "page": 7, "heading": None}
    assert (node.ref_doc_id, node.start_char_idx, node.end_char_idx) == ("folder/name.md", 3, 8)
    assert chunk_of(node.model_copy()) == chunk
    assert chunk_of(type(node).from_dict(node.to_dict())) == chunk


def test_the_chunker_is_a_llamaindex_transformation() -> None:
    """An index that is extended by LlamaIndex's own means gets the same chunks."""
    nodes = Chunker(chunking=CHUNKING)([LlamaDocument(text=HANDBOOK, id_="folder/name.md")])
    assert [chunk_of(node) for node in nodes] == [StoredChunk.of(chunk) for chunk in handbook()]
