"""The forms in which manifests and documents are kept, on disk and in PostgreSQL.

They are spelt out here, apart from the types that the program works with and from the HTTP schemas: to rename
a field of either changes nothing in an index. Whoever changes a form raises `SCHEMA_VERSION`.
"""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel

from app.domain.chunk import ChunkUnit
from app.domain.document import Document, DocumentStatus
from app.domain.fingerprint import Fingerprint
from app.storage.manifest import FileInfo, Manifest
from app.text.chunking import Chunking

SCHEMA_VERSION = 2


class _Embedding(BaseModel):
    provider: str
    model: str
    dimensions: int


class _Chunking(BaseModel):
    size: int
    overlap: int
    unit: ChunkUnit


class _File(BaseModel):
    size: int
    digest: str
    mtime_ns: int


class ManifestForm(BaseModel):
    """A manifest as `manifest.json` and the table `generations` hold it."""

    schema_version: int = SCHEMA_VERSION
    id: str
    built_at: str
    engine: str
    # Older indexes have none.
    reader: str = ""
    embedding: _Embedding
    chunking: _Chunking
    documents: int
    unread_documents: int
    chunks: int
    files: dict[str, _File] = {}

    @classmethod
    def of(cls, manifest: Manifest) -> ManifestForm:
        """Return the form of a manifest."""
        embedding, chunking = manifest.embedding, manifest.chunking
        return cls(
            id=manifest.id,
            built_at=manifest.built_at,
            engine=manifest.engine,
            reader=manifest.reader,
            embedding=_Embedding(
                provider=embedding.provider, model=embedding.model, dimensions=embedding.dimensions
            ),
            chunking=_Chunking(size=chunking.size, overlap=chunking.overlap, unit=chunking.unit),
            documents=manifest.documents,
            unread_documents=manifest.unread_documents,
            chunks=manifest.chunks,
            files={
                name: _File(size=file.size, digest=file.digest, mtime_ns=file.mtime_ns)
                for name, file in manifest.files.items()
            },
        )

    def manifest(self) -> Manifest:
        """Return the manifest that has this form."""
        return Manifest(
            id=self.id,
            built_at=self.built_at,
            engine=self.engine,
            reader=self.reader,
            embedding=Fingerprint(self.embedding.provider, self.embedding.model, self.embedding.dimensions),
            chunking=Chunking(self.chunking.size, self.chunking.overlap, self.chunking.unit),
            documents=self.documents,
            unread_documents=self.unread_documents,
            chunks=self.chunks,
            files={
                name: FileInfo(file.size, file.digest, file.mtime_ns) for name, file in self.files.items()
            },
        )


def encode_document(document: Document) -> bytes:
    """Return a document as JSON: a line of `documents.jsonl`, an element of a generation's `documents`."""
    return orjson.dumps(
        {
            "name": document.name,
            "sha256": document.sha256,
            "size": document.size,
            "pages": document.pages,
            "chunks": document.chunks,
            "status": document.status.value,
            "problem": document.problem,
        }
    )


def decode_document(stored: dict[str, Any]) -> Document:
    """Return the document that `encode_document` wrote, given its JSON object."""
    return Document(
        name=stored["name"],
        sha256=stored["sha256"],
        size=stored["size"],
        pages=stored["pages"],
        chunks=stored["chunks"],
        status=_STATUSES[stored["status"]],
        problem=stored["problem"],
    )


# Looked up in a twentieth of the time of `DocumentStatus(value)`: there may be 100,000 documents.
_STATUSES = {status.value: status for status in DocumentStatus}
