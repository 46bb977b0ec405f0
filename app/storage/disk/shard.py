"""The chunks of one index, in a Qdrant Edge shard below one directory, with their term statistics."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from app.domain.vectors import Vector
from app.storage.chunks import FIELDS, Entry
from app.storage.disk.chunk_points import ChunkPoints, number_of
from app.storage.disk.mapped_pages import release_mapped_pages
from app.storage.disk.payloads import DOCUMENT, LABELS, LENGTH, TEXT_HASH, from_payload, to_payload
from app.text.bm25 import TermCounts, TermStatistics, counts_of, has_drifted, weights

# The format of its files, to which the package is pinned, and of what is written into them. Layout 1, which
# manifests do not name, had a payload index for each field, for documents' names and for texts.
ENGINE_VERSION = f"qdrant-edge-py {version('qdrant-edge-py')}, layout 2"

DENSE = "dense"
BM25 = "bm25"

_ENGINE_DIR = "engine"
_TERMS_FILE = "terms.npy"
_POINTS_FILE = "points.npy"
_STORE_FILE = "store.json"

# Left on disk, memory-mapped, instead of being read when a shard is loaded: at 100,000 chunks that takes
# 40 ms instead of 400, and searches are as fast (0.04 ms with a filter).
_ON_DISK = qdrant.Memory.Cold
_PAGE = 1000
# So many chunks take 2.5 kB each of memory-mapped files, until their pages are released.
_RELEASE_AFTER = 5000


class ChunkShard:
    """A shard; reading is safe from many threads, writing is for one.

    Attributes:
        average_length: of the corpus, in tokens, as it is part of every chunk's weights.
        labeled: the fields of the metadata that are in the chunks' labels.
    """

    def __init__(
        self,
        path: Path,
        engine: qdrant.EdgeShard,
        terms: TermStatistics,
        average_length: float,
        *,
        tokens: int,
        labeled: Sequence[str],
    ) -> None:
        self.engine = engine
        self.terms = terms
        self.average_length = average_length
        self.labeled = labeled
        self._path = path
        self._tokens = tokens
        self._since_release = 0

    @classmethod
    def create(cls, path: Path, *, dimensions: int, average_length: float) -> ChunkShard:
        """Make a new, empty one in the directory `path`.

        Raises:
            OSError: the disk is full.
        """
        engine = path / _ENGINE_DIR
        engine.mkdir(parents=True)
        config = qdrant.EdgeConfig(
            vectors={DENSE: qdrant.EdgeVectorParams(size=dimensions, distance=qdrant.Distance.Cosine)},
            sparse_vectors={
                BM25: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf, memory=_ON_DISK)
            },
            id_tracker_memory=_ON_DISK,
            # In the thread that asks. Handing a search to the engine's own threads, 15 a shard, takes longer:
            # 1.2 ms and 1.6 ms of processor time at 20,000 chunks, against 0.9; 3.2 at 100,000, against 2.0.
            max_search_threads=1,
            # With a log, a second process could not load the shard.
            wal_enabled=False,
        )
        with engine_errors():
            shard = qdrant.EdgeShard.create(str(engine), config)
            labels = qdrant.KeywordIndexParams(memory=_ON_DISK)
            shard.update(qdrant.UpdateOperation.create_field_index(LABELS, labels))
        return cls(path, shard, TermStatistics(), average_length, tokens=0, labeled=FIELDS)

    @classmethod
    def open(cls, path: Path) -> ChunkShard:
        """Open the one that was saved in `path`; its files keep their content until something is written.

        Raises:
            OSError: the disk is full, for the engine writes some of its files again; or one is missing.
            RuntimeError: the engine cannot make sense of its files.
        """
        about = json.loads((path / _STORE_FILE).read_text())
        terms = TermStatistics.load(path / _TERMS_FILE, about["chunks"])
        with engine_errors():
            engine = qdrant.EdgeShard.load(str(path / _ENGINE_DIR))
        return cls(
            path,
            engine,
            terms,
            about["average_length"],
            tokens=about["tokens"],
            labeled=about.get("labeled", ()),
        )

    def save(self) -> None:
        """Write everything to disk, after building what is missing of the vector index."""
        if has_drifted(self._tokens, self.chunk_count, self.average_length):
            self._reweigh()
        with engine_errors():
            self.engine.flush()
            self.engine.optimize()
            self.engine.flush()
            # The first load of a shard replays and removes its journals, and completes its configuration;
            # after that loading changes no file. It happens here, so that what is sealed stays as it is.
            self.engine.close()
            self.engine = qdrant.EdgeShard.load(str(self._path / _ENGINE_DIR))
        self.terms.save(self._path / _TERMS_FILE)
        self.points.save(self._path / _POINTS_FILE)
        about = {
            "chunks": self.chunk_count,
            "tokens": self._tokens,
            "average_length": self.average_length,
            "labeled": self.labeled,
        }
        (self._path / _STORE_FILE).write_text(json.dumps(about))

    def close(self) -> None:
        self.engine.close()

    @cached_property
    def points(self) -> ChunkPoints:
        """The lookup of chunks, read at first use: to serve an index takes none."""
        path = self._path / _POINTS_FILE
        if path.exists():
            return ChunkPoints.load(path)
        points = ChunkPoints()
        # It is new, or of layout 1.
        for record in self.scroll(qdrant.Filter(), [DOCUMENT, TEXT_HASH], False):
            payload = payload_of(record)
            points.add(payload[DOCUMENT], payload[TEXT_HASH], int(record.id))
        return points

    @property
    def chunk_count(self) -> int:
        return self.terms.chunks

    def add(self, entries: Sequence[Entry]) -> None:
        """Add chunks, or replace those whose ids are known."""
        entries = list({entry.chunk.id: entry for entry in entries}.values())
        points = self.points  # before there are more
        self._forget(list(self._retrieve([number_of(each.chunk.id) for each in entries], *_COUNTED)))
        with engine_errors():
            self.engine.update(qdrant.UpdateOperation.upsert_points([self._point(e) for e in entries]))
        for entry in entries:
            self.terms.add(entry.terms.terms)
            chunk = entry.chunk
            points.add(chunk.ref_doc_id, chunk.text_hash, number_of(chunk.id))
            self._tokens += entry.terms.length
        self._since_release += len(entries)
        if self._since_release >= _RELEASE_AFTER:
            release_mapped_pages(self._path)
            self._since_release = 0

    def delete(self, wanted: qdrant.Filter) -> None:
        self._delete(list(self.scroll(wanted, *_COUNTED)))

    def delete_documents(self, names: Sequence[str]) -> None:
        points = self.points.of_documents(names)
        for start in range(0, len(points), _PAGE):
            self._delete(list(self._retrieve(points[start : start + _PAGE], *_COUNTED)))

    def entries(self, document: str) -> list[Entry]:
        """Return a document's chunks, as they were added."""
        return [
            Entry(from_payload(payload_of(record)), vectors_of(record)[DENSE], self._counts(record))
            for record in self._retrieve(self.points.of_documents([document]), True, True)
        ]

    def vectors(self, text_hashes: Sequence[str]) -> dict[str, Vector]:
        """Return the vectors of those texts that it has, by their hashes, at length 1."""
        return {
            payload_of(record)[TEXT_HASH]: np.array(vectors_of(record)[DENSE], dtype=np.float32)
            for record in self._retrieve(self.points.of_texts(text_hashes), [TEXT_HASH], [DENSE])
        }

    def known(self, text_hashes: Sequence[str]) -> set[str]:
        """Return those of the hashes whose texts it has."""
        found = self._retrieve(self.points.of_texts(text_hashes), [TEXT_HASH], False)
        return {payload_of(record)[TEXT_HASH] for record in found}

    def scroll(
        self, wanted: qdrant.Filter, with_payload: bool | list[str], with_vector: bool | list[str]
    ) -> Iterator[qdrant.Record]:
        """Yield the points that match a filter, page by page, with what is asked for of each."""
        offset = None
        while True:
            request = qdrant.ScrollRequest(offset, _PAGE, wanted, with_payload, with_vector)
            with engine_errors():
                records, offset = self.engine.scroll(request)
            yield from records
            if offset is None:
                return

    def _retrieve(
        self, points: Sequence[int], with_payload: bool | list[str], with_vector: bool | list[str]
    ) -> Iterator[qdrant.Record]:
        for start in range(0, len(points), _PAGE):
            with engine_errors():
                records = self.engine.retrieve([*points[start : start + _PAGE]], with_payload, with_vector)
            yield from records

    def _point(self, entry: Entry) -> qdrant.Point:
        chunk, vector, terms = entry
        sparse = weights(terms.counts, length=terms.length, average_length=self.average_length)
        return qdrant.Point(
            number_of(chunk.id),
            {DENSE: np.asarray(vector).tolist(), BM25: qdrant.SparseVector(terms.terms, sparse)},
            to_payload(chunk, terms.length),
        )

    def _counts(self, record: qdrant.Record) -> TermCounts:
        sparse = vectors_of(record)[BM25]
        length = payload_of(record)[LENGTH]
        return TermCounts(
            sparse.indices, counts_of(sparse.values, length=length, average_length=self.average_length)
        )

    def _delete(self, records: Sequence[qdrant.Record]) -> None:
        self._forget(records)
        with engine_errors():
            self.engine.update(qdrant.UpdateOperation.delete_points([record.id for record in records]))

    def _forget(self, records: Sequence[qdrant.Record]) -> None:
        if records:
            self.points.remove([int(record.id) for record in records])
        for record in records:
            self.terms.remove(vectors_of(record)[BM25].indices)
            self._tokens -= payload_of(record)[LENGTH]

    def _reweigh(self) -> None:
        average = self._tokens / self.chunk_count
        # All at once: while they are rewritten, pages of a scroll could shift.
        changed = []
        for record in self.scroll(qdrant.Filter(), *_COUNTED):
            terms, counts = counted = self._counts(record)
            sparse = weights(counts, length=counted.length, average_length=average)
            changed.append(qdrant.PointVectors(record.id, {BM25: qdrant.SparseVector(terms, sparse)}))
        for start in range(0, len(changed), _PAGE):
            with engine_errors():
                self.engine.update(qdrant.UpdateOperation.update_vectors(changed[start : start + _PAGE]))
        self.average_length = average


# What `ChunkShard` has to know of chunks that go: payload fields and vectors.
_COUNTED: tuple[list[str], list[str]] = ([LENGTH], [BM25])


def payload_of(record: qdrant.Record) -> dict[str, Any]:
    """Return the payload of a record that was asked for with one."""
    return record.payload or {}


def vectors_of(record: qdrant.Record) -> dict[str, Any]:
    """Return the vectors of a record that was asked for with some, by their names."""
    assert isinstance(record.vector, dict)  # noqa: S101 - an index has two kinds, which come by their names
    return record.vector


@contextmanager
def engine_errors() -> Iterator[None]:
    """Raise the engine's errors as such that can be named.

    It raises plain `Exception`, and panics on some damaged files, with what would pass every handler.

    Raises:
        OSError: the disk is full.
        RuntimeError: the engine cannot make sense of its files.
    """
    try:
        yield
    except BaseException as error:  # the panic's class cannot be imported; all else is raised again
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        if (full := os.strerror(errno.ENOSPC)) in str(error):
            raise OSError(errno.ENOSPC, full) from error
        raise RuntimeError(f"the engine cannot make sense of its files: {error}") from error
