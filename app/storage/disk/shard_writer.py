"""The index that a run writes: the one before, changed, or a new one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from app.storage.chunks import Entry
from app.storage.contract import ReusedChunks
from app.storage.disk.shard import ChunkShard
from app.storage.disk.snapshot import Snapshot

# What the engine maps into memory has no room on the disk before it is written to, and a full disk then
# kills the process (SIGBUS) where a write would fail. So there has to be room for it beforehand: for an index
# of one chunk, 42 MB on a tmpfs, where reading what is mapped takes room, too; 1 MB on ext4.
_RESERVE_BYTES = 96 * 1024 * 1024
# Of a chunk: in the segment that takes it, and at the end in the one that is built of it. Together, 10.7 kB
# with 256 dimensions and 1,000 characters, of 40,000 chunks; with 1,536 dimensions, 20 kB.
_BYTES_A_CHUNK = 5000
_BYTES_A_CHARACTER = 6
_BYTES_A_NUMBER = 2 * 4


class ShardWriter:
    """A shard in a directory of its own; without chunks, there is none."""

    def __init__(self, folder: Path, *, average_length: float | None) -> None:
        self._folder = folder
        self._average_length = average_length
        self._shard: ChunkShard | None = None
        # What the disk has to have room for until it is saved.
        self._needed = 0

    def reuse(self, previous: Snapshot, shard: ChunkShard, reused: ReusedChunks) -> None:
        """Begin with those chunks of an index that are reused.

        Args:
            shard: of that index, opened; it stays as it is.

        Raises:
            SnapshotDamaged
            OSError: the disk is full.
        """
        # Twice: what is in the copy may all be written anew.
        self._needed = previous.bytes_on_disk
        check_room(self._folder, 2 * self._needed)
        previous.copy_files(previous.store_files, self._folder)
        self._shard = ChunkShard.open(self._folder)
        kept = set(reused.kept)
        self._shard.delete_documents([each.name for each in previous.documents() if each.name not in kept])
        for name, new_name in reused.copied:
            entries = [each._replace(chunk=each.chunk.moved(new_name)) for each in shard.entries(name)]
            self._make_room(entries)
            self._shard.add(entries)

    def add(self, entries: Sequence[Entry]) -> None:
        """
        Raises:
            OSError: the disk is full.
        """
        self._make_room(entries)
        if self._shard is None:
            average = self._average_length or sum(each.terms.length for each in entries) / len(entries)
            self._shard = ChunkShard.create(
                self._folder, dimensions=len(entries[0].vector), average_length=max(1.0, average)
            )
        self._shard.add(entries)

    def save(self) -> int:
        """Bring it to the disk; how many chunks there are.

        Raises:
            OSError: the disk is full.
        """
        if self._shard is None:
            return 0
        check_room(self._folder, self._needed)
        self._shard.save()
        return self._shard.chunk_count

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _make_room(self, entries: Sequence[Entry]) -> None:
        """For these too, before they are added; what was added needs room once more when it is saved."""
        self._needed += sum(
            _BYTES_A_CHUNK + _BYTES_A_CHARACTER * len(each.chunk.text) + _BYTES_A_NUMBER * len(each.vector)
            for each in entries
        )
        check_room(self._folder, self._needed)


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
