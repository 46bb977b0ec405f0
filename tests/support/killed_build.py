"""A build in a process that kills itself."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from threading import Event

from app.bootstrap.indexing import make_indexer
from app.config.settings import Settings
from app.domain.errors import IndexingError
from app.indexing.progress import Progress

DONE, FAILED, KILLED = 0, 3, -signal.SIGKILL

# Forked from a process without threads that has imported everything: half a second faster than spawned.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def killed_build(settings: Settings, *, at_progress: int, full: bool) -> int:
    """Build in a process that sends itself SIGKILL at the given call of `on_progress`, counted from 1.

    Returns:
        DONE, FAILED after an IndexingError, or KILLED.
    """
    process = _context.Process(target=_build, args=(settings, at_progress, full))
    process.start()
    process.join()
    assert process.exitcode in {DONE, FAILED, KILLED}
    return process.exitcode


def _build(settings: Settings, at_progress: int, full: bool) -> None:
    calls = itertools.count(1)

    def on_progress(_: Progress) -> None:
        if next(calls) == at_progress:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        make_indexer(settings).build(on_progress, Event(), full=full, force=True)
    except IndexingError:
        sys.exit(FAILED)
