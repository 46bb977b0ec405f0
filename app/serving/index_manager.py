"""The index that is served: loading it, building the first one, and swapping in the next."""

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
from app.domain.index import Health, HealthStatus, IndexInfo
from app.indexing.indexer import Indexer
from app.indexing.progress import Progress
from app.serving.loader import Loader
from app.serving.served_index import ServedIndex

logger = logging.getLogger(__name__)

# The embedding cache keeps the vectors of a failed build, so that a retry does not pay for them again.
BUILD_RETRY_S = 60.0


async def _in_daemon_thread(step: Callable[[], object]) -> None:
    """Run a long step in a thread that does not keep the process from ending, unlike `asyncio.to_thread`."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            step()
        except BaseException as raised:  # noqa: BLE001 - passed on to the waiting task, also a panic of the engine
            error = raised if isinstance(raised, Exception) else RuntimeError(repr(raised))
        with suppress(RuntimeError):  # the loop is closed, and no task waits
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=work, daemon=True, name="index").start()
    await done


class IndexObserver(Protocol):
    """An observer of the served index, called in the manager's thread."""

    def served(self, info: IndexInfo) -> None:
        """Record that an index is served from now on."""

    def failed(self) -> None:
        """Record that an index could not be built or loaded."""


class Unobserved:
    """An observer that ignores everything."""

    def served(self, info: IndexInfo) -> None: ...

    def failed(self) -> None: ...


class IndexManager:
    """The holder of the served index, which it replaces when a new one is published.

    Readers take `current`, a single reference that is replaced atomically. `start` loads an existing index
    before the server accepts requests; `run` builds and swaps until `stop` is called.
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
        # False while the database that holds the index cannot be reached.
        self._is_reachable = True
        # The `close` of each index without readers. It takes up to 50 ms, too long for the last reader.
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
            IndexNotReady: no index is served, or its database cannot be reached.
        """
        if self._served is None or not self._is_reachable:
            raise IndexNotReady(
                self._detail or "the index is not ready", retry_after_s=max(1, round(self._poll_s))
            )
        return self._served

    def health(self) -> Health:
        """Return the status, the served index if it is ready, and the reason for any problem."""
        if self._stopping.is_set():
            return Health(HealthStatus.DRAINING, detail="the server is stopping")
        if self._served is None or not self._is_reachable:
            return Health(self._status, detail=self._detail)
        return Health(HealthStatus.OK, self._served.info, self._detail)

    async def start(self) -> None:
        """Load the existing index, if there is one."""
        await self._loader.open()
        await self._attempt(self._loader.clean_up)
        await self._attempt(self._follow_current)

    async def run(self) -> None:
        """Build the first index if there is none, then swap in each new one, until `stop` is called."""
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
        """Become unready and let `run` return, after cancelling a build; requests in flight are completed."""
        self._stopping.set()
        self._scrub_stopped.set()
        self._wake.set()

    async def close(self) -> None:
        """Close the index; to be called after `stop`, when no request is in flight."""
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
        except Exception as error:  # noqa: BLE001 - the loop must survive any error of an index
            self._fail("the index cannot be built or opened; the server's log has the reason", repr(error))

    def _fail(self, detail: str, reason: str) -> None:
        if detail != self._detail:
            self._report_problem(reason)
        self._status, self._detail = HealthStatus.FAILED, detail

    def _report_problem(self, problem: str) -> None:
        logger.error("index: %s", problem)
        self._observer.failed()

    def _step(self) -> None:
        self._close_unused()
        if not self._follow_current():
            self._build_first()
            self._follow_current()

    def _follow_current(self) -> bool:
        """Serve the index that the loader chooses; return False if there is no index at all."""
        choice = self._loader.choose(self._served)
        if choice is None:
            return False
        if choice.problem and choice.problem != self._detail:
            self._report_problem(choice.problem)
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
        except Exception:  # any error postpones the next build, and is raised again
            self._build_not_before = time.monotonic() + self._build_retry_s
            raise
        else:
            if report.published:  # False if another process published first
                logger.info("index: built %s in %.1f s", report.index, report.seconds)
            for record in report.failed:
                logger.warning("index: %s was not read: %s", record.name, record.problem)

    def _on_progress(self, progress: Progress) -> None:
        self._detail = f"the first index is being built: {progress}"
