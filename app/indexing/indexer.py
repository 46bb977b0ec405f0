"""Building an index: documents -> chunks -> vectors -> storage -> served.

A run starts from the previous index: of unchanged documents it reuses the chunks, and of changed ones the
vectors of texts that stayed. Reader processes, the embedding model and the engine work side by side; a few
documents and a few batches are in memory at a time. Until the last step, the served index stays as it was.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event

from app.documents.reader_pool import ReaderPool
from app.domain.errors import NoDocuments, TooManyDocumentsLost
from app.domain.fingerprint import Fingerprint
from app.indexing.changes import Changes
from app.indexing.prepare import Prepared
from app.indexing.progress import OnProgress
from app.indexing.report import Report
from app.indexing.run import Run
from app.indexing.shrink_guard import check_shrink
from app.indexing.vectors import Embedder, KnownVectors, VectorSource
from app.storage.contract import PreviousIndex, Recipe, Staging, Storage, VectorCache
from app.storage.manifest import Manifest


class Indexer:
    """Plans and builds indexes; synchronously, so a server runs it in a thread."""

    def __init__(
        self,
        *,
        documents_dir: Path,
        reader: ReaderPool[Prepared],
        recipe: Recipe,
        embedder: Embedder,
        storage: Storage,
        max_shrink: float,
    ) -> None:
        self._documents_dir = documents_dir
        self._reader = reader
        self._recipe = recipe
        self._embedder = embedder
        self._storage = storage
        self._max_shrink = max_shrink

    def plan(
        self, on_progress: OnProgress, cancelled: Event, *, full: bool = False, force: bool = False
    ) -> Report:
        """Return what `build` would do; nothing is written.

        Raises:
            NoDocuments: there is nothing to index.
            IndexingCancelled: `cancelled` was set.
        """
        run = Run(on_progress, cancelled)
        with (
            self._storage.previous_index(self._recipe, full=full) as previous,
            self._cache(read_only=True) as cache,
        ):
            changes = run.compare(self._documents_dir, previous)
            known = KnownVectors(previous.chunks, cache, self._embedder.scope)
            missing: set[str] = set()
            tokens = 0
            for chunks in run.groups(self._reader, changes.to_read, self._embedder.batch_size):
                counts = {each.chunk.text_hash: each.tokens for each in chunks}
                new = known.missing(list(counts)) - missing
                missing |= new
                tokens += sum(counts[hashed] for hashed in new)
            plan = self._report(run, previous, changes, embedded=len(missing), tokens=tokens, planned=True)
            try:
                check_shrink(previous.documents, changes, run.indexed, 1.0 if force else self._max_shrink)
            except TooManyDocumentsLost as error:
                return replace(plan, refused=error.reason)
            return plan

    def build(
        self, on_progress: OnProgress, cancelled: Event, *, full: bool = False, force: bool = False
    ) -> Report:
        """Build the next index and publish it, unless nothing has changed.

        Args:
            full: reuse nothing of the previous index.
            force: publish it even if more than MAX_SHRINK of the documents would be gone.

        Raises:
            NoDocuments: there is nothing to index.
            IndexLocked: somebody else is writing.
            IndexingCancelled: `cancelled` was set.
            TooManyDocumentsLost: more than MAX_SHRINK of the documents would be gone.
            IndexingError: the embedding model failed, or the index does not work.
            OSError: such as a full disk.
        """
        run = Run(on_progress, cancelled)
        with self._storage.writer(), self._storage.previous_index(self._recipe, full=full) as previous:
            changes = run.compare(self._documents_dir, previous)
            max_shrink = 1.0 if force else self._max_shrink
            check_shrink(
                previous.documents, changes, run.indexed | {file.name for file in changes.to_read}, max_shrink
            )
            may_stay = previous.is_current and previous.has_chunks
            if may_stay and not changes and not changes.to_read:
                # A run that was killed may not have come to that.
                self._storage.prune()
                return self._report(run, previous, changes)
            with self._storage.stage(previous) as staging, self._cache() as cache:
                source, chunks = self._write(staging, previous, changes, run, cache)
                if may_stay and run.documents == previous.documents:
                    return self._report(
                        run, previous, changes, embedded=source.embedded, tokens=source.tokens
                    )
                check_shrink(previous.documents, changes, run.indexed, max_shrink)
                self._publish(staging, run, source.dimensions, chunks)
                if cache is not None:
                    cache.trim(self._embedder.cache_bytes)
            return self._report(
                run, previous, changes, index=staging.id, embedded=source.embedded, tokens=source.tokens
            )

    def roll_back(self, snapshot_id: str | None = None) -> str:
        """Serve an older index again, by default the newest before the served one; return its id.

        Raises:
            SnapshotNotFound: there is none such.
            SnapshotDamaged: it is not what was written.
            IndexLocked: somebody else is writing.
            FingerprintMismatch: the settings name another embedding model than its own.
            IndexingError: it does not work.
        """
        return self._storage.roll_back(snapshot_id, self._recipe.check_vectors_of)

    def _cache(self, *, read_only: bool = False) -> AbstractContextManager[VectorCache | None]:
        return nullcontext() if self._embedder.model is None else self._storage.cache(read_only=read_only)

    def _write(
        self, staging: Staging, previous: PreviousIndex, changes: Changes, run: Run, cache: VectorCache | None
    ) -> tuple[VectorSource, int]:
        """Write all chunks; return where their vectors came from, and how many chunks there are."""
        known = KnownVectors(previous.chunks, cache, self._embedder.scope)
        with self._reader.started(len(changes.to_read)) as idle, self._embedder.session() as submit:
            if previous.has_chunks and previous.chunks:
                staging.reuse(previous, changes.reused)
            source = VectorSource(
                known,
                submit,
                concurrency=self._embedder.concurrency,
                dimensions=previous.dimensions,
                cancelled=run.cancelled,
            )
            groups = run.groups(self._reader, changes.to_read, self._embedder.batch_size, idle)
            for entries in source.resolve(groups):
                staging.add(entries)
                run.embedded(len(entries))
        run.saving()
        return source, staging.save()

    def _publish(self, staging: Staging, run: Run, dimensions: int, chunks: int) -> None:
        documents = run.documents
        if not run.indexed or not chunks:
            first = documents[0]
            raise NoDocuments(
                f"none of the {len(documents)} documents in {self._documents_dir} could be read; "
                f"{first.name}, for one: {first.problem}"
            )
        recipe = self._recipe
        manifest = Manifest(
            id=staging.id,
            built_at=staging.built_at,
            engine=self._storage.engine,
            reader=recipe.reader,
            embedding=Fingerprint(recipe.provider, recipe.model, dimensions),
            chunking=recipe.chunking,
            documents=len(run.indexed),
            unread_documents=len(documents) - len(run.indexed),
            chunks=chunks,
        )
        staging.publish(manifest, documents)

    def _report(
        self,
        run: Run,
        previous: PreviousIndex,
        changes: Changes,
        *,
        index: str | None = None,
        embedded: int = 0,
        tokens: int = 0,
        planned: bool = False,
    ) -> Report:
        price = self._embedder.price
        return Report(
            index=index or (previous.manifest.id if previous.manifest else None),
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
