"""The index that a run writes: the one before, changed, or a new one."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from app.indexing.changes import Changes
from app.indexing.vectors import ResolvedChunk
from app.snapshots import Snapshot
from app.stores.edge_payloads import moved, payload_of_chunk
from app.stores.edge_shard import ChunkShard, Entry

# What the engine maps into memory has no room on the disk before it is written to, and a full disk then
# kills the process (SIGBUS) where a write would fail. So there has to be room for it beforehand.
_RESERVE_BYTES = 64 * 1024 * 1024
# Of a chunk, twice: in the segment that takes it, and in the one that is built of it.
_BYTES_A_CHUNK = 2 * 2500
_BYTES_A_NUMBER = 2 * 4


class Target:
    """A shard in a directory of its own; without chunks, there is none."""

    def __init__(self, folder: Path, *, average_length: float | None) -> None:
        self._folder = folder
        self._average_length = average_length
        self._shard: ChunkShard | None = None

    def take_over(self, before: Snapshot, shard: ChunkShard, changes: Changes) -> None:
        """Begin with all chunks of an index but those of documents that are gone or will be read again.

        Args:
            shard: of that index, opened; it stays as it is.

        Raises:
            SnapshotDamaged
            OSError: the disk is full.
        """
        # Twice: what is in the copy may all be written anew.
        check_room(self._folder, 2 * _allocated_bytes(before))
        before.copy_files(before.store_files, self._folder)
        self._shard = ChunkShard.open(self._folder)
        kept = {record.name for record in changes.kept}
        self._shard.delete_documents([each.name for each in before.documents() if each.name not in kept])
        for name, file in changes.copied:
            entries = shard.entries(name)
            self._shard.add([each._replace(payload=moved(each.payload, file.name)) for each in entries])

    def add(self, chunks: list[ResolvedChunk]) -> None:
        """
        Raises:
            OSError: the disk is full.
        """
        dimensions = len(chunks[0][1])
        check_room(self._folder, len(chunks) * (_BYTES_A_CHUNK + _BYTES_A_NUMBER * dimensions))
        if self._shard is None:
            average = self._average_length or sum(each.terms.length for each, _ in chunks) / len(chunks)
            self._shard = ChunkShard.create(
                self._folder, dimensions=dimensions, average_length=max(1.0, average)
            )
        self._shard.add([Entry(payload_of_chunk(each.chunk), vector, each.terms) for each, vector in chunks])

    def save(self) -> int:
        """Bring it to the disk; how many chunks there are."""
        if self._shard is None:
            return 0
        self._shard.save()
        return self._shard.chunk_count

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()


def _allocated_bytes(snapshot: Snapshot) -> int:
    """On the disk. The engine's files are mostly holes while an index is small."""
    return sum(512 * (snapshot.path / name).stat().st_blocks for name in snapshot.store_files)


def check_room(folder: Path, needed: int) -> None:
    """
    Raises:
        OSError: the disk has less than that, and a reserve.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + _RESERVE_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"{os.strerror(errno.ENOSPC)}: {(needed + _RESERVE_BYTES) / 1e6:.0f} MB are needed, "
            f"and {free / 1e6:.0f} MB are free",
            str(folder),
        )
