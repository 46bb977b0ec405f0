"""The index that a run starts from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

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
        shard: opened, if vectors of the same texts can be taken over from it.
        has_chunks: what it has of unchanged documents can be taken over as it is.
        is_current: it is the one that is to be served.
    """

    snapshot: Snapshot | None = None
    shard: ChunkShard | None = None
    documents: list[DocumentRecord] = field(default_factory=list)
    has_chunks: bool = False
    is_current: bool = False

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
        yield Before(snapshot, None, snapshot.documents(), False, is_current)
        return
    with ExitStack() as stack:
        path = stack.enter_context(scratch.loadable(snapshot))
        stack.enter_context(snapshot.times_kept())
        shard = ChunkShard.open(path)
        stack.callback(shard.close)
        has_chunks = recipe.makes_chunks_of(manifest)
        yield Before(snapshot, shard, snapshot.documents(), has_chunks, is_current)


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
