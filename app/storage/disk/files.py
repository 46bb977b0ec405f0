"""Files whose content must stay what it is: flushed, hashed, read, copied.

A file's digest is BLAKE3 (3.5 GB/s here, SHA-256 0.2) over its blocks that are not zero, each after
its offset. The engine's files are mostly holes, 140 MB with 1 MB of data in them at 1,000 chunks, and hashing
zeros takes as long as hashing anything else. Whether they are stored makes no difference to the digest; sizes
are compared by themselves.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from blake3 import blake3

from app.domain.errors import SnapshotDamaged

# Hashing and reading release Python's lock, so that threads help.
_THREADS = min(4, os.cpu_count() or 1)
_BLOCK = 64 * 1024
_ZEROS = bytes(_BLOCK)

# What a path that is not (or not well) there gives. Others, such as too many open files, are no damage.
_UNREADABLE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
}

S = TypeVar("S")
T = TypeVar("T")


def in_threads(work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Return the results of work done in threads, in order; the first error ends it."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(work, items))


@contextmanager
def damage_if_unreadable(path: Path | str) -> Iterator[None]:
    """Take it for damage that a file of a snapshot cannot be read.

    Raises:
        SnapshotDamaged: it is missing, or this process may not read it, or its disk fails.
        OSError: anything else, such as too many open files.
    """
    try:
        yield
    except FileNotFoundError:
        raise SnapshotDamaged(f"{path} is missing: run make reindex") from None
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        raise SnapshotDamaged(f"{path} cannot be read ({error.strerror}): run make reindex") from error


def status_of(path: str) -> os.stat_result:
    """`Path.stat` for many: making the paths alone would take 3 ms for the files of a snapshot."""
    return os.stat(path)  # noqa: PTH116


def read_all(path: Path) -> bytes:
    """Read a file of a snapshot.

    Raises:
        SnapshotDamaged: it cannot be read.
    """
    with damage_if_unreadable(path):
        return path.read_bytes()


def verified_blocks(path: Path, digest: str) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of a file that are not zero, with their offsets, and check them at the end.

    Raises:
        SnapshotDamaged: the file has another digest, or cannot be read.
    """
    found = blake3()
    with damage_if_unreadable(path), path.open("rb") as stream:
        for offset, block in _data_blocks(stream):
            _add(found, offset, block)
            yield offset, block
    if found.hexdigest() != digest:
        raise SnapshotDamaged(f"{path} has another content than when it was written: run make reindex")


def read_through(path: Path) -> None:
    """Bring a file from the disk into memory."""
    with damage_if_unreadable(path), path.open("rb") as stream:
        for _ in _data_blocks(stream):
            pass


def copy_verified(source: Path, digest: str, target: Path) -> None:
    """Copy and check in one reading; what was not stored for being zero is not stored in the copy either."""
    with target.open("xb") as stream:
        for offset, block in verified_blocks(source, digest):
            stream.seek(offset)
            stream.write(block)
        stream.truncate(source.stat().st_size)


def flush_and_digest(path: Path) -> tuple[os.stat_result, str]:
    """Bring a file to the disk; return its status then, and the digest of its content."""
    digest = blake3()
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        for offset, block in _data_blocks(stream):
            _add(digest, offset, block)
        return os.fstat(stream.fileno()), digest.hexdigest()


def _add(digest: blake3, offset: int, block: bytes) -> None:
    digest.update(offset.to_bytes(8, "big"))
    digest.update(block)


def _data_blocks(stream: BufferedReader) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while True:
        try:
            offset = os.lseek(stream.fileno(), offset, os.SEEK_DATA) // _BLOCK * _BLOCK
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        stream.seek(offset)
        block = stream.read(_BLOCK)
        if block != _ZEROS[: len(block)]:
            yield offset, block
        offset += _BLOCK


def write_synced(path: Path, content: bytes) -> None:
    """Write a file, and wait until its content is on the disk."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_back_time(path: str, mtime_ns: int) -> None:
    """Set a file's time; where that is not allowed, the file is hashed at the next load."""
    with suppress(OSError):
        status = status_of(path)
        if status.st_mtime_ns != mtime_ns:
            os.utime(path, ns=(status.st_atime_ns, mtime_ns))
