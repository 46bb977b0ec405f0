"""Snapshots on disk: immutable index directories, the one that is served, and the writer's lock.

    index_storage/
        CURRENT                  the id of the snapshot that is served
        writer.lock              locked while an index is written; says by whom
        snapshots/<id>/          complete and never changed again; its manifest.json is written last
        snapshots/.staging-<id>/ being written, or left over by a writer that died

Readers take no lock. A crash at any point leaves the old index or the new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ValidationError

from app.embeddings.fingerprint import Fingerprint
from app.errors import IndexLocked, SnapshotDamaged
from app.schemas import DocumentRecord
from app.settings import ChunkUnit

SCHEMA_VERSION = 1

_MANIFEST = "manifest.json"
_DOCUMENTS = "documents.jsonl"
_STAGING = ".staging-"
_TIME = "%Y%m%dT%H%M%SZ"
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
_REBUILD = "run make reindex"


class FileInfo(BaseModel):
    size: int
    sha256: str


class ChunkingInfo(BaseModel):
    size: int
    overlap: int
    unit: ChunkUnit


class Manifest(BaseModel):
    """What a snapshot is made of."""

    schema_version: int = SCHEMA_VERSION
    id: str
    built_at: str
    engine: str
    embedding: Fingerprint
    chunking: ChunkingInfo
    documents: int
    unread_documents: int
    chunks: int
    files: dict[str, FileInfo] = {}


class Snapshot:
    """An opened snapshot. It can be read to its end, also if it is removed meanwhile."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._documents = os.open(path / _DOCUMENTS, os.O_RDONLY)
        weakref.finalize(self, os.close, self._documents)

    def documents_json(self) -> bytes:
        """A JSON array of `DocumentRecord`."""
        lines = os.pread(self._documents, os.fstat(self._documents).st_size, 0)
        return b"[" + b",".join(lines.splitlines()) + b"]"


class Staging:
    """A snapshot that is being written; nobody reads it before `SnapshotStore.publish`."""

    def __init__(self, snapshot_id: str, path: Path) -> None:
        self.id = snapshot_id
        self.path = path
        self.built_at = datetime.now(UTC).isoformat(timespec="seconds")

    def write_documents(self, records: list[DocumentRecord]) -> None:
        with (self.path / _DOCUMENTS).open("w", encoding="utf-8") as lines:
            lines.writelines(f"{record.model_dump_json()}\n" for record in records)


class SnapshotStore:
    def __init__(self, root: Path, *, keep: int) -> None:
        self._root = root
        self._snapshots = root / "snapshots"
        self._current = root / "CURRENT"
        self._keep = keep

    def current_id(self) -> str | None:
        """The snapshot that is to be served; None where none was ever published.

        Raises:
            SnapshotDamaged: `CURRENT` does not hold an id.
        """
        try:
            snapshot_id = self._current.read_bytes().decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        if not _ID.fullmatch(snapshot_id):
            raise SnapshotDamaged(f"{self._current} does not name a snapshot: {_REBUILD}")
        return snapshot_id

    def open(self, snapshot_id: str) -> Snapshot:
        """Find a snapshot and check that it is whole: the manifest can be read, and every file has its size.

        Raises:
            SnapshotDamaged: it is not.
        """
        path = self._snapshots / snapshot_id
        try:
            manifest = Manifest.model_validate_json((path / _MANIFEST).read_bytes())
        except FileNotFoundError:
            raise SnapshotDamaged(f"the snapshot {path} has no {_MANIFEST}: {_REBUILD}") from None
        except ValidationError:
            raise SnapshotDamaged(f"{path / _MANIFEST} cannot be understood: {_REBUILD}") from None
        if manifest.schema_version != SCHEMA_VERSION:
            raise SnapshotDamaged(
                f"the snapshot {path} has layout {manifest.schema_version}, and this version reads "
                f"{SCHEMA_VERSION}: {_REBUILD}"
            )
        for name, info in manifest.files.items():
            file = path / name
            if not file.is_file() or file.stat().st_size != info.size:
                raise SnapshotDamaged(
                    f"{file} is missing or has another size than when it was written: {_REBUILD}"
                )
        return Snapshot(path, manifest)

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Be the only writer; the lock goes away with its process, however that ends.

        Raises:
            IndexLocked: somebody else is; says who.
        """
        self._snapshots.mkdir(parents=True, exist_ok=True)
        with (self._root / "writer.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                raise IndexLocked(
                    f"the index in {self._root} is being written by {holder}: wait for it to end"
                ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
            self._remove_leftovers()
            yield

    @contextmanager
    def stage(self) -> Iterator[Staging]:
        """A directory to write a snapshot into; removed unless it gets published. For the writer only."""
        snapshot_id = self._next_id()
        path = self._snapshots / f"{_STAGING}{snapshot_id}"
        path.mkdir()
        try:
            yield Staging(snapshot_id, path)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def publish(self, staging: Staging, manifest: Manifest) -> None:
        """Make a staged snapshot the one that is served, and remove those that are too old to keep."""
        files = sorted(path for path in staging.path.rglob("*") if path.is_file())
        manifest.files = {path.relative_to(staging.path).as_posix(): _seal(path) for path in files}
        (staging.path / _MANIFEST).write_text(manifest.model_dump_json(indent=2))
        _sync(staging.path / _MANIFEST)
        for folder in [*(path for path in staging.path.rglob("*") if path.is_dir()), staging.path]:
            _sync(folder)
        staging.path.rename(self._snapshots / staging.id)
        _sync(self._snapshots)
        self._point_to(staging.id)
        self._prune(staging.id)

    def _point_to(self, snapshot_id: str) -> None:
        following = self._root / "CURRENT.next"
        following.write_text(f"{snapshot_id}\n")
        _sync(following)
        following.replace(self._current)
        _sync(self._root)

    def _next_id(self) -> str:
        """Later than all others, also within a second or after the clock was set back: ids tell the order."""
        now = datetime.now(UTC)
        if ids := self._ids():
            newest = datetime.strptime(ids[-1].split("-")[0], _TIME).replace(tzinfo=UTC)
            now = max(now, newest + timedelta(seconds=1))
        return f"{now:{_TIME}}-{secrets.token_hex(3)}"

    def _ids(self) -> list[str]:
        return sorted(path.name for path in self._snapshots.iterdir() if _ID.fullmatch(path.name))

    def _prune(self, current: str) -> None:
        ids = self._ids()
        for snapshot_id in [other for other in ids if other != current][: -(self._keep - 1) or None]:
            shutil.rmtree(self._snapshots / snapshot_id, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for path in self._snapshots.glob(f"{_STAGING}*"):
            shutil.rmtree(path, ignore_errors=True)


def _seal(path: Path) -> FileInfo:
    """Flush a file to the disk, and tell its size and hash."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return FileInfo(size=path.stat().st_size, sha256=digest)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
