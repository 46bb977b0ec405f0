"""A pool of processes that read files in parallel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Generic

from app.documents.discovery import SourceFile
from app.documents.limits import ReadingLimits
from app.documents.pages import UnreadableError
from app.documents.reader_process import ReaderProcess, T
from app.domain.document import DocumentStatus


@dataclass(frozen=True)
class ReadFile(Generic[T]):
    """A file that was read, or that could not be (then there is no content, and a problem)."""

    name: str
    sha256: str | None
    size: int
    content: T | None
    status: DocumentStatus
    problem: str | None = None


class ReaderPool(Generic[T]):
    """A pool of reader processes with limits; a file that hangs or crashes its process costs no other file.

    Args:
        workers: the most processes at once; each is started only when there is a file for it to read.
        read: a function from a file's path and name to the document's content. It runs in the processes, so
            the function and its results must be picklable.
    """

    def __init__(self, *, workers: int, limits: ReadingLimits, read: Callable[[Path, str], T]) -> None:
        self._workers = workers
        self._limits = limits
        self._read = read

    @contextmanager
    def started(self, files: int) -> Iterator[list[ReaderProcess[T]]]:
        """Start processes for so many files ahead of `read_all`, since each takes half a second to start."""
        idle: list[ReaderProcess[T]] = []
        try:
            while len(idle) < min(files, self._workers):
                idle.append(ReaderProcess(self._read, self._limits))
            yield idle
        finally:
            for process in idle:
                process.stop()

    def read_all(
        self, files: Iterable[SourceFile], idle: list[ReaderProcess[T]] | None = None
    ) -> Generator[ReadFile[T], None, None]:
        """The documents, as they are done; no more than two a process are held at once.

        Args:
            idle: processes to use first; they are removed from the list.
        """
        waiting, done = iter(files), deque[ReadFile[T]]()
        idle = [] if idle is None else idle
        busy: dict[ReaderProcess[T], SourceFile] = {}
        try:
            while True:
                for process in _ready(busy, wait_for_one=not done) if busy else ():
                    done.append(_read_file(busy.pop(process), process))
                    idle.append(process)
                while len(busy) < self._workers >= len(done) and (file := next(waiting, None)):
                    if file.status is not None:
                        done.append(ReadFile(file.name, None, 0, None, file.status, file.problem))
                        continue
                    process = self._fit(idle)
                    busy[process] = file
                    process.start(file.path, file.name)
                if done:
                    yield done.popleft()
                elif not busy:
                    return
        finally:
            for process in busy:
                process.stop()
            while idle:
                idle.pop().stop()

    def _fit(self, idle: list[ReaderProcess[T]]) -> ReaderProcess[T]:
        while idle:
            process = idle.pop()
            if process.is_fit:
                return process
            process.stop()
        return ReaderProcess(self._read, self._limits)


def _ready(busy: Iterable[ReaderProcess[T]], *, wait_for_one: bool) -> list[ReaderProcess[T]]:
    ready = wait([process.fileno() for process in busy], timeout=None if wait_for_one else 0)
    return [process for process in busy if process.fileno() in ready]


def _read_file(file: SourceFile, process: ReaderProcess[T]) -> ReadFile[T]:
    try:
        content = process.result()
    except UnreadableError as error:
        return ReadFile(file.name, file.sha256, file.size, None, error.status, error.problem)
    return ReadFile(file.name, file.sha256, file.size, content, DocumentStatus.INDEXED)
