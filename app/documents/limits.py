"""What reading one file may take: time, memory, and what is packed in it.

Of time and memory the kernel keeps account: parsers are native code, which Python cannot interrupt.
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

# How parsers put it: Rust's allocator, its I/O, the system, and Rust again where PDFium, which throws nothing
# else, threw bad_alloc.
_OUT_OF_MEMORY = (
    "memory allocation of",
    "out of memory",
    "cannot allocate memory",
    "catch foreign exceptions",
)

# Deflate makes 1,032 bytes of one at most.
_MOST_INFLATION = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
# What the parser has to say about such a file, it says better.
_DAMAGED_ZIP = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, OSError),
    *(RuntimeError, NotImplementedError, ValueError),
)


@dataclass(frozen=True)
class ReadingLimits:
    """For one file.

    Attributes:
        memory_mb: beside what its process has by itself.
        inflated_mb: its size, or that of what is packed in it.
    """

    timeout_s: float
    memory_mb: int
    inflated_mb: int

    @property
    def answer_bytes(self) -> int:
        """Most that a process may send of a file: its parent holds that of several at once."""
        return self.inflated_mb * MB // 8


def is_out_of_memory(message: str) -> bool:
    """Whether this, from a parser, says so."""
    return any(phrase in message.lower() for phrase in _OUT_OF_MEMORY)


class Memory(NamedTuple):
    """Of a process, in bytes: what it has in RAM, and what it may write to."""

    resident: int
    data: int


def memory_of(process: int | None) -> Memory:
    """Zeros on other systems than Linux, and of a process that is gone."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()
    except OSError:
        return Memory(0, 0)
    size = os.sysconf("SC_PAGE_SIZE")
    return Memory(int(pages[1]) * size, int(pages[5]) * size)


def limit_memory(memory_mb: int) -> None:
    """Let this process allocate so much more than it has; without effect on other systems than Linux.

    RLIMIT_DATA counts what may be written to. RLIMIT_AS also counts address space that is only set aside: 740
    MB of it for a parser that uses 40.
    """
    wanted, (_, most) = memory_of(os.getpid()).data + memory_mb * MB, resource.getrlimit(resource.RLIMIT_DATA)
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
    # A crash would write all of it to the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def time_limit(timeout_s: float) -> Iterator[None]:
    """Have this process killed by SIGALRM if it takes longer."""
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def check_size(path: Path, inflated_mb: int) -> None:
    """
    Raises:
        UnreadableError: the file, or what is packed in it if it is a zip, is larger.
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
    """Sizes in a zip's directory may be forged: only what comes out counts."""
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
    """How many bytes come out of it, until they are more than the limit."""
    # zipfile stops at this size.
    member.file_size = limit + 2 * MB
    size = 0
    with suppress(*_DAMAGED_ZIP), archive.open(member) as stream:
        while size <= limit and (block := stream.read(MB)):
            size += len(block)
    return size
