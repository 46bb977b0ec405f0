"""Vectors that a provider was paid for: a run that fails or is killed leaves them to the next.

In SQLite, which survives a `kill -9` at any moment and comes with Python. There is one writer at a time: who
holds the index's lock.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import numpy as np

from app.domain.errors import IndexingError
from app.domain.vectors import Vector

# A file is ours if it has this table and nothing else. Ids grow with age; SQLite itself does not notice a
# flipped bit in a value, so there is a checksum.
_TABLE = (
    "CREATE TABLE vectors (id INTEGER PRIMARY KEY, scope TEXT NOT NULL, hash BLOB NOT NULL, "
    "checksum INTEGER NOT NULL, vector BLOB NOT NULL, UNIQUE (scope, hash))"
)
# Old versions of SQLite take 999 parameters.
_HASHES_AT_ONCE = 500
# What is moved goes through the write-ahead log: 16 MB at a time.
_PAGES_AT_ONCE = 4096
# The last one complains of a statement; since those do not vary, it is the file's tables that do not fit.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
# The second one, where SQLite quotes what once was a name.
_ERRORS = (sqlite3.DatabaseError, UnicodeDecodeError)

T = TypeVar("T")

logger = logging.getLogger(__name__)


def cache_scope(provider: str, model: str, base_url: str) -> str:
    """Return whose vectors they are; of an address only server and path, since its query may hold a key."""
    address = urlsplit(base_url)
    return f"{provider}/{model}@{address.scheme}://{address.netloc}{address.path.rstrip('/')}"


class EmbeddingCache:
    """Vectors by scope and hash of the text, for the thread that opened them.

    A file that is damaged, or none of ours, is replaced by an empty one.

    Args:
        read_only: leaves no trace on the disk, not even for a moment. What a killed run wrote last, about
            4 MB, is not seen then; and where there is no intact file, nothing is known.

    Raises:
        IndexingError: the file cannot be opened; in every method, if it cannot be read or written.
        OSError: the disk is full.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        with _errors_as_ours(path):
            self._connection = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def known(self, scope: str, hashes: Iterable[bytes]) -> set[bytes]:
        """Return the hashes of those texts that have a vector."""
        wanted = set(hashes)
        # In a damaged file, there may be others.
        return wanted.intersection(hash_ for (hash_,) in self._select("hash", scope, wanted))

    def get(self, scope: str, hashes: Iterable[bytes]) -> dict[bytes, Vector]:
        """Return the vectors of those texts that have one, as read-only arrays."""
        wanted = set(hashes)
        return {
            hash_: np.frombuffer(vector, dtype="<f4")
            for hash_, checksum, vector in self._select("hash, checksum, vector", scope, wanted)
            if hash_ in wanted and isinstance(vector, bytes) and checksum == _checksum(scope, hash_, vector)
        }

    def put(self, scope: str, items: Iterable[tuple[bytes, Vector]]) -> None:
        """Keep vectors, all or none of them; a text's later vector replaces its earlier one."""
        blobs = [(hash_, np.asarray(vector, dtype="<f4").tobytes()) for hash_, vector in items]
        rows = [(scope, hash_, _checksum(scope, hash_, vector), vector) for hash_, vector in blobs]

        def insert(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany(
                    "INSERT OR REPLACE INTO vectors (scope, hash, checksum, vector) VALUES (?, ?, ?, ?)", rows
                )

        self._do(insert)

    def forget(self, scope: str) -> None:
        """Keep none of a scope, such as when its model has turned out to be another one."""

        def delete(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("DELETE FROM vectors WHERE scope = ?", (scope,))

        self._do(delete)

    def trim(self, max_bytes: int) -> None:
        """Make the file no larger than that, as far as leaving the oldest vectors out can; 0 leaves none."""
        self._do(lambda connection: _trim(connection, max_bytes))

    def _select(self, columns: str, scope: str, wanted: set[bytes]) -> list[tuple[Any, ...]]:
        hashes = list(wanted)

        def select(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
            rows = []
            for start in range(0, len(hashes), _HASHES_AT_ONCE):
                some = hashes[start : start + _HASHES_AT_ONCE]
                marks = ", ".join("?" * len(some))
                query = f"SELECT {columns} FROM vectors WHERE scope = ? AND hash IN ({marks})"  # noqa: S608 - no value is in it
                rows += connection.execute(query, (scope, *some)).fetchall()
            return rows

        return self._do(select)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with _errors_as_ours(self._path):
            try:
                return work(self._connection)
            except _ERRORS as error:
                if not _is_damage(error):
                    raise
                self._connection.close()
                self._connection = self._replace(error)
            return work(self._connection)

    def _open(self) -> sqlite3.Connection:
        try:
            return _open_read_only(self._path) if self._read_only else _open(self._path)
        except _ERRORS as error:
            if not _is_damage(error):
                raise
            return self._replace(error)

    def _replace(self, damage: Exception) -> sqlite3.Connection:
        if self._read_only:
            logger.warning("%s is not read: %s", self._path, damage)
            return _open_empty()
        logger.warning("%s is replaced by an empty one: %s", self._path, damage)
        # SQLite itself removes the write-ahead log of a file that is not there.
        self._path.unlink(missing_ok=True)
        return _open(self._path)


class _NotOurs(sqlite3.DatabaseError):
    pass


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    try:
        # No memory shared with other processes, so no file for it. It has to come first, and before the
        # first table whether the file can shrink.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        # A machine that loses its power may take the last batches along, but not the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        return _checked(connection)
    except _ERRORS:
        connection.close()
        raise


def _open_read_only(path: Path) -> sqlite3.Connection:
    """Open the file as one that nobody changes: anything else would write, if only a lock."""
    if not path.exists():
        return _open_empty()
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        if _schema(connection):
            return _checked(connection)
    except _ERRORS:
        connection.close()
        raise
    # All that there is of it is in the write-ahead log.
    connection.close()
    return _open_empty()


def _open_empty() -> sqlite3.Connection:
    return _checked(sqlite3.connect(":memory:"))


def _checked(connection: sqlite3.Connection) -> sqlite3.Connection:
    if not _schema(connection):
        connection.execute(_TABLE)
    if _schema(connection) != [(_TABLE.encode(),)]:
        raise _NotOurs("it was written by another program, or another version of this one")
    return connection


def _schema(connection: sqlite3.Connection) -> list[tuple[bytes]]:
    # What has become text by damage is not to be decoded.
    connection.text_factory = bytes
    return connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _checksum(scope: str, hash_: bytes, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(hash_, zlib.crc32(scope.encode())))


def _trim(connection: sqlite3.Connection, max_bytes: int) -> None:
    page_bytes = _pragma(connection, "page_size")
    while True:
        used = (_pragma(connection, "page_count") - _pragma(connection, "freelist_count")) * page_bytes
        (count,) = connection.execute("SELECT count(*) FROM vectors").fetchone()
        if used <= max_bytes or not count:
            break
        # They are of one size, more or less: a second or third pass is rare.
        excess = math.ceil(count * (used - max_bytes) / used)
        with connection:
            connection.execute(
                "DELETE FROM vectors WHERE id IN (SELECT id FROM vectors ORDER BY id LIMIT ?)", (excess,)
            )
    for _ in range(math.ceil(_pragma(connection, "freelist_count") / _PAGES_AT_ONCE)):
        # `execute` would end it after one page, for it has no columns.
        connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")


def _code(error: Exception) -> int | None:
    """SQLite's primary code; None for what Python's module finds out itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_damage(error: Exception) -> bool:
    return isinstance(error, _NotOurs | UnicodeDecodeError) or _code(error) in _DAMAGE


@contextmanager
def _errors_as_ours(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if _code(error) == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise IndexingError(
            f"the embedding cache {path} cannot be used ({error}): remove it, or mend what stands against it"
        ) from error
