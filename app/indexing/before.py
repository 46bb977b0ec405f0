"""The index that a run starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from app.embeddings.fingerprint import Fingerprint
from app.errors import SnapshotDamaged
from app.schemas import DocumentRecord
from app.snapshots import ChunkingInfo, Manifest, Scratch, Snapshot, SnapshotStore
from app.stores.edge_shard import ENGINE_VERSION, ChunkShard


@dataclass(frozen=True)
class Recipe:
    """What, besides the documents, decides how an index comes out."""

    reader: str
    chunking: ChunkingInfo
    provider: str
    model: str

    def makes_vectors_of(self, embedding: Fingerprint) -> bool:
        return (embedding.provider, embedding.model) == (self.provider, self.model)

    def makes_chunks_of(self, manifest: Manifest) -> bool:
        return (manifest.reader, manifest.chunking, manifest.engine) == (
            self.reader,
            self.chunking,
            ENGINE_VERSION,
        ) and self.makes_vectors_of(manifest.embedding)


@dataclass(frozen=True)
class Before:
    """
    Attributes:
        snapshot: None where there is no intact one.
        has_chunks: what it has of unchanged documents can be taken over as it is.
        is_current: it is the one that is to be served.
        open_shard: gives its chunks, if vectors of the same texts can be taken over.
    """

    snapshot: Snapshot | None = None
    documents: list[DocumentRecord] = field(default_factory=list)
    has_chunks: bool = False
    is_current: bool = False
    open_shard: Callable[[], ChunkShard | None] = lambda: None

    @cached_property
    def shard(self) -> ChunkShard | None:
        """Opened when it is first asked for: where nothing has changed, a fifth of the time is saved."""
        return self.open_shard()

    @property
    def dimensions(self) -> int:
        """Of the vectors that can be taken over; 0 if there are none."""
        return self.snapshot.manifest.embedding.dimensions if self.snapshot and self.shard else 0


@contextmanager
def open_before(
    snapshots: SnapshotStore, scratch: Scratch, recipe: Recipe, *, full: bool
) -> Iterator[Before]:
    """The newest intact index, every file of it read and checked: what is damaged must not be handed on.

    Args:
        full: take nothing over from it.
    """
    snapshot = _newest_verified(snapshots)
    if snapshot is None:
        yield Before()
        return
    manifest = snapshot.manifest
    is_current = manifest.id == _current_id(snapshots)
    if full or not recipe.makes_vectors_of(manifest.embedding):
        yield Before(snapshot, snapshot.documents(), is_current=is_current)
        return
    with ExitStack() as stack:
        yield Before(
            snapshot,
            snapshot.documents(),
            has_chunks=recipe.makes_chunks_of(manifest),
            is_current=is_current,
            open_shard=lambda: _open_shard(snapshot, scratch, stack),
        )


def _open_shard(snapshot: Snapshot, scratch: Scratch, stack: ExitStack) -> ChunkShard | None:
    path = stack.enter_context(scratch.loadable(snapshot))
    stack.enter_context(snapshot.times_kept())
    try:
        shard = ChunkShard.open(path)
    except (RuntimeError, ValueError):
        if snapshot.manifest.engine == ENGINE_VERSION:
            raise
        return None  # written by another version of the engine: what it holds is made again
    stack.callback(shard.close)
    return shard


def _newest_verified(snapshots: SnapshotStore) -> Snapshot | None:
    for snapshot in snapshots.intact():
        try:
            snapshot.verify()
        except SnapshotDamaged:
            continue
        return snapshot
    return None


def _current_id(snapshots: SnapshotStore) -> str | None:
    try:
        return snapshots.current_id()
    except SnapshotDamaged:
        return None
