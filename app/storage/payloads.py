"""Chunks as stores keep and find them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from app.domain.chunk import Chunk, chunk_id
from app.domain.vectors import Vector
from app.text.bm25 import TermCounts

# The metadata of the service's chunks, which it filters by.
FIELDS = ("document", "format", "page", "heading")


class Entry(NamedTuple):
    """A chunk to be stored; its payload is as `payload_of_chunk` makes it."""

    payload: dict[str, Any]
    vector: Sequence[float] | Vector
    terms: TermCounts


class Hit(NamedTuple):
    """What a search found: the payload has `id`, `text`, `metadata`, `ref_doc_id`, `start` and `end`."""

    score: float
    payload: dict[str, Any]


def payload_of_chunk(chunk: Chunk) -> dict[str, Any]:
    """As `nodes.payload_of` makes of its node."""
    return {
        "id": chunk.id,
        "text": chunk.text,
        "ref_doc_id": chunk.document,
        "start": chunk.start,
        "end": chunk.end,
        "metadata": {
            "document": chunk.document,
            "format": format_of(chunk.document),
            "page": chunk.page,
            "heading": chunk.heading,
        },
        "text_hash": chunk.text_hash,
        "occurrence": chunk.occurrence,
    }


def moved(payload: dict[str, Any], document: str) -> dict[str, Any]:
    """The payload of the same chunk in a document of another name."""
    metadata = {**payload["metadata"], "document": document, "format": format_of(document)}
    new_id = chunk_id(document, payload["text_hash"], payload["occurrence"])
    return {**payload, "id": new_id, "ref_doc_id": document, "metadata": metadata}


def format_of(document: str) -> str:
    return PurePosixPath(document).suffix.lower().lstrip(".")
