"""`CURRENT`: the file that names the snapshot that is served."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from app.domain.errors import IndexingError, SnapshotDamaged
from app.storage.disk.files import read_all, sync_folder, write_synced
from app.storage.ids import ID


class Current:
    """The file, replaced as a whole: a reader finds the old id or the new one, also after a crash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "CURRENT"
        self._next = folder / "CURRENT.next"

    def read(self) -> str | None:
        """Return the id; None where none was ever published.

        Raises:
            SnapshotDamaged: the file cannot be read, or does not hold an id.
        """
        if not os.path.lexists(self._path):
            return None
        snapshot_id = read_all(self._path).decode("ascii", "replace").strip()
        if not ID.fullmatch(snapshot_id):
            raise SnapshotDamaged(f"{self._path} does not name a snapshot: run make reindex")
        return snapshot_id

    def prepare(self, snapshot_id: str) -> None:
        """Do all that needs room on the disk: `replace` only changes names."""
        if self._path.is_dir() and not self._path.is_symlink():
            self._remove_empty_folder()
        write_synced(self._next, f"{snapshot_id}\n".encode())

    def replace(self) -> None:
        self._next.replace(self._path)
        sync_folder(self._folder)

    def remove_left_over(self) -> None:
        self._next.unlink(missing_ok=True)

    def _remove_empty_folder(self) -> None:
        """Remove a folder that a container left where it was to mount a file that was not there."""
        try:
            self._path.rmdir()
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}:
                raise
            raise IndexingError(f"{self._path} is a folder, and has to be a file: remove it") from None
