"""Indexes on disk, written: a snapshot beside the served one, then `CURRENT`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

from app.domain.errors import SnapshotDamaged
from app.storage.contract import PreviousIndex, Recipe
from app.storage.disk.embedding_cache import EmbeddingCache
from app.storage.disk.scratch import Scratch
from app.storage.disk.self_test import check_answers
from app.storage.disk.shard import ENGINE_VERSION, ChunkShard
from app.storage.disk.snapshot import Snapshot
from app.storage.disk.snapshot_store import SnapshotStore
from app.storage.disk.staging import DiskStaging
from app.storage.manifest import IndexSummary, Manifest


class DiskStorage:
    """Snapshots on the disk; see `Storage`.

    Args:
        scratch: makes copies of indexes that must not be written to.
        engine: the engine and its version; chunks that another one wrote are not reused.
    """

    def __init__(
        self, snapshots: SnapshotStore, scratch: Scratch, *, cache_path: Path, engine: str = ENGINE_VERSION
    ) -> None:
        self._snapshots = snapshots
        self._scratch = scratch
        self._cache_path = cache_path
        self.engine = engine

    def writer(self) -> AbstractContextManager[None]:
        return self._snapshots.writer()

    @contextmanager
    def previous_index(self, recipe: Recipe | None, *, full: bool = False) -> Iterator[PreviousIndex]:
        """Open the newest intact index; every file is read, for damage must not be handed on."""
        snapshot = self._newest_verified()
        if snapshot is None:
            yield PreviousIndex()
            return
        manifest = snapshot.manifest
        recipe = recipe or Recipe.of(manifest)
        is_current = manifest.id == self._snapshots.current_if_any()
        if full or not recipe.makes_vectors_of(manifest):
            yield PreviousIndex(manifest, list(snapshot.documents()), is_current=is_current)
            return
        with ExitStack() as stack:
            yield PreviousIndex(
                manifest,
                list(snapshot.documents()),
                has_chunks=recipe.makes_chunks_of(manifest) and manifest.engine == self.engine,
                is_current=is_current,
                open_chunks=lambda: self._open_chunks(snapshot, stack),
            )

    @contextmanager
    def stage(self, previous: PreviousIndex) -> Iterator[DiskStaging]:
        average_length = previous.chunks.average_length if previous.chunks else None
        with (
            self._snapshots.stage() as staged,
            closing(DiskStaging(self._snapshots, staged, average_length=average_length)) as staging,
        ):
            yield staging

    def cache(self, *, read_only: bool) -> AbstractContextManager[EmbeddingCache]:
        return EmbeddingCache(self._cache_path, read_only=read_only)

    def prune(self) -> None:
        self._snapshots.prune()

    def roll_back(self, index_id: str | None, check: Callable[[Manifest], None]) -> str:
        with self._snapshots.writer():
            snapshot = self._snapshots.find_for_rollback(index_id)
            manifest = snapshot.manifest
            check(manifest)
            with snapshot.times_kept():
                check_answers(snapshot.path, chunks=manifest.chunks)
            self._snapshots.point_to(manifest.id)
            return manifest.id

    def summaries(self) -> list[IndexSummary]:
        return self._snapshots.summaries()

    def _newest_verified(self) -> Snapshot | None:
        for snapshot in self._snapshots.intact():
            try:
                snapshot.verify()
            except SnapshotDamaged:
                continue
            return snapshot
        return None

    def _open_chunks(self, snapshot: Snapshot, stack: ExitStack) -> ChunkShard | None:
        path = stack.enter_context(self._scratch.loadable(snapshot))
        stack.enter_context(snapshot.times_kept())
        try:
            shard = ChunkShard.open(path)
        except (RuntimeError, ValueError):
            if snapshot.manifest.engine == self.engine:
                raise
            return None  # written by another version of the engine: what it holds is made again
        stack.callback(shard.close)
        return shard
