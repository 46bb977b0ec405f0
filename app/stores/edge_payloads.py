"""Chunks as the engine keeps them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from app.cutting import Chunk, chunk_id


def payload_of_chunk(chunk: Chunk) -> dict[str, Any]:
    """As `edge_nodes.payload_of` makes of its node."""
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
