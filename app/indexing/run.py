"""One run's way through the documents."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from threading import Event

from app.documents.discovery import SourceFile, inspect, walk
from app.documents.reader_pool import ReaderPool, ReadFile
from app.documents.reader_process import ReaderProcess
from app.domain.document import Document, DocumentStatus
from app.domain.errors import IndexingCancelled, NoDocuments
from app.indexing.changes import Changes, compare
from app.indexing.prepare import Prepared, PreparedChunk
from app.indexing.progress import OnProgress, Progress, Stage
from app.storage.contract import PreviousIndex


def stop_if(cancelled: Event) -> None:
    """Stop a run that was cancelled.

    Raises:
        IndexingCancelled: `cancelled` is set.
    """
    if cancelled.is_set():
        raise IndexingCancelled("cancelled; nothing was changed")


class Run:
    """Collects what becomes of each document, and reports the progress."""

    def __init__(self, on_progress: OnProgress, cancelled: Event) -> None:
        self.cancelled = cancelled
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._records: dict[str, Document] = {}
        self._read = self._to_read = self._chunks = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def documents(self) -> list[Document]:
        """All documents that were read, kept or copied, by name."""
        return [self._records[name] for name in sorted(self._records)]

    @property
    def indexed(self) -> set[str]:
        return {name for name, record in self._records.items() if record.status is DocumentStatus.INDEXED}

    def compare(self, folder: Path, previous: PreviousIndex) -> Changes:
        """Find out what is to be done; what is reused counts as done.

        Raises:
            NoDocuments: there are none at all.
        """
        files = walk(folder)
        if not files:
            raise NoDocuments(f"{folder} holds no documents: put some there, then run make reindex")
        inspected = []
        for file in inspect(folder, files):
            stop_if(self.cancelled)
            inspected.append(file)
            self._on_progress(Progress(Stage.COMPARE, len(inspected), len(files)))
        changes = compare(inspected, previous.documents, reusable=previous.has_chunks)
        known = {record.name: record for record in previous.documents}
        self._records = {record.name: record for record in changes.kept}
        for name, file in changes.copied:
            self._records[file.name] = known[name]._replace(name=file.name)
        return changes

    def groups(
        self,
        reader: ReaderPool[Prepared],
        files: Sequence[SourceFile],
        size: int,
        idle: list[ReaderProcess[Prepared]] | None = None,
    ) -> Iterator[list[PreparedChunk]]:
        """Read files, and yield their chunks in groups of `size`; see `ReaderPool.read_all`.

        Raises:
            IndexingCancelled: the run was cancelled.
        """
        self._to_read = len(files)
        chunks = chain.from_iterable(map(self._note, reader.read_all(files, idle)))
        while group := list(islice(chunks, size)):
            yield group

    def embedded(self, chunks: int) -> None:
        self._chunks += chunks
        self._tell()

    def saving(self) -> None:
        self._on_progress(Progress(Stage.SAVE))

    def _note(self, document: ReadFile[Prepared]) -> list[PreparedChunk]:
        stop_if(self.cancelled)
        prepared = document.content
        self._records[document.name] = Document(
            name=document.name,
            sha256=document.sha256,
            size=document.size,
            pages=prepared.pages if prepared else None,
            chunks=len(prepared.chunks) if prepared else 0,
            status=document.status,
            problem=document.problem,
        )
        self._read += 1
        self._tell()
        return prepared.chunks if prepared else []

    def _tell(self) -> None:
        self._on_progress(Progress(Stage.READ, self._read, self._to_read, self._chunks))
