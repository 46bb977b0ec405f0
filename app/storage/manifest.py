"""The manifest of an index: the settings it was built with, its counts, and its files where it has any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.domain.fingerprint import Fingerprint
from app.text.chunking import Chunking


@dataclass(frozen=True)
class FileInfo:
    """A file at the moment when it was sealed.

    Attributes:
        size: in bytes.
        digest: see `app.storage.disk.files`.
        mtime_ns: tells whether anybody has written to it since.
    """

    size: int
    digest: str
    mtime_ns: int


@dataclass(frozen=True)
class Manifest:
    """Description of an index; `app.storage.stored_forms` has the form in which it is kept.

    Attributes:
        built_at: ISO 8601, in UTC.
        engine: name and version of what wrote the index.
        reader: the parser and the rules that made the text of the documents.
        documents: how many are indexed; `unread_documents` could not be read.
        files: by their path in a snapshot, all but the manifest itself and its checksum; none in a database.
    """

    id: str
    built_at: str
    engine: str
    reader: str
    embedding: Fingerprint
    chunking: Chunking
    documents: int
    unread_documents: int
    chunks: int
    files: Mapping[str, FileInfo] = field(default_factory=dict)


@dataclass
class IndexSummary:
    """An index that is kept, as operators list it; with a problem, only the id is sure to be known.

    Attributes:
        current: it is the one that is to be served.
        bytes: size on the disk or in the database.
    """

    id: str
    current: bool
    built_at: str | None = None
    documents: int | None = None
    chunks: int | None = None
    embedding: Fingerprint | None = None
    bytes: int | None = None
    problem: str | None = None

    def as_json(self) -> str:
        """Return a JSON object, for programs."""
        embedding = self.embedding
        fields: dict[str, Any] = {
            "id": self.id,
            "current": self.current,
            "built_at": self.built_at,
            "documents": self.documents,
            "chunks": self.chunks,
            "embedding": embedding
            and {
                "provider": embedding.provider,
                "model": embedding.model,
                "dimensions": embedding.dimensions,
            },
            "bytes": self.bytes,
            "problem": self.problem,
        }
        return orjson.dumps(fields).decode()

    def __str__(self) -> str:
        served = " (served)" if self.current else ""
        if self.problem is not None:
            return f"{self.id}{served}  damaged: {self.problem}"
        size = f"{self.documents:,} documents, {self.chunks:,} chunks, {(self.bytes or 0) / 1e6:,.1f} MB"
        return f"{self.id}{served}  {size}, {self.embedding}"
