"""Stores of both kinds, with nodes and queries for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from app.embeddings.local import LocalEmbedding
from app.embeddings.static_model import DIMENSIONS
from app.storage.disk.vector_store import EdgeVectorStore
from app.storage.postgres.database import Database
from app.storage.postgres.vector_store import PostgresVectorStore
from app.storage.vector_store import ChunkStore

EMBEDDING = LocalEmbedding()
# The fields of `nodes()`, and one that no node has.
FIELDS = ("document", "page", "score", "nothing")
Store = EdgeVectorStore | PostgresVectorStore

TEXTS = {
    "leave.pdf": ["Parental leave lasts sixteen weeks.", "Adoption leave lasts twelve weeks."],
    "travel.md": ["Trains are booked in second class.", "Hotels cost at most 165 euros a night."],
    "codes.csv": ["Error WC-05 means that the air is too humid."],
}


def nodes() -> list[TextNode]:
    made = []
    for document, texts in TEXTS.items():
        for page, text in enumerate(texts, start=1):
            node = TextNode(
                text=text,
                embedding=EMBEDDING.get_text_embedding(text),
                metadata={"document": document, "page": page, "score": page / 2},
                excluded_embed_metadata_keys=["document", "page", "score"],
            )
            node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
            made.append(node)
    return made


def ask(text: str, mode: str = "hybrid", top_k: int = 3, **more: Any) -> VectorStoreQuery:
    return VectorStoreQuery(
        query_str=text,
        query_embedding=EMBEDDING.get_query_embedding(text),
        similarity_top_k=top_k,
        mode=VectorStoreQueryMode(mode),
        **more,
    )


def texts_of(store: ChunkStore, query: VectorStoreQuery) -> list[str]:
    return [node.get_content() for node in store.query(query).nodes or []]


def where(key: str, value: Any, operator: str = "==") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=FilterOperator(operator))])


@dataclass
class Stores:
    """A factory of stores of one kind, which closes them at the end.

    Attributes:
        place: the folder or database of the stores.
    """

    place: Path | Database
    _opened: list[Store] = field(default_factory=list)

    def create(self, name: str = "store", *, filled: bool = True, **fields: Any) -> Store:
        """Make a store.

        Args:
            filled: add `nodes()` to it.
        """
        arguments = {"dimensions": DIMENSIONS, "average_length": 5} | fields
        made = self._note(
            EdgeVectorStore.create(self.place / name, **arguments)
            if isinstance(self.place, Path)
            else PostgresVectorStore.create(self.place, name, filter_fields=FIELDS, **arguments)
        )
        if filled:
            made.add(nodes())
        return made

    def open(self, name: str = "store") -> Store:
        return self._note(
            EdgeVectorStore.open(self.place / name)
            if isinstance(self.place, Path)
            else PostgresVectorStore.open(self.place, name, filter_fields=FIELDS)
        )

    def close(self) -> None:
        for store in self._opened:
            store.close()

    def _note(self, store: Store) -> Store:
        self._opened.append(store)
        return store
