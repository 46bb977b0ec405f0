"""Which index is served: loading it, building the first one, and swapping in the next."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from app.engine import RagQueryEngine
from app.errors import IndexingCancelled, IndexingError, IndexLocked, IndexNotReady
from app.indexer import Indexer, Progress
from app.schemas import DocumentRecord, HealthResponse, HealthStatus, IndexInfo
from app.snapshots import Snapshot, SnapshotStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedIndex:
    """A loaded snapshot. A request takes it once and keeps it to its end."""

    snapshot: Snapshot
    engine: RagQueryEngine

    @property
    def info(self) -> IndexInfo:
        manifest = self.snapshot.manifest
        return IndexInfo(
            id=manifest.id,
            documents=manifest.documents,
            chunks=manifest.chunks,
            built_at=manifest.built_at,
            embedding_model=manifest.embedding.model,
        )

    async def read_documents(self) -> list[DocumentRecord]:
        """From the disk, in a thread: they are not needed to answer, so loading does not wait for them."""
        return await asyncio.to_thread(self.snapshot.read_documents)


class _FirstBuild(Enum):
    """What became of building an index where there was none."""

    POSSIBLE = auto()
    FAILED = auto()


class IndexManager:
    """Holds the served index and follows `CURRENT`.

    Readers take `current`, one reference that is replaced as a whole. `start` loads what there is, so that a
    server that starts with an index never answers without; `run` does the rest until it is cancelled.
    """

    def __init__(
        self,
        *,
        snapshots: SnapshotStore,
        open_index: Callable[[Snapshot], ServedIndex],
        indexer: Indexer,
        poll_s: float,
    ) -> None:
        self._snapshots = snapshots
        self._open_index = open_index
        self._indexer = indexer
        self._poll_s = poll_s
        self._served: ServedIndex | None = None
        self._refused_id: str | None = None
        self._first_build = _FirstBuild.POSSIBLE
        self._stopping = threading.Event()
        self._status = HealthStatus.STARTING
        self._detail: str | None = "the index is being loaded"

    @property
    def current(self) -> ServedIndex:
        """The index to answer from.

        Raises:
            IndexNotReady: there is none (yet), or the server is about to stop.
        """
        if self._served is None or self._stopping.is_set():
            raise IndexNotReady(
                self._detail or "the index is not ready", retry_after_s=max(1, round(self._poll_s))
            )
        return self._served

    def health(self) -> HealthResponse:
        if self._stopping.is_set():
            return HealthResponse(
                status=HealthStatus.DRAINING, index_ready=False, detail="the server is stopping"
            )
        if self._served is None:
            return HealthResponse(status=self._status, index_ready=False, detail=self._detail)
        return HealthResponse(
            status=HealthStatus.OK, index_ready=True, index=self._served.info, detail=self._detail
        )

    async def start(self) -> None:
        """Load the index that `CURRENT` names, if it names one."""
        await self._attempt(self._follow_current)

    async def run(self) -> None:
        """Build the first index if there is none, then swap in each new one."""
        while not self._stopping.is_set():
            await self._attempt(self._build_first)
            await self._attempt(self._follow_current)
            await asyncio.sleep(self._poll_s)

    def stop(self) -> None:
        """Refuse new requests, and let a running build end as soon as it can."""
        self._stopping.set()

    async def _attempt(self, step: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(step)
        except IndexingError as error:
            self._fail(str(error))
        except Exception:
            logger.exception("index: unexpected failure")
            self._fail("the index could not be opened; the server's log has the reason")

    def _fail(self, detail: str) -> None:
        if detail != self._detail:
            logger.error("index: %s", detail)
        self._status, self._detail = HealthStatus.FAILED, detail

    def _follow_current(self) -> None:
        """Load the snapshot that `CURRENT` names, unless it is served already or was found unfit before."""
        snapshot_id = self._snapshots.current_id()
        served_id = self._served.snapshot.manifest.id if self._served else None
        if snapshot_id is None or snapshot_id in (served_id, self._refused_id):
            return
        # Set before the attempt: a snapshot never changes, so one that is unfit stays so.
        self._refused_id = snapshot_id
        opened = self._open_index(self._snapshots.open(snapshot_id))
        opened.engine.self_test()
        self._served, self._refused_id, self._detail = opened, None, None
        logger.info(
            "index: serving %s, %d documents, %d chunks",
            snapshot_id,
            opened.info.documents,
            opened.info.chunks,
        )

    def _build_first(self) -> None:
        if self._served is not None or self._first_build is _FirstBuild.FAILED:
            return
        if self._snapshots.current_id() is not None:
            return
        self._status, self._detail = HealthStatus.BUILDING, "the first index is being built"
        try:
            report = self._indexer.build(self._on_progress, self._stopping)
        except IndexLocked:
            self._detail = "the first index is being built by another process"
        except IndexingCancelled:
            logger.info("index: the build was cancelled")
        except IndexingError:
            self._first_build = _FirstBuild.FAILED
            raise
        else:
            logger.info("index: built %s in %.1f s", report.snapshot, report.seconds)
            for record in report.unread:
                logger.warning("index: %s was not read: %s", record.name, record.problem)

    def _on_progress(self, progress: Progress) -> None:
        self._detail = f"the first index is being built: {progress}"
