"""The manifest of an index: the settings it was built with, its counts, and its files where it has any."""

from __future__ import annotations

from pydantic import BaseModel

from app.domain.chunk import ChunkUnit
from app.domain.fingerprint import Fingerprint

SCHEMA_VERSION = 2
REBUILD = "run make reindex"


class FileInfo(BaseModel):
    """A file as it was when it was sealed.

    Attributes:
        digest: see `app.storage.disk.files`.
        mtime_ns: tells whether anybody has written to it since.
    """

    size: int
    digest: str
    mtime_ns: int


class ChunkingInfo(BaseModel):
    size: int
    overlap: int
    unit: ChunkUnit


class Manifest(BaseModel):
    """What a snapshot is made of.

    Attributes:
        reader: the parser and the rules that made the text of the documents.
        files: by their path in the snapshot; all but the manifest itself and its checksum.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    built_at: str
    engine: str
    reader: str = ""
    embedding: Fingerprint
    chunking: ChunkingInfo
    documents: int
    unread_documents: int
    chunks: int
    files: dict[str, FileInfo] = {}


class SnapshotSummary(BaseModel):
    """A line of the list of snapshots; with a problem, only the id is sure to be known."""

    id: str
    current: bool
    built_at: str | None = None
    documents: int | None = None
    chunks: int | None = None
    embedding: Fingerprint | None = None
    bytes: int | None = None
    problem: str | None = None

    def __str__(self) -> str:
        served = " (served)" if self.current else ""
        if self.problem is not None:
            return f"{self.id}{served}  damaged: {self.problem}"
        size = f"{self.documents:,} documents, {self.chunks:,} chunks, {(self.bytes or 0) / 1e6:,.1f} MB"
        return f"{self.id}{served}  {size}, {self.embedding}"
