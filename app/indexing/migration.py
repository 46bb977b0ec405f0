"""Copying the served index from one storage to another; nothing is read or embedded again.

Chunks are copied with their vectors and terms, in batches; the target builds its own search structures of
them, runs its own self-test, and publishes the copy as it does any other index. A copy has the recipe of its
source in its manifest, so that the next run on the target reuses all of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from threading import Event

from app.domain.document import Document
from app.domain.errors import SnapshotNotFound
from app.indexing.progress import OnProgress, Progress, Stage
from app.indexing.run import stop_if
from app.storage.chunks import Entry
from app.storage.contract import Chunks, PreviousIndex, Staging, Storage
from app.storage.manifest import Manifest

# So many chunks are in memory, and those of one document.
_BATCH = 1000


@dataclass(frozen=True)
class Migrated:
    """The outcome of a migration.

    Attributes:
        source: the index that was copied.
        index: its copy, which the target serves.
    """

    source: str
    index: str
    documents: int
    chunks: int
    seconds: float

    def as_json(self) -> str:
        return json.dumps(asdict(self) | {"seconds": round(self.seconds, 3)})

    def as_text(self) -> str:
        size = f"{self.documents:,} documents, {self.chunks:,} chunks"
        return f"Index {self.index}: {size}, copied from {self.source} ({self.seconds:.1f} s)"


def migrate(source: Storage, target: Storage, on_progress: OnProgress, cancelled: Event) -> Migrated:
    """Publish the index that `source` serves in `target`, whatever model it was embedded with.

    Raises:
        SnapshotNotFound: the source serves no intact index of this version.
        IndexLocked: somebody else writes to the target.
        IndexingCancelled: `cancelled` was set.
        IndexingError: the copy does not work, or a database refuses something.
        OSError: such as a full disk.
    """
    started = time.monotonic()
    with source.previous_index(None) as previous:
        manifest, chunks = _to_copy(previous)
        with target.writer(), target.stage(previous) as staging:
            entries = _entries(chunks, previous.documents, on_progress)
            while batch := list(islice(entries, _BATCH)):
                stop_if(cancelled)
                staging.add(batch)
            on_progress(Progress(Stage.SAVE))
            staging.save()
            stop_if(cancelled)
            staging.publish(_manifest_of_copy(manifest, staging, target.engine), previous.documents)
        seconds = time.monotonic() - started
        return Migrated(manifest.id, staging.id, manifest.documents, manifest.chunks, seconds)


def _to_copy(previous: PreviousIndex) -> tuple[Manifest, Chunks]:
    if previous.manifest is None or not previous.is_current:
        raise SnapshotNotFound("there is no intact index to copy: run make reindex there first")
    if not previous.has_chunks or previous.chunks is None:
        raise SnapshotNotFound(
            f"the index {previous.manifest.id} is of another version of this service "
            f"({previous.manifest.engine}): run make reindex there first"
        )
    return previous.manifest, previous.chunks


def _entries(chunks: Chunks, documents: Sequence[Document], on_progress: OnProgress) -> Iterator[Entry]:
    """Yield all chunks, document by document."""
    copied = 0
    for done, record in enumerate(documents, start=1):
        if record.chunks:
            yield from chunks.entries(record.name)
        copied += record.chunks
        on_progress(Progress(Stage.COPY, done, len(documents), copied))


def _manifest_of_copy(manifest: Manifest, staging: Staging, engine: str) -> Manifest:
    """Return the manifest of a copy: the same recipe and counts, written elsewhere and at another time."""
    return replace(manifest, id=staging.id, built_at=staging.built_at, engine=engine, files={})
