"""The documents' folder: which files there are, and reading them side by side in killable processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as ReadTimeout
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from app.errors import NoDocuments
from app.pages import Page
from app.reading import UnreadableError, read_pages, start_worker
from app.schemas import DocumentStatus


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
class Document:
    """A file that was read, or that could not be (then there are no pages, and a problem)."""

    name: str
    sha256: str | None
    size: int
    pages: tuple[Page, ...]
    status: DocumentStatus
    problem: str | None = None

    @property
    def page_count(self) -> int | None:
        numbers = [page.number for page in self.pages if page.number is not None]
        return max(numbers) if numbers else None


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

    def add(path: Path, problem: str | None = None) -> None:
        found.append(SourceFile(_printable(path.relative_to(folder).as_posix()), path, problem))

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
    readable = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in readable
    )


class Reader:
    """Reads files in worker processes; one that hangs or crashes costs its own file and no other."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        timeout_s: float,
        read: Callable[[Path], list[Page]] = read_pages,
    ) -> None:
        self._read = read
        self._root = folder.resolve()
        self._workers = workers
        self._timeout_s = timeout_s

    def read_all(self, files: Iterable[SourceFile]) -> Iterator[Document]:
        """The documents in the order of `files`; no more than two a worker are held at once."""
        with self._pool() as read:
            waiting: deque[Callable[[], Document]] = deque()
            for file in files:
                waiting.append(self._schedule(file, read))
                if len(waiting) >= 2 * self._workers:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()

    @contextmanager
    def _pool(self) -> Iterator[Callable[[Path], Any]]:
        # Spawned, not forked: the server that may be our parent has threads.
        pool = ProcessPool(
            max_workers=self._workers,
            initializer=start_worker,
            context=multiprocessing.get_context("spawn"),
        )
        try:
            with _sigint_blocked():
                _ = pool.active  # starts the workers
            yield lambda path: pool.schedule(self._read, args=[path], timeout=self._timeout_s)
        finally:
            pool.stop()  # type: ignore[no-untyped-call] # pebble has types for the rest
            pool.join()

    def _schedule(self, file: SourceFile, read: Callable[[Path], Any]) -> Callable[[], Document]:
        try:
            refusal = self._refusal(file)
            if refusal is not None:
                return lambda: refusal
            size, digest = file.path.stat().st_size, _sha256(file.path)
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, on Python 3.11 and 3.12
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return lambda: _unread(file, DocumentStatus.UNREADABLE, f"it cannot be opened: {reason}")
        future = read(file.path)
        return lambda: self._finish(file, size, digest, future)

    def _refusal(self, file: SourceFile) -> Document | None:
        if file.problem is not None:
            return _unread(file, DocumentStatus.UNREADABLE, file.problem)
        target = file.path.resolve(strict=True)
        if not target.is_relative_to(self._root):
            return _unread(file, DocumentStatus.OUTSIDE, "it is a link that leads out of the folder")
        if not stat.S_ISREG(target.stat().st_mode):
            return _unread(file, DocumentStatus.UNREADABLE, "it is not a regular file")
        return None

    def _finish(self, file: SourceFile, size: int, digest: str, future: Any) -> Document:
        try:
            pages = tuple(future.result())
        except UnreadableError as error:
            return Document(file.name, digest, size, (), error.status, error.problem)
        except ReadTimeout:
            problem = f"reading it took longer than PARSE_TIMEOUT_S ({self._timeout_s:g} s)"
            return Document(file.name, digest, size, (), DocumentStatus.TIMED_OUT, problem)
        except ProcessExpired as error:
            problem = f"the parser crashed on it (exit code {error.exitcode})"
            return Document(file.name, digest, size, (), DocumentStatus.CRASHED, problem)
        except Exception as error:  # noqa: BLE001 - a process boundary: whatever a parser raises is this file's problem
            problem = f"the parser failed on it: {type(error).__name__}: {error}"[:300]
            return Document(file.name, digest, size, (), DocumentStatus.UNREADABLE, problem)
        return Document(file.name, digest, size, pages, DocumentStatus.INDEXED)


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """What is started meanwhile never hears Ctrl-C, even while it imports: its parent handles that."""
    # Starting this helper of Python's own lifts the block.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _unread(file: SourceFile, status: DocumentStatus, problem: str) -> Document:
    return Document(file.name, None, 0, (), status, problem)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
