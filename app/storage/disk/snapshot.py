"""A snapshot: checks that it is what was written, and ways to read it."""

from __future__ import annotations

import os
import stat
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import orjson

from app.domain.document import Document
from app.domain.errors import SnapshotDamaged
from app.storage.disk.files import (
    copy_verified,
    damage_if_unreadable,
    in_threads,
    put_back_time,
    read_through,
    status_of,
    verified_blocks,
)
from app.storage.disk.manifest_file import read_manifest
from app.storage.manifest import Manifest
from app.storage.stored_forms import decode_document

DOCUMENTS = "documents.jsonl"

# Of the time, for a scrub: it must not slow down the requests that are answered beside it.
_SCRUB_SHARE = 0.25


class Snapshot:
    """An opened snapshot: its manifest is right and each file has its size; what the files hold is unread.

    `check` is for loading, `verify` for certainty. Its documents can be read to the end, also if it is
    removed meanwhile.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        with damage_if_unreadable(path / DOCUMENTS):
            self._documents = os.open(path / DOCUMENTS, os.O_RDONLY)
        weakref.finalize(self, os.close, self._documents)

    @classmethod
    def open(cls, path: Path, snapshot_id: str) -> Snapshot:
        """Open the snapshot in a directory.

        Raises:
            SnapshotDamaged: a file is missing or has another size, or the manifest is wrong.
        """
        if not path.is_dir():
            raise SnapshotDamaged(f"there is no snapshot {path}: run make reindex")
        manifest = read_manifest(path)
        if manifest.id != snapshot_id:
            raise SnapshotDamaged(f"the snapshot {path} has the manifest of {manifest.id}: run make reindex")
        for name, info in manifest.files.items():
            file = f"{path}/{name}"
            with damage_if_unreadable(file):
                status = status_of(file)
            if not stat.S_ISREG(status.st_mode) or status.st_size != info.size:
                raise SnapshotDamaged(
                    f"{file} has {status.st_size} bytes, and had {info.size} when it was written: "
                    "run make reindex"
                )
        return cls(path, manifest)

    @property
    def store_files(self) -> list[str]:
        """The names of all that a store reads and writes, largest first."""
        names = (name for name in self.manifest.files if name != DOCUMENTS)
        return sorted(names, key=lambda name: -self.manifest.files[name].size)

    @property
    def writable(self) -> bool:
        """True if this process may write to the store's files: the engine opens them for that."""
        names = self.store_files
        folders = {name.rpartition("/")[0] for name in names}
        return all(os.access(f"{self.path}/{name}", os.W_OK) for name in [*names, *folders])

    @property
    def bytes_on_disk(self) -> int:
        """Bytes taken on the disk: less than the sum of the sizes, as many files are mostly holes."""
        return sum(status_of(f"{self.path}/{name}").st_blocks for name in self.manifest.files) * 512

    def check(self) -> None:
        """Hash the files that may have been changed since they were sealed, by their time.

        The others are trusted: hashing everything would take 1 s for 300 MB, twenty times as long as loading.

        Raises:
            SnapshotDamaged: a file is not what it was.
        """
        changed = [name for name in self.manifest.files if not self._has_its_time(name)]
        self.verify(changed)
        for name in changed:
            put_back_time(f"{self.path}/{name}", self.manifest.files[name].mtime_ns)

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Hash files, all of them by default.

        Raises:
            SnapshotDamaged: one is not what it was.
        """
        wanted = self.manifest.files if names is None else names
        in_threads(self._verify_file, sorted(wanted, key=lambda name: -self.manifest.files[name].size))

    def scrub(self, stopped: threading.Event) -> None:
        """Hash everything, unhurriedly: a disk that fails changes no file's time.

        Raises:
            SnapshotDamaged: a file is not what it was.
        """
        for name, info in self.manifest.files.items():
            started = time.monotonic()
            for _ in verified_blocks(self.path / name, info.digest):
                if stopped.wait((time.monotonic() - started) * (1 / _SCRUB_SHARE - 1)):
                    return
                started = time.monotonic()

    def warm(self) -> None:
        """Read the store's files into memory, so that the engine need not wait for the disk.

        It keeps Python's lock while it loads a shard: at 100,000 chunks 60 ms, but 300 ms from a disk. And
        it takes a shard's files out of memory when it closes it, which the test of a new index ends with.

        Raises:
            SnapshotDamaged: a file cannot be read.
        """
        in_threads(lambda name: read_through(self.path / name), self.store_files)

    @contextmanager
    def times_kept(self) -> Iterator[None]:
        """Put back the times of the files that the engine touches when it loads and closes a shard.

        It rewrites some with the content that they had. Those that had another time before are left alone.
        """
        kept = [name for name in self.manifest.files if self._has_its_time(name)]
        try:
            yield
        finally:
            for name in kept:
                put_back_time(f"{self.path}/{name}", self.manifest.files[name].mtime_ns)

    def copy_files(self, names: Iterable[str], destination: Path) -> None:
        """Copy files into a directory, each verified in the same reading.

        Raises:
            SnapshotDamaged: a file is not what it was; what was copied stays.
        """
        wanted = list(names)
        for folder in {(destination / name).parent for name in wanted}:
            folder.mkdir(parents=True, exist_ok=True)
        in_threads(
            lambda name: copy_verified(
                self.path / name, self.manifest.files[name].digest, destination / name
            ),
            wanted,
        )

    def documents(self) -> Iterator[Document]:
        """Yield the documents, by name."""
        for line in BytesIO(os.pread(self._documents, os.fstat(self._documents).st_size, 0)):
            yield decode_document(orjson.loads(line))

    def _has_its_time(self, name: str) -> bool:
        try:
            return status_of(f"{self.path}/{name}").st_mtime_ns == self.manifest.files[name].mtime_ns
        except OSError:
            return False

    def _verify_file(self, name: str) -> None:
        for _ in verified_blocks(self.path / name, self.manifest.files[name].digest):
            pass
