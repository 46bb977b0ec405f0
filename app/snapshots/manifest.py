"""`manifest.json`: what a snapshot is made of, and its own checksum beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ValidationError

from app.domain.chunk import ChunkUnit
from app.domain.errors import SnapshotDamaged
from app.domain.fingerprint import Fingerprint
from app.snapshots.files import read_all, write_synced

SCHEMA_VERSION = 2
REBUILD = "run make reindex"

_MANIFEST = "manifest.json"
# As `sha256sum --check` reads it.
_CHECKSUM = "manifest.sha256"


class FileInfo(BaseModel):
    """A file as it was when it was sealed.

    Attributes:
        digest: see `app.snapshots.files`.
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


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The manifest is written last: a snapshot without one was never finished."""
    content = manifest.model_dump_json(indent=2).encode()
    write_synced(folder / _CHECKSUM, f"{_digest(content)}  {_MANIFEST}\n".encode())
    write_synced(folder / _MANIFEST, content)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a snapshot, exactly as it was written.

    Raises:
        SnapshotDamaged: it is not, or it is one of another version of this service.
    """
    path = folder / _MANIFEST
    content = read_all(path)
    if not (folder / _CHECKSUM).exists():
        _check_layout(folder, content)
    if read_all(folder / _CHECKSUM).split() != [_digest(content).encode(), _MANIFEST.encode()]:
        raise SnapshotDamaged(f"{path} is not as it was written: {REBUILD}")
    _check_layout(folder, content)
    try:
        return Manifest.model_validate_json(content)
    except ValidationError:
        raise SnapshotDamaged(f"{path} cannot be understood: {REBUILD}") from None


def _check_layout(folder: Path, content: bytes) -> None:
    try:
        layout = json.loads(content)["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise SnapshotDamaged(f"{folder / _MANIFEST} cannot be understood: {REBUILD}") from None
    if layout != SCHEMA_VERSION:
        raise SnapshotDamaged(
            f"the snapshot {folder} has layout {layout}, and this version reads {SCHEMA_VERSION}: {REBUILD}"
        )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
