"""Chunks as payloads of the engine's points, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.storage.chunks import FIELDS, StoredChunk, values_of

# The fields of a payload that the store itself asks for by name.
TEXT_HASH = "text_hash"
DOCUMENT = "ref_doc_id"
LENGTH = "length"
# All that a chunk's metadata equals, as one list: one index of the engine for all fields. It loads as fast as
# an index of one field, and while it does, the engine lets no other thread run.
LABELS = "labels"


def to_payload(chunk: StoredChunk, length: int) -> dict[str, Any]:
    """Return the payload of a chunk.

    Args:
        length: number of its tokens, for BM25.
    """
    return {
        "id": chunk.id,
        "text": chunk.text,
        DOCUMENT: chunk.ref_doc_id,
        "start": chunk.start,
        "end": chunk.end,
        "metadata": chunk.metadata,
        TEXT_HASH: chunk.text_hash,
        "occurrence": chunk.occurrence,
        LENGTH: length,
        LABELS: labels_of(chunk.metadata),
    }


def from_payload(payload: Mapping[str, Any]) -> StoredChunk:
    """Return the chunk that has a payload."""
    return StoredChunk(
        payload["id"],
        payload[DOCUMENT],
        payload["text"],
        payload["start"],
        payload["end"],
        payload["metadata"],
        payload[TEXT_HASH],
        payload["occurrence"],
    )


def labels_of(metadata: Mapping[str, Any]) -> list[str]:
    """Return a label for each value of each field that can be filtered by."""
    return [
        label_of(field, value)
        for field in FIELDS
        for value in values_of(metadata.get(field))
        if may_have_label(value)
    ]


def label_of(field: str, value: str | int) -> str:
    """Return the label of chunks whose field has this value; a number is not the text of its digits."""
    return f"{field}={json.dumps(value, ensure_ascii=False)}"


def may_have_label(value: Any) -> bool:
    """Return whether a label can stand for a value: not for a fraction, which equals what is near it."""
    return type(value) in {str, int}
