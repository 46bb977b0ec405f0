"""Which index is served: loading it, building the first one, and swapping in the next."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from app.engine import RagQueryEngine
from app.errors import FingerprintMismatch, IndexingCancelled, IndexingError, IndexLocked, IndexNotReady
from app.indexer import Indexer, Progress
from app.schemas import HealthResponse, HealthStatus, IndexInfo
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

    async def documents_json(self) -> bytes:
        """A JSON array of `DocumentRecord`.

        Read in a thread when asked for: they are not needed to answer, so loading does not wait for them.
        """
        return await asyncio.to_thread(self.snapshot.documents_json)


async def _in_daemon_thread(step: Callable[[], object]) -> None:
    """Run what may take long without keeping the process from ending, as `to_thread` does."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            step()
        except BaseException as raised:  # noqa: BLE001 - handed on to who waits, a panic of the engine, too
            error = raised if isinstance(raised, Exception) else RuntimeError(repr(raised))
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=work, daemon=True, name="index").start()
    await done


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
        self._unfit_id: str | None = None
        self._first_build_failed = False
        self._stopping = threading.Event()
        self._wake = asyncio.Event()
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
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._poll_s)

    def stop(self) -> None:
        """Refuse new requests, and let `run` return, after a running build as soon as that can end."""
        self._stopping.set()
        self._wake.set()

    async def _attempt(self, step: Callable[[], object]) -> None:
        try:
            await _in_daemon_thread(step)
        except IndexingError as error:
            self._fail(str(error), error.reason)
        except Exception as error:  # noqa: BLE001 - the watch must go on, whatever an index does
            self._fail("the index cannot be built or opened; the server's log has the reason", repr(error))

    def _fail(self, detail: str, reason: str) -> None:
        if detail != self._detail:
            logger.error("index: %s", reason)
        self._status, self._detail = HealthStatus.FAILED, detail

    def _follow_current(self) -> None:
        """Load the snapshot that `CURRENT` names, unless it is served already.

        One that fails is tried again each time: a disk or a volume may come back. Only one of another
        embedding model never will fit.
        """
        snapshot_id = self._snapshots.current_id()
        if self._served is not None and snapshot_id == self._served.snapshot.manifest.id:
            self._detail = None
            return
        if snapshot_id is None or snapshot_id == self._unfit_id:
            return
        try:
            opened = self._open_index(self._snapshots.open(snapshot_id))
            opened.engine.self_test()
        except FingerprintMismatch:
            self._unfit_id = snapshot_id
            raise
        self._served, self._unfit_id, self._detail = opened, None, None
        info = opened.info
        logger.info("index: serving %s, %d documents, %d chunks", info.id, info.documents, info.chunks)

    def _build_first(self) -> None:
        if self._served is not None or self._first_build_failed:
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
        except Exception:  # whichever: noted, and raised again
            # A build is not tried again by itself: a provider would be paid for the same each time.
            self._first_build_failed = True
            raise
        else:
            logger.info("index: built %s in %.1f s", report.snapshot, report.seconds)
            for record in report.unread:
                logger.warning("index: %s was not read: %s", record.name, record.problem)

    def _on_progress(self, progress: Progress) -> None:
        self._detail = f"the first index is being built: {progress}"
