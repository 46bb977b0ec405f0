"""Which index is served: loading it, building the first one, and swapping in the next."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from app.domain.errors import (
    DatabaseUnavailable,
    IndexingCancelled,
    IndexingError,
    IndexLocked,
    IndexNotReady,
)
from app.domain.index import HealthResponse, HealthStatus, IndexInfo
from app.indexing.indexer import Indexer
from app.indexing.progress import Progress
from app.serving.loader import Loader
from app.serving.served_index import ServedIndex

logger = logging.getLogger(__name__)

# What was embedded is kept, so that a provider is not paid twice for another try.
BUILD_RETRY_S = 60.0


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


class IndexObserver(Protocol):
    """Told in the thread that follows what is to be served."""

    def served(self, info: IndexInfo) -> None: ...

    def failed(self) -> None: ...


class Unobserved:
    def served(self, info: IndexInfo) -> None: ...

    def failed(self) -> None: ...


class IndexManager:
    """Holds the served index and follows what is to be served.

    Readers take `current`, one reference that is replaced as a whole. `start` loads what there is, so that a
    server that starts with an index never answers without; `run` does the rest until it is cancelled.
    """

    def __init__(
        self,
        *,
        loader: Loader,
        indexer: Indexer,
        poll_s: float,
        build_retry_s: float = BUILD_RETRY_S,
        observer: IndexObserver | None = None,
    ) -> None:
        self._loader = loader
        self._indexer = indexer
        self._observer = observer or Unobserved()
        self._poll_s = poll_s
        self._build_retry_s = build_retry_s
        self._build_not_before = 0.0
        self._served: ServedIndex | None = None
        # The database, if the index is in one.
        self._is_reachable = True
        # Of indexes that nobody reads any more. Closing takes up to 50 ms: not for the last reader to do.
        self._unused: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._scrub_stopped = threading.Event()
        self._stopping = threading.Event()
        self._wake = asyncio.Event()
        self._status = HealthStatus.STARTING
        self._detail: str | None = "the index is being loaded"

    @property
    def current(self) -> ServedIndex:
        """The index to answer from.

        Raises:
            IndexNotReady: there is none (yet).
        """
        if self._served is None or not self._is_reachable:
            raise IndexNotReady(
                self._detail or "the index is not ready", retry_after_s=max(1, round(self._poll_s))
            )
        return self._served

    def health(self) -> HealthResponse:
        if self._stopping.is_set():
            return HealthResponse(
                status=HealthStatus.DRAINING, index_ready=False, detail="the server is stopping"
            )
        if self._served is None or not self._is_reachable:
            return HealthResponse(status=self._status, index_ready=False, detail=self._detail)
        return HealthResponse(
            status=HealthStatus.OK, index_ready=True, index=self._served.info, detail=self._detail
        )

    async def start(self) -> None:
        """Load the index that is there, if one is."""
        await self._loader.open()
        await self._attempt(self._loader.clean_up)
        await self._attempt(self._follow_current)

    async def run(self) -> None:
        """Build the first index if there is none, then swap in each new one."""
        listening = asyncio.create_task(self._loader.listen(self._wake.set))
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                await self._attempt(self._step)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._poll_s)
        finally:
            listening.cancel()

    def stop(self) -> None:
        """Stop being ready, and let `run` return, after a running build as soon as that can end.

        Requests in work still get their answers.
        """
        self._stopping.set()
        self._scrub_stopped.set()
        self._wake.set()

    async def close(self) -> None:
        """Close the index; after `stop`, when no request is in work."""
        self._served = None
        await asyncio.to_thread(self._close_unused)
        await self._loader.close()

    async def _attempt(self, step: Callable[[], object]) -> None:
        try:
            await _in_daemon_thread(step)
        except IndexingError as error:
            if isinstance(error, DatabaseUnavailable):
                self._is_reachable = False
            self._fail(str(error), error.reason)
        except Exception as error:  # noqa: BLE001 - the watch must go on, whatever an index does
            self._fail("the index cannot be built or opened; the server's log has the reason", repr(error))

    def _fail(self, detail: str, reason: str) -> None:
        if detail != self._detail:
            self._tell_problem(reason)
        self._status, self._detail = HealthStatus.FAILED, detail

    def _tell_problem(self, problem: str) -> None:
        logger.error("index: %s", problem)
        self._observer.failed()

    def _step(self) -> None:
        self._close_unused()
        if not self._follow_current():
            self._build_first()
            self._follow_current()

    def _follow_current(self) -> bool:
        """Serve what is to be served; False where there is no index at all."""
        choice = self._loader.choose(self._served)
        if choice is None:
            return False
        if choice.problem and choice.problem != self._detail:
            self._tell_problem(choice.problem)
        self._detail = choice.problem
        self._is_reachable = True
        if choice.index is not self._served:
            self._serve(choice.index)
        return True

    def _serve(self, index: ServedIndex) -> None:
        self._scrub_stopped.set()
        self._scrub_stopped = threading.Event()
        self._served = index
        info = index.info
        self._observer.served(info)
        logger.info("index: serving %s, %d documents, %d chunks", info.id, info.documents, info.chunks)
        weakref.finalize(index.engine, self._unused.put, index.close).atexit = False
        threading.Thread(
            target=self._loader.scrub, args=(index, self._scrub_stopped), daemon=True, name="scrub"
        ).start()

    def _close_unused(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._unused.get_nowait()()

    def _build_first(self) -> None:
        if self._served is not None or time.monotonic() < self._build_not_before:
            return
        self._status, self._detail = HealthStatus.BUILDING, "the first index is being built"
        try:
            report = self._indexer.build(self._on_progress, self._stopping)
        except IndexLocked:
            self._detail = "the first index is being built by another process"
        except IndexingCancelled:
            logger.info("index: the build was cancelled")
        except Exception:  # whichever: noted, and raised again
            self._build_not_before = time.monotonic() + self._build_retry_s
            raise
        else:
            if report.published:  # and not by another process, in the meantime
                logger.info("index: built %s in %.1f s", report.index, report.seconds)
            for record in report.failed:
                logger.warning("index: %s was not read: %s", record.name, record.problem)

    def _on_progress(self, progress: Progress) -> None:
        self._detail = f"the first index is being built: {progress}"
