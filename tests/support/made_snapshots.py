"""Snapshots of a few small files, for tests that need no engine."""

from __future__ import annotations

import os
from pathlib import Path

from app.domain.chunk import ChunkUnit
from app.domain.document import Document, DocumentStatus
from app.domain.fingerprint import Fingerprint
from app.storage.disk.snapshot_store import SnapshotStore, StagedSnapshot
from app.storage.manifest import Manifest
from app.text.chunking import Chunking

RECORD = Document(
    name="a \u2028 b.md",
    sha256="0",
    size=1,
    pages=None,
    chunks=1,
    status=DocumentStatus.INDEXED,
    problem=None,
)


def manifest_of(staging: StagedSnapshot) -> Manifest:
    return Manifest(
        id=staging.id,
        built_at=staging.built_at,
        engine="test",
        reader="test 1",
        embedding=Fingerprint(provider="local", model="test", dimensions=3),
        chunking=Chunking(1000, 100, ChunkUnit.CHARACTERS),
        documents=1,
        unread_documents=0,
        chunks=1,
    )


def fill(staging: StagedSnapshot, content: str = "content") -> None:
    (staging.path / "engine" / "segment").mkdir(parents=True)
    (staging.path / "engine" / "segment" / "data").write_text(content)
    with (staging.path / "engine" / "sparse").open("wb") as sparse:
        sparse.write(b"first")
        sparse.seek(3_000_000)
        sparse.write(content.encode())
        sparse.truncate(5_000_000)
    (staging.path / "engine" / "empty").touch()
    staging.write_documents([RECORD])


def publish(store: SnapshotStore, content: str = "content") -> str:
    """Publish a snapshot that contains `content`, and return its id."""
    with store.writer(), store.stage() as staging:
        fill(staging, content)
        store.seal(staging, manifest_of(staging))
        store.publish(staging)
    return staging.id


def folder_of(root: Path, snapshot_id: str) -> Path:
    return root / "snapshots" / snapshot_id


def flip(path: Path) -> None:
    """Change a byte in the middle of a file."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    # The file system's clock may not have advanced since the file was written.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10_000_000))


def flip_unseen(path: Path) -> None:
    """Change a byte but keep size and times, like a failing disk."""
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
