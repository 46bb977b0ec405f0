"""Limits on reading one file: its time, its memory and its uncompressed size.

The kernel enforces time and memory, because parsers are native code, which Python cannot interrupt.
"""

from __future__ import annotations

import os
import resource
import signal
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from app.documents.pages import UnreadableError
from app.domain.document import DocumentStatus

MB = 1024 * 1024

# The messages of parsers: of Rust's allocator, of its I/O, of the system, and of Rust after a C++ exception
# in PDFium, which throws only bad_alloc.
_OUT_OF_MEMORY = (
    "memory allocation of",
    "out of memory",
    "cannot allocate memory",
    "catch foreign exceptions",
)

# Deflate turns one byte into 1,032 at most.
_MOST_INFLATION = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
# Ignored here: the parser reports a damaged file with a better message.
_DAMAGED_ZIP = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, OSError),
    *(RuntimeError, NotImplementedError, ValueError),
)


@dataclass(frozen=True)
class ReadingLimits:
    """The limits on reading one file.

    Attributes:
        memory_mb: memory beyond what the reader process takes by itself.
        inflated_mb: the size of the file, or the total size of its members if it is a zip.
    """

    timeout_s: float
    memory_mb: int
    inflated_mb: int

    @property
    def answer_bytes(self) -> int:
        """The most that a process may send for one file, as its parent holds the answers of several."""
        return self.inflated_mb * MB // 8


def is_out_of_memory(message: str) -> bool:
    """Return True if a parser's message says that it ran out of memory."""
    return any(phrase in message.lower() for phrase in _OUT_OF_MEMORY)


class Memory(NamedTuple):
    """The memory of a process in bytes: its resident pages, and its writable address space."""

    resident: int
    data: int


def memory_of(process: int | None) -> Memory:
    """Return the memory of a process; zeros if it has ended, or on systems other than Linux."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()
    except OSError:
        return Memory(0, 0)
    size = os.sysconf("SC_PAGE_SIZE")
    return Memory(int(pages[1]) * size, int(pages[5]) * size)


def limit_memory(memory_mb: int) -> None:
    """Limit how much more memory this process may allocate; without effect on systems other than Linux.

    RLIMIT_DATA counts writable memory. RLIMIT_AS would also count reserved address space: 740 MB for a parser
    that uses 40.
    """
    wanted, (_, most) = memory_of(os.getpid()).data + memory_mb * MB, resource.getrlimit(resource.RLIMIT_DATA)
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
    # No core dump: a crash would write all of the memory to the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def time_limit(timeout_s: float) -> Iterator[None]:
    """Let SIGALRM kill this process if the block takes longer."""
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def check_size(path: Path, inflated_mb: int) -> None:
    """Check the size of a file, or the total size of its members if it is a zip.

    Raises:
        UnreadableError: it is larger than the limit.
    """
    limit = inflated_mb * MB
    if path.stat().st_size > limit:
        raise UnreadableError(
            DocumentStatus.TOO_LARGE, f"it is larger than MAX_INFLATED_MB ({inflated_mb} MB)"
        )
    if zipfile.is_zipfile(path) and _inflates_beyond(path, limit):
        raise UnreadableError(
            DocumentStatus.TOO_LARGE, f"it inflates to more than MAX_INFLATED_MB ({inflated_mb} MB)"
        )


def _inflates_beyond(path: Path, limit: int) -> bool:
    """Count the bytes that a zip really inflates to, since the sizes in its directory may be forged."""
    with suppress(*_DAMAGED_ZIP), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(map(_most_inflated, members)) <= limit:
            return False
        total = 0
        for member in members:
            total += _inflated(archive, member, limit - total)
            if total > limit:
                return True
    return False


def _most_inflated(member: zipfile.ZipInfo) -> float:
    return member.compress_size * _MOST_INFLATION.get(member.compress_type, float("inf"))


def _inflated(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> int:
    """Count the bytes that a member inflates to, and stop above the limit."""
    # zipfile reads no further than the size in the directory.
    member.file_size = limit + 2 * MB
    size = 0
    with suppress(*_DAMAGED_ZIP), archive.open(member) as stream:
        while size <= limit and (block := stream.read(MB)):
            size += len(block)
    return size
