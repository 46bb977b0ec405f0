"""Chunks as stores are given them, keep them, and find them."""

from __future__ import annotations

from collections.abc import Sequence
from posixpath import splitext
from typing import Any, NamedTuple

from app.domain.chunk import Chunk, chunk_id
from app.domain.vectors import Vector
from app.text.bm25 import TermCounts

# The metadata of the service's own chunks, by which they can be filtered.
FIELDS = ("document", "format", "page", "heading")


class StoredChunk(NamedTuple):
    """A chunk of the service's own, or a LlamaIndex node from elsewhere, as a store keeps it.

    Attributes:
        ref_doc_id: name of its document; None for a node that has none.
        start, end: place in its page's text, in characters; None where it is not known.
        metadata: `FIELDS` for a chunk of the service's own, otherwise whatever JSON can hold.
        text_hash: hash of the text that is embedded; see `app.domain.chunk.text_hash`.
        occurrence: 1 for the first chunk of this hash in its document, 2 for the second.
    """

    id: str
    ref_doc_id: str | None
    text: str
    start: int | None
    end: int | None
    metadata: dict[str, Any]
    text_hash: str
    occurrence: int

    @classmethod
    def of(cls, chunk: Chunk) -> StoredChunk:
        """Return the stored form of a chunk."""
        document = chunk.document
        metadata = {
            "document": document,
            "format": _format_of(document),
            "page": chunk.page,
            "heading": chunk.heading,
        }
        return cls(
            chunk.id,
            document,
            chunk.text,
            chunk.start,
            chunk.end,
            metadata,
            chunk.text_hash,
            chunk.occurrence,
        )

    def moved(self, document: str) -> StoredChunk:
        """Return the same chunk in a document of another name."""
        return self._replace(
            id=chunk_id(document, self.text_hash, self.occurrence),
            ref_doc_id=document,
            metadata={**self.metadata, "document": document, "format": _format_of(document)},
        )


class Entry(NamedTuple):
    """A chunk with all that a store searches it by.

    Attributes:
        vector: shape (dimensions,).
        terms: of the text that is embedded.
    """

    chunk: StoredChunk
    vector: Sequence[float] | Vector
    terms: TermCounts


class Hit(NamedTuple):
    """A chunk that a search found."""

    score: float
    chunk: StoredChunk


def values_of(value: Any) -> list[Any]:
    """Return the values of a field of the metadata or of a filter, which may be one or a list."""
    return value if isinstance(value, list) else [value]


def _format_of(document: str) -> str:
    return splitext(document)[1].lower().lstrip(".")
