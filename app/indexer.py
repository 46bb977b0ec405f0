"""Building an index: documents -> pages -> chunks -> embeddings -> store -> snapshot -> CURRENT.

First everything is read and cut, and the chunks are kept in a file: BM25 needs their average length before
the first is stored, and a provider is not paid for documents that then turn out to be unreadable. Memory
holds a few documents and one batch at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from threading import Event

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import MetadataMode, TextNode

from app.bm25 import LengthCounter
from app.chunking import Chunker, Chunking
from app.documents import Document, Reader, walk
from app.embeddings.fingerprint import Fingerprint
from app.errors import IndexingCancelled, IndexingError, NoDocuments, RagError
from app.schemas import DocumentRecord, DocumentStatus
from app.snapshots import ChunkingInfo, Manifest, SnapshotStore, Staging
from app.stores.edge import ENGINE_VERSION, EdgeVectorStore

_CHUNK_FILE = "chunks.jsonl"


class Stage(StrEnum):
    READ = "read"
    EMBED = "embed"


@dataclass(frozen=True)
class Progress:
    """How far a build is: documents in the stage `read`, chunks in `embed`."""

    stage: Stage
    done: int
    total: int

    def __str__(self) -> str:
        unit = "documents read" if self.stage is Stage.READ else "chunks embedded"
        return f"{self.done} of {self.total} {unit}"


@dataclass(frozen=True)
class Report:
    """What a build made."""

    snapshot: str
    documents: list[DocumentRecord]
    chunks: int
    seconds: float

    @property
    def unread(self) -> list[DocumentRecord]:
        return [record for record in self.documents if record.status is not DocumentStatus.INDEXED]


@dataclass
class _Chunks:
    """The chunks of all documents, in a file, with what is to be known of them before the first is stored."""

    path: Path
    count: int = 0
    tokens: float = 0
    _lengths: LengthCounter = field(default_factory=LengthCounter)

    def append(self, nodes: list[TextNode]) -> None:
        with self.path.open("a", encoding="utf-8") as lines:
            lines.writelines(f"{node.model_dump_json()}\n" for node in nodes)
        self.count += len(nodes)
        self.tokens += sum(self._lengths.count(node.get_content(MetadataMode.EMBED)) for node in nodes)

    def batches(self, size: int) -> Iterator[list[TextNode]]:
        with self.path.open(encoding="utf-8") as lines:
            while batch := [TextNode.model_validate_json(line) for line in islice(lines, size)]:
                yield batch


class Indexer:
    """Builds snapshots. Synchronous: a server runs it in a thread."""

    def __init__(
        self,
        *,
        documents_dir: Path,
        reader: Reader,
        chunking: Chunking,
        embedding: BaseEmbedding,
        embedding_provider: str,
        snapshots: SnapshotStore,
    ) -> None:
        self._documents_dir = documents_dir
        self._reader = reader
        self._chunking = chunking
        self._embedding = embedding
        self._embedding_provider = embedding_provider
        self._snapshots = snapshots

    def build(self, on_progress: Callable[[Progress], None], cancelled: Event) -> Report:
        """Build the next snapshot and publish it; whatever fails, the served one stays as it is.

        Raises:
            NoDocuments: there is nothing to index.
            IndexLocked: somebody else is writing.
            IndexingCancelled: `cancelled` was set.
            IndexingError: the embedding provider failed.
        """
        started = time.monotonic()
        with self._snapshots.writer(), self._snapshots.stage() as staging:
            chunks = _Chunks(staging.path / _CHUNK_FILE)
            records = self._read(chunks, on_progress, cancelled)
            fingerprint = self._store(chunks, staging, on_progress, cancelled)
            chunks.path.unlink()
            staging.write_documents(records)
            indexed = sum(record.status is DocumentStatus.INDEXED for record in records)
            manifest = Manifest(
                id=staging.id,
                built_at=staging.built_at,
                engine=ENGINE_VERSION,
                embedding=fingerprint,
                chunking=ChunkingInfo(
                    size=self._chunking.size, overlap=self._chunking.overlap, unit=self._chunking.unit
                ),
                documents=indexed,
                unread_documents=len(records) - indexed,
                chunks=chunks.count,
            )
            self._snapshots.publish(staging, manifest)
        return Report(staging.id, records, chunks.count, time.monotonic() - started)

    def _read(
        self, chunks: _Chunks, on_progress: Callable[[Progress], None], cancelled: Event
    ) -> list[DocumentRecord]:
        files = walk(self._documents_dir)
        if not files:
            raise NoDocuments(
                f"{self._documents_dir} holds no documents: put some there, then run make reindex"
            )
        chunker = Chunker(chunking=self._chunking)
        records = []
        on_progress(Progress(Stage.READ, 0, len(files)))
        for document in self._reader.read_all(files):
            _stop_if(cancelled)
            nodes = chunker.split(document)
            chunks.append(nodes)
            records.append(_record(document, len(nodes)))
            on_progress(Progress(Stage.READ, len(records), len(files)))
        if chunks.count == 0:
            first = records[0]
            raise NoDocuments(
                f"none of the {len(records)} documents in {self._documents_dir} could be read; "
                f"{first.name}, for one: {first.problem}"
            )
        return records

    def _store(
        self, chunks: _Chunks, staging: Staging, on_progress: Callable[[Progress], None], cancelled: Event
    ) -> Fingerprint:
        store: EdgeVectorStore | None = None
        done = 0
        on_progress(Progress(Stage.EMBED, 0, chunks.count))
        for batch in chunks.batches(self._embedding.embed_batch_size):
            _stop_if(cancelled)
            self._embed(batch)
            if store is None:
                store = EdgeVectorStore.create(
                    staging.path,
                    dimensions=len(batch[0].get_embedding()),
                    average_length=chunks.tokens / chunks.count,
                )
                fingerprint = Fingerprint(
                    provider=self._embedding_provider,
                    model=self._embedding.model_name,
                    dimensions=len(batch[0].get_embedding()),
                )
            if any(len(node.get_embedding()) != fingerprint.dimensions for node in batch):
                raise IndexingError("embedding failed: the model changed the length of its vectors")
            store.add(batch)
            done += len(batch)
            on_progress(Progress(Stage.EMBED, done, chunks.count))
        assert store is not None  # noqa: S101 - `_read` refuses to go on without chunks
        store.save()
        store.close()
        return fingerprint

    def _embed(self, batch: list[TextNode]) -> None:
        texts = [node.get_content(MetadataMode.EMBED) for node in batch]
        try:
            vectors = self._embedding.get_text_embedding_batch(texts)
        except RagError as error:
            raise IndexingError(f"embedding failed: {error.detail}") from error
        for node, vector in zip(batch, vectors, strict=True):
            node.embedding = vector


def _stop_if(cancelled: Event) -> None:
    if cancelled.is_set():
        raise IndexingCancelled("cancelled; nothing was changed")


def _record(document: Document, chunks: int) -> DocumentRecord:
    return DocumentRecord(
        name=document.name,
        sha256=document.sha256,
        size=document.size,
        pages=document.page_count,
        chunks=chunks,
        status=document.status,
        problem=document.problem,
    )
