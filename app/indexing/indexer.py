"""Building an index: documents -> chunks -> vectors -> shard -> snapshot -> CURRENT.

A run starts from the index before: what it has of unchanged documents is taken over, and of changed ones
the vectors of texts that stayed. Reader processes, the embedding model and the engine work side by side; in
memory are a few documents and a few batches. Until the last step, the served index stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from app.documents import Reader
from app.embeddings.cache import EmbeddingCache
from app.embeddings.fingerprint import Fingerprint
from app.errors import FingerprintMismatch, NoDocuments
from app.indexing.before import Before, Recipe, open_before
from app.indexing.changes import Changes
from app.indexing.gate import check_answers, check_shrink
from app.indexing.progress import OnProgress
from app.indexing.report import Report
from app.indexing.run import Run
from app.indexing.target import Target
from app.indexing.vectors import Embedder, KnownVectors, VectorSource
from app.preparing import Prepared
from app.snapshots import Manifest, Scratch, SnapshotStore, Staging
from app.stores.edge_shard import ENGINE_VERSION

_CACHE_FILE = "embeddings.sqlite"


class Indexer:
    """Plans and builds snapshots. Synchronous: a server runs it in a thread."""

    def __init__(
        self,
        *,
        documents_dir: Path,
        index_dir: Path,
        reader: Reader[Prepared],
        recipe: Recipe,
        embedder: Embedder,
        snapshots: SnapshotStore,
        scratch: Scratch,
        max_shrink: float,
    ) -> None:
        self._documents_dir = documents_dir
        self._cache_path = index_dir / _CACHE_FILE
        self._reader = reader
        self._recipe = recipe
        self._embedder = embedder
        self._snapshots = snapshots
        self._scratch = scratch
        self._max_shrink = max_shrink

    def plan(self, on_progress: OnProgress, cancelled: Event, *, full: bool = False) -> Report:
        """What `build` would do; nothing is written.

        Raises:
            NoDocuments, IndexingCancelled
        """
        run = Run(on_progress, cancelled)
        with self._before(full=full) as before, self._cache(read_only=True) as cache:
            changes = run.compare(self._documents_dir, before)
            known = KnownVectors(before.shard, cache, self._embedder.scope)
            missing: set[str] = set()
            tokens = 0
            for chunks in run.groups(self._reader, changes.to_read, self._embedder.batch_size):
                counts = {each.chunk.text_hash: each.tokens for each in chunks}
                new = known.missing(list(counts)) - missing
                missing |= new
                tokens += sum(counts[hashed] for hashed in new)
            return self._report(run, before, changes, embedded=len(missing), tokens=tokens, planned=True)

    def build(
        self, on_progress: OnProgress, cancelled: Event, *, full: bool = False, force: bool = False
    ) -> Report:
        """Build the next snapshot and publish it, unless nothing has changed.

        Args:
            full: take nothing over from the index before.
            force: even if more than MAX_SHRINK of its documents would be gone.

        Raises:
            NoDocuments: there is nothing to index.
            IndexLocked: somebody else is writing.
            IndexingCancelled: `cancelled` was set.
            TooManyDocumentsLost
            IndexingError: the embedding model failed, or the index does not work.
            OSError: such as a full disk.
        """
        run = Run(on_progress, cancelled)
        with self._snapshots.writer(), self._before(full=full) as before:
            changes = run.compare(self._documents_dir, before)
            max_shrink = 1.0 if force else self._max_shrink
            check_shrink(
                before.documents, changes, run.indexed | {file.name for file in changes.to_read}, max_shrink
            )
            may_stay = before.is_current and before.has_chunks
            if may_stay and not changes and not changes.to_read:
                # A run that was killed may not have come to that.
                self._snapshots.prune()
                return self._report(run, before, changes)
            with self._snapshots.stage() as staging, self._cache() as cache:
                source, chunks = self._write(staging, before, changes, run, cache)
                if may_stay and run.documents == before.documents:
                    return self._report(run, before, changes, embedded=source.embedded, tokens=source.tokens)
                check_shrink(before.documents, changes, run.indexed, max_shrink)
                self._publish(staging, run, source.dimensions, chunks)
                if cache is not None:
                    cache.trim(self._embedder.cache_bytes)
            return self._report(
                run, before, changes, index=staging.id, embedded=source.embedded, tokens=source.tokens
            )

    def roll_back(self, snapshot_id: str | None = None) -> str:
        """Serve an older snapshot again, by default the newest before the served one; gives its id.

        Raises:
            SnapshotNotFound, SnapshotDamaged, IndexLocked
            FingerprintMismatch: the settings name another embedding model than its own.
            IndexingError: it does not work.
        """
        with self._snapshots.writer():
            snapshot = self._snapshots.find_for_rollback(snapshot_id)
            manifest = snapshot.manifest
            if not self._recipe.makes_vectors_of(manifest.embedding):
                raise FingerprintMismatch(
                    f"{manifest.id} was built with {manifest.embedding}, but the settings name "
                    f"{self._recipe.provider}/{self._recipe.model}: set them back first"
                )
            with snapshot.times_kept():
                check_answers(snapshot.path, chunks=manifest.chunks)
            self._snapshots.point_to(manifest.id)
            return manifest.id

    @contextmanager
    def _before(self, *, full: bool) -> Iterator[Before]:
        with open_before(self._snapshots, self._scratch, self._recipe, full=full) as before:
            yield before

    @contextmanager
    def _cache(self, *, read_only: bool = False) -> Iterator[EmbeddingCache | None]:
        if self._embedder.model is None:
            yield None
            return
        with EmbeddingCache(self._cache_path, read_only=read_only) as cache:
            yield cache

    def _write(
        self, staging: Staging, before: Before, changes: Changes, run: Run, cache: EmbeddingCache | None
    ) -> tuple[VectorSource, int]:
        """Fill the staging directory; also gives how many chunks there are."""
        target = Target(staging.path, average_length=before.shard.average_length if before.shard else None)
        known = KnownVectors(before.shard, cache, self._embedder.scope)
        try:
            with self._reader.started(len(changes.to_read)) as idle, self._embedder.session() as submit:
                if before.has_chunks and before.snapshot and before.shard:
                    target.take_over(before.snapshot, before.shard, changes)
                source = VectorSource(
                    known,
                    submit,
                    concurrency=self._embedder.concurrency,
                    dimensions=before.dimensions,
                    cancelled=run.cancelled,
                )
                groups = run.groups(self._reader, changes.to_read, self._embedder.batch_size, idle)
                for chunks in source.resolve(groups):
                    target.add(chunks)
                    run.embedded(len(chunks))
            run.saving()
            return source, target.save()
        finally:
            target.close()

    def _publish(self, staging: Staging, run: Run, dimensions: int, chunks: int) -> None:
        documents = run.documents
        if not run.indexed or not chunks:
            first = documents[0]
            raise NoDocuments(
                f"none of the {len(documents)} documents in {self._documents_dir} could be read; "
                f"{first.name}, for one: {first.problem}"
            )
        staging.write_documents(documents)
        recipe = self._recipe
        manifest = Manifest(
            id=staging.id,
            built_at=staging.built_at,
            engine=ENGINE_VERSION,
            reader=recipe.reader,
            embedding=Fingerprint(provider=recipe.provider, model=recipe.model, dimensions=dimensions),
            chunking=recipe.chunking,
            documents=len(run.indexed),
            unread_documents=len(documents) - len(run.indexed),
            chunks=chunks,
        )
        sealed = self._snapshots.seal(staging, manifest)
        with sealed.times_kept():
            check_answers(staging.path, chunks=chunks)
        self._snapshots.publish(staging)

    def _report(
        self,
        run: Run,
        before: Before,
        changes: Changes,
        *,
        index: str | None = None,
        embedded: int = 0,
        tokens: int = 0,
        planned: bool = False,
    ) -> Report:
        price = self._embedder.price
        return Report(
            index=index or (before.snapshot.manifest.id if before.snapshot else None),
            planned=planned,
            published=index is not None,
            changes=changes,
            documents=run.documents,
            chunks=sum(record.chunks for record in run.documents),
            embedded=embedded,
            tokens=tokens,
            cost=None if price is None else price * tokens / 1e6,
            seconds=run.seconds,
        )
