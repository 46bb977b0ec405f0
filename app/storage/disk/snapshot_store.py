"""The index's directory: its snapshots, which of them is served, and one writer at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from app.domain.document import Document
from app.domain.errors import IndexReadOnly, SnapshotDamaged
from app.storage.disk.current import Current
from app.storage.disk.files import flush_and_digest, in_threads, status_of, sync_folder
from app.storage.disk.lock import writer_lock
from app.storage.disk.manifest_file import write_manifest
from app.storage.disk.snapshot import DOCUMENTS, Snapshot
from app.storage.ids import ID, candidates, next_id, rollback_target
from app.storage.manifest import FileInfo, IndexSummary, Manifest
from app.storage.stored_forms import encode_document

_STAGING = ".staging-"
_REMOVING = ".removing-"

# Of each file below a snapshot's directory: path, inode, size, time of its content and of its status.
Signature = tuple[tuple[str, int, int, int, int], ...]


class StagedSnapshot:
    """A snapshot that is being written; nobody reads it before `SnapshotStore.publish`."""

    def __init__(self, snapshot_id: str, path: Path) -> None:
        self.id = snapshot_id
        self.path = path
        self.built_at = datetime.now(UTC).isoformat(timespec="seconds")

    def write_documents(self, documents: list[Document]) -> None:
        with (self.path / DOCUMENTS).open("wb") as lines:
            lines.writelines(encode_document(document) + b"\n" for document in documents)

    def folders(self) -> list[Path]:
        return [*(path for path in self.path.rglob("*") if path.is_dir()), self.path]


class SnapshotStore:
    """The snapshots below an index's directory.

    Args:
        keep: how many of the newest are kept.
    """

    def __init__(self, root: Path, *, keep: int) -> None:
        self._root = root
        self._snapshots = root / "snapshots"
        self._current = Current(root)
        self._keep = keep

    def current_id(self) -> str | None:
        """Return the snapshot that is to be served; None where none was ever published.

        Raises:
            SnapshotDamaged: `CURRENT` cannot be read, or does not hold an id.
        """
        return self._current.read()

    def current_if_any(self) -> str | None:
        """Return the snapshot that is to be served; None also where `CURRENT` is damaged."""
        try:
            return self.current_id()
        except SnapshotDamaged:
            return None

    def ids(self) -> list[str]:
        """Return the ids of all snapshots that are there, damaged or not, oldest first."""
        if not self._snapshots.is_dir():
            return []
        return sorted(path.name for path in self._snapshots.iterdir() if ID.fullmatch(path.name))

    def candidates(self) -> list[str]:
        """Return the ids in the order in which they stand in for each other when one is damaged."""
        return candidates(self.ids(), self.current_if_any())

    def open(self, snapshot_id: str) -> Snapshot:
        """Open a snapshot whose manifest is right and whose files have their sizes; none of them is read.

        Raises:
            SnapshotDamaged: it is not so.
        """
        # Resolved once: where the directories are links, as in a Kubernetes volume, all is read from one.
        return Snapshot.open((self._snapshots / snapshot_id).resolve(), snapshot_id)

    def intact(self) -> Iterator[Snapshot]:
        """Yield the candidates that pass `Snapshot.check`, opened one by one."""
        for snapshot_id in self.candidates():
            try:
                snapshot = self.open(snapshot_id)
                snapshot.check()
            except SnapshotDamaged:
                continue
            yield snapshot

    def summaries(self) -> list[IndexSummary]:
        """Describe all snapshots, newest first."""
        current = self.current_if_any()
        return [self._summary(snapshot_id, current) for snapshot_id in reversed(self.ids())]

    def _summary(self, snapshot_id: str, current: str | None) -> IndexSummary:
        summary = IndexSummary(id=snapshot_id, current=snapshot_id == current)
        try:
            snapshot = self.open(snapshot_id)
            manifest = snapshot.manifest
            summary.built_at, summary.embedding = manifest.built_at, manifest.embedding
            summary.documents, summary.chunks = manifest.documents, manifest.chunks
            summary.bytes = snapshot.bytes_on_disk
            snapshot.check()
        except SnapshotDamaged as damage:
            summary.problem = str(damage)
        return summary

    def signature(self, snapshot_id: str) -> Signature:
        """Return what changes whenever anything of a snapshot does; empty where there is none."""
        folder = self._snapshots / snapshot_id
        found = []
        for parent, _, names in os.walk(folder):
            for name in names:
                path = f"{parent}/{name}"
                with suppress(OSError):  # gone since
                    status = status_of(path)
                    found.append(
                        (path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                    )
        return tuple(sorted(found))

    def check_writable(self) -> None:
        """Make sure that an index can be built here.

        Raises:
            IndexReadOnly: it cannot.
        """
        for folder in (self._snapshots, self._root, *self._root.absolute().parents):
            if folder.exists():
                if os.access(folder, os.W_OK):
                    return
                break
        raise IndexReadOnly(
            f"there is no index in {self._root}, and it is read-only: run make reindex where it can be "
            "written, or mount it writable"
        )

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Be the only writer, and remove what a writer that was killed left over.

        Raises:
            IndexLocked: somebody else is; says who.
        """
        self._snapshots.mkdir(parents=True, exist_ok=True)
        with writer_lock(self._root):
            self._remove_leftovers()
            yield

    @contextmanager
    def stage(self) -> Iterator[StagedSnapshot]:
        """Make a directory for a new snapshot; it is removed unless that gets published. For the writer."""
        snapshot_id = next_id(self.ids())
        path = self._snapshots / f"{_STAGING}{snapshot_id}"
        path.mkdir()
        try:
            yield StagedSnapshot(snapshot_id, path)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def seal(self, staging: StagedSnapshot, manifest: Manifest) -> Snapshot:
        """Bring a finished snapshot to the disk, hash it, and write its manifest.

        The snapshot can be loaded and asked before it is published, not after.
        """
        files = {
            path.relative_to(staging.path).as_posix(): path
            for path in sorted(staging.path.rglob("*"))
            if path.is_file()
        }
        infos = in_threads(lambda name: _sealed(files[name]), files)
        manifest = replace(manifest, files=dict(zip(files, infos, strict=True)))
        write_manifest(staging.path, manifest)
        return Snapshot(staging.path, manifest)

    def publish(self, staging: StagedSnapshot) -> None:
        """Make a sealed snapshot the one that is served, and remove those that are too old to keep.

        Those that were never served, or that were rolled back, go first.
        """
        kept = [staging.id, *self.candidates()]
        in_threads(sync_folder, staging.folders())
        self._current.prepare(staging.id)
        staging.path.rename(self._snapshots / staging.id)
        sync_folder(self._snapshots)
        self._current.replace()
        self._keep_only(kept)

    def prune(self) -> None:
        """Remove what is too old to keep. For the writer only, and if the served snapshot is intact."""
        self._keep_only(self.candidates())

    def find_for_rollback(self, snapshot_id: str | None = None) -> Snapshot:
        """Open the snapshot to go back to, every file of it verified. For the writer only.

        Args:
            snapshot_id: by default the newest that is older than the served one.

        Raises:
            SnapshotNotFound: there is none such; names those there are.
            SnapshotDamaged: it is damaged, or `CURRENT` is and no id was given.
        """
        ids = self.ids()
        current = self.current_id() if snapshot_id is None else None
        snapshot = self.open(rollback_target(snapshot_id, ids, current))
        snapshot.verify()
        return snapshot

    def point_to(self, snapshot_id: str) -> None:
        """Serve a snapshot that is there. For the writer only."""
        self._current.prepare(snapshot_id)
        self._current.replace()

    def _keep_only(self, best_first: list[str]) -> None:
        for snapshot_id in set(self.ids()).difference(best_first[: self._keep]):
            # Renamed first: half a snapshot must not look like one.
            removing = self._snapshots / f"{_REMOVING}{snapshot_id}"
            (self._snapshots / snapshot_id).rename(removing)
            shutil.rmtree(removing, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for pattern in (f"{_STAGING}*", f"{_REMOVING}*"):
            for path in self._snapshots.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)
        self._current.remove_left_over()


def _sealed(path: Path) -> FileInfo:
    status, digest = flush_and_digest(path)
    return FileInfo(size=status.st_size, digest=digest, mtime_ns=status.st_mtime_ns)
