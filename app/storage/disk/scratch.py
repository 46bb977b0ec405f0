"""Copies of snapshots that must not be written to, from which the engine can load them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from app.domain.errors import IndexingError
from app.storage.disk.snapshot import Snapshot

_PREFIX = "rag-index-"
# The engine writes some small files of a shard again when it loads it.
_ROOM_TO_LOAD_BYTES = 1024 * 1024


class Scratch:
    """Copies of snapshots, each locked by the process that uses it, so that those of dead ones are known.

    Args:
        folder: the system's folder for temporary files where not given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._given = folder

    @property
    def _folder(self) -> Path:
        return self._given or Path(tempfile.gettempdir())

    @contextmanager
    def loadable(self, snapshot: Snapshot) -> Iterator[Path]:
        """Give a directory with a checked snapshot that the engine can load: its own, or a copy.

        A copy is made where nothing can be written, also for want of room. It is removed at the end, at the
        latest with the process.

        Raises:
            SnapshotDamaged: a file of the snapshot is not what it was.
            IndexingError: there is no room for the copy.
        """
        if snapshot.writable and shutil.disk_usage(snapshot.path).free >= _ROOM_TO_LOAD_BYTES:
            snapshot.check()
            yield snapshot.path
            return
        with self._locked_folder(snapshot) as copy:
            try:
                snapshot.copy_files(snapshot.manifest.files, copy)
            except OSError as error:
                raise self._unusable(snapshot, error) from error
            yield copy

    def remove_left_over(self) -> None:
        """Remove the copies of processes that were killed."""
        for path in self._folder.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # of another user, for one
                if (lock := _lock(path)) is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(lock)

    @contextmanager
    def _locked_folder(self, snapshot: Snapshot) -> Iterator[Path]:
        try:
            folder, lock = self._make_folder()
        except OSError as error:
            raise self._unusable(snapshot, error) from error
        try:
            with folder:
                yield Path(folder.name)
        finally:
            os.close(lock)

    def _make_folder(self) -> tuple[tempfile.TemporaryDirectory[str], int]:
        while True:
            folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=self._folder, ignore_cleanup_errors=True)
            # A server that starts may have taken it for a left-over until here.
            if (lock := _lock(Path(folder.name))) is not None:
                return folder, lock

    def _unusable(self, snapshot: Snapshot, error: OSError) -> IndexingError:
        needed = snapshot.bytes_on_disk / 1e6
        return IndexingError(
            f"{snapshot.path} is read-only, and {self._folder} does not take a copy of {needed:.0f} MB "
            f"({error.strerror}): set SCRATCH_DIR to a folder with room"
        )


def _lock(path: Path) -> int | None:
    """Lock a folder for this process; return its descriptor, or None where it is in use or gone."""
    with suppress(FileNotFoundError), ExitStack() as opened:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        opened.callback(os.close, descriptor)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.stat()  # who held the lock may have removed it
            opened.pop_all()
            return descriptor
    return None
