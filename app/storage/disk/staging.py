"""The index that a run writes to the disk: the previous one, changed, or a new one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from app.domain.document import Document
from app.storage.chunks import Entry
from app.storage.contract import PreviousIndex, ReusedChunks
from app.storage.disk.self_test import check_answers
from app.storage.disk.shard import ChunkShard
from app.storage.disk.snapshot_store import SnapshotStore, StagedSnapshot
from app.storage.manifest import Manifest

# What the engine maps into memory has no room on the disk before it is written to, and a full disk then
# kills the process (SIGBUS) where a write would fail. So there has to be room for it beforehand: for an index
# of one chunk, 42 MB on a tmpfs, where reading what is mapped takes room, too; 1 MB on ext4.
_RESERVE_BYTES = 96 * 1024 * 1024
# Of a chunk: in the segment that takes it, and at the end in the one that is built of it. Together, 10.7 kB
# with 256 dimensions and 1,000 characters, of 40,000 chunks; with 1,536 dimensions, 20 kB.
_BYTES_A_CHUNK = 5000
_BYTES_A_CHARACTER = 6
_BYTES_A_NUMBER = 2 * 4


class DiskStaging:
    """A snapshot that is being written, with its shard; without chunks, there is none. See `Staging`.

    Args:
        average_length: of the corpus, in tokens; that of the first chunks where it is not known.
    """

    def __init__(
        self, snapshots: SnapshotStore, staged: StagedSnapshot, *, average_length: float | None
    ) -> None:
        self.id = staged.id
        self.built_at = staged.built_at
        self._snapshots = snapshots
        self._staged = staged
        self._average_length = average_length
        self._shard: ChunkShard | None = None
        # Bytes that the disk has to have room for until it is saved.
        self._needed = 0

    def reuse(self, previous: PreviousIndex, reused: ReusedChunks) -> None:
        """Begin with those chunks of an index that are reused; it stays as it is.

        Raises:
            SnapshotDamaged: one of its files is not what it was.
            OSError: the disk is full.
        """
        assert previous.manifest is not None  # noqa: S101 - there is something to reuse
        assert isinstance(previous.chunks, ChunkShard)  # noqa: S101 - a storage is given what it gave
        snapshot = self._snapshots.open(previous.manifest.id)
        # Twice: what is in the copy may all be written anew.
        self._needed = snapshot.bytes_on_disk
        _check_room(self._staged.path, 2 * self._needed)
        snapshot.copy_files(snapshot.store_files, self._staged.path)
        self._shard = ChunkShard.open(self._staged.path)
        kept = set(reused.kept)
        self._shard.delete_documents([each.name for each in previous.documents if each.name not in kept])
        for name, new_name in reused.copied:
            entries = previous.chunks.entries(name)
            self.add([each._replace(chunk=each.chunk.moved(new_name)) for each in entries])

    def add(self, entries: Sequence[Entry]) -> None:
        """Add chunks.

        Raises:
            OSError: the disk is full.
        """
        # What was added needs room once more when it is saved.
        self._needed += sum(map(_bytes_of, entries))
        _check_room(self._staged.path, self._needed)
        if self._shard is None:
            average = self._average_length or sum(each.terms.length for each in entries) / len(entries)
            self._shard = ChunkShard.create(
                self._staged.path, dimensions=len(entries[0].vector), average_length=max(1.0, average)
            )
        self._shard.add(entries)

    def save(self) -> int:
        """Bring the shard to the disk; return how many chunks there are.

        Raises:
            OSError: the disk is full.
        """
        if self._shard is None:
            return 0
        _check_room(self._staged.path, self._needed)
        self._shard.save()
        return self._shard.chunk_count

    def publish(self, manifest: Manifest, documents: list[Document]) -> None:
        """Seal the snapshot, ask it for some of its chunks, and have it served.

        Raises:
            IndexingError: it cannot be loaded, or does not find its chunks.
            OSError: the disk is full.
        """
        # The self-test opens the shard again.
        self.close()
        self._staged.write_documents(documents)
        sealed = self._snapshots.seal(self._staged, manifest)
        with sealed.times_kept():
            check_answers(self._staged.path, chunks=manifest.chunks)
        self._snapshots.publish(self._staged)

    def close(self) -> None:
        """Close the shard, if there is one."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None


def _bytes_of(entry: Entry) -> int:
    """Return how many bytes a chunk takes on the disk, at most, more or less."""
    characters, numbers = len(entry.chunk.text), len(entry.vector)
    return _BYTES_A_CHUNK + _BYTES_A_CHARACTER * characters + _BYTES_A_NUMBER * numbers


def _check_room(folder: Path, needed: int) -> None:
    """Make sure that the disk has room for so many bytes, and a reserve.

    Raises:
        OSError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + _RESERVE_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"{os.strerror(errno.ENOSPC)}: {(needed + _RESERVE_BYTES) / 1e6:.0f} MB are needed, "
            f"and {free / 1e6:.0f} MB are free",
            str(folder),
        )
