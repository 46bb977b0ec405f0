"""The documents' folder: which files there are, and what is in them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.documents.limits import MB
from app.domain.document import DocumentStatus
from app.domain.errors import NoDocuments

# Hashing lets go of Python's lock. Four threads are four times as fast with files of 200 MB, and take three
# times as long as none with files of 1 KB, each of which takes 25 us.
_HASHING_THREADS = 4
_LARGE_FILE = MB


@dataclass(frozen=True)
class SourceFile:
    """What stands in the documents' folder; its name is the path from there, with forward slashes.

    Attributes:
        problem: set where it cannot even be looked at.
    """

    name: str
    path: Path
    problem: str | None = None


@dataclass(frozen=True)
class InspectedFile:
    """What is in a file; or, where it is not to be read, why.

    Attributes:
        sha256: of its content; None if it is not to be read.
        size: in bytes.
        status: None if it is to be read; so is `problem`.
    """

    name: str
    path: Path
    sha256: str | None
    size: int
    status: DocumentStatus | None = None
    problem: str | None = None


def walk(folder: Path) -> list[SourceFile]:
    """All files below `folder`, by name, and what is in the way of finding them.

    Hidden files and Office's lock files are passed over. Links to files are listed, and `Reader` looks where
    they lead; a link to a folder is listed only if it leads out: else its files are found where they are.

    Raises:
        NoDocuments: the folder is missing or not a folder.
    """
    if not folder.is_dir():
        what = "that is not a folder" if folder.exists() else "there is no such folder"
        raise NoDocuments(f"DOCUMENTS_DIR is {folder}, and {what}: create it and put documents into it")
    root = folder.resolve()
    found: list[SourceFile] = []

    # With a separator at its end. `relative_to` would take ten times as long, a fifth of the walk.
    prefix = str(folder / "_")[:-1]

    def add(path: Path, problem: str | None = None) -> None:
        found.append(SourceFile(_printable(str(path).removeprefix(prefix)), path, problem))

    def on_error(error: OSError) -> None:
        add(Path(error.filename), f"the folder cannot be opened: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=on_error):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                add(path)
        for name in names:
            if not name.startswith((".", "~$")):
                add(Path(parent, name))
    return sorted(found, key=lambda file: file.name)


def _printable(name: str) -> str:
    """File names are bytes: those that are not UTF-8, and control characters, become \\xNN and the like."""
    if name.isascii() and name.isprintable():
        return name
    readable = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in readable
    )


def inspect(folder: Path, files: Iterable[SourceFile]) -> Iterator[InspectedFile]:
    """Look into files, in order.

    A hash is taken before its file is read. If that changes in between, the next run sees that it did.
    """
    root = folder.resolve()
    threads = ThreadPoolExecutor(_HASHING_THREADS)
    waiting: deque[InspectedFile | Future[InspectedFile]] = deque()
    try:
        for file in files:
            waiting.append(threads.submit(_inspect, file, root) if _is_large(file) else _inspect(file, root))
            while waiting and _is_done(waiting[0]):
                yield _done(waiting.popleft())
        while waiting:
            yield _done(waiting.popleft())
    finally:
        threads.shutdown(cancel_futures=True)


def _is_large(file: SourceFile) -> bool:
    try:
        return file.path.stat().st_size > _LARGE_FILE
    except OSError:
        return False


def _is_done(file: InspectedFile | Future[InspectedFile]) -> bool:
    return isinstance(file, InspectedFile) or file.done()


def _done(file: InspectedFile | Future[InspectedFile]) -> InspectedFile:
    return file if isinstance(file, InspectedFile) else file.result()


def _inspect(file: SourceFile, root: Path) -> InspectedFile:
    if file.problem is not None:
        return _refused(file, DocumentStatus.UNREADABLE, file.problem)
    try:
        status = file.path.lstat()
        if stat.S_ISLNK(status.st_mode):
            if not _leads_into(root, file.path):
                return _refused(file, DocumentStatus.OUTSIDE, "it is a link that leads out of the folder")
            status = file.path.stat()
        if not stat.S_ISREG(status.st_mode):
            return _refused(file, DocumentStatus.UNREADABLE, "it is not a regular file")
        digest, size = _sha256(file.path)
    except OSError as error:
        return _refused(file, DocumentStatus.UNREADABLE, f"it cannot be opened: {error.strerror or error}")
    return InspectedFile(file.name, file.path, digest, size)


def _leads_into(root: Path, link: Path) -> bool:
    # Not Path.resolve, which raises RuntimeError at a loop of links on Python 3.11 and 3.12.
    return Path(os.path.realpath(link, strict=True)).is_relative_to(root)


def _sha256(path: Path) -> tuple[str, int]:
    """And the size. Half the time of hashlib.file_digest, which zeroes 256 KB for each file."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while block := os.read(descriptor, MB):
            digest.update(block)
            size += len(block)
    finally:
        os.close(descriptor)
    return digest.hexdigest(), size


def _refused(file: SourceFile, status: DocumentStatus, problem: str) -> InspectedFile:
    return InspectedFile(file.name, file.path, None, 0, status, problem)
