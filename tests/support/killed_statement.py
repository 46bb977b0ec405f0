"""A reindex into PostgreSQL in a process of its own, which kills itself before something that it sends."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from threading import Event
from typing import Any

import psycopg

from app.bootstrap.indexing import make_indexer
from app.config.settings import Settings
from app.domain.errors import IndexingError

DONE, FAILED, KILLED = range(3)

# Forked from a process that has imported everything, and has no threads.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def reindex(settings: Settings, *, rollback: bool = False, kill_before: int = 0) -> tuple[int, int]:
    """Build, or go back, and be killed with SIGKILL before that exchange with the database, from 1.

    An exchange is what waits for the server: a connection, a statement, BEGIN, COMMIT, a part of a COPY.

    Args:
        kill_before: 0 for not at all.

    Returns:
        DONE, FAILED with an IndexingError, or KILLED; and how many exchanges had begun.
    """
    begun: Synchronized[int] = _context.Value("i", 0)
    # Not the exit code: a thread that starts a process asks for those of all others', and takes them.
    status: Synchronized[int] = _context.Value("i", KILLED)
    process = _context.Process(target=_reindex, args=(settings, rollback, kill_before, begun, status))
    process.start()
    process.join()
    assert status.value != KILLED or begun.value == kill_before, "it crashed by itself"
    return status.value, begun.value


def _reindex(
    settings: Settings, rollback: bool, kill_before: int, begun: Synchronized[int], status: Synchronized[int]
) -> None:
    numbers = itertools.count(1)
    wait: Callable[..., Any] = psycopg.Connection.wait

    def counted(*arguments: Any, **more: Any) -> Any:
        begun.value = next(numbers)
        if begun.value == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        return wait(*arguments, **more)

    # Of this process, which does nothing else: everything that is sent goes through it.
    psycopg.Connection.wait = counted  # type: ignore[method-assign]
    try:
        indexer = make_indexer(settings)
        if rollback:
            indexer.roll_back()
        else:
            indexer.build(lambda _: None, Event(), force=True)
        status.value = DONE
    except IndexingError:
        status.value = FAILED
