"""A reindex into PostgreSQL in a process that kills itself before a given exchange with the database."""

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

from app.bootstrap.indexing import make_indexer, make_storage
from app.config.settings import Settings
from app.domain.errors import IndexingError
from tests.support.timing import PATIENT

DONE, FAILED, KILLED = range(3)

# Forked from a process without threads that has imported everything.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def reindex(settings: Settings, *, rollback: bool = False, kill_before: int = 0) -> tuple[int, int]:
    """Build or roll back, in a process that sends itself SIGKILL before an exchange with the database.

    An exchange is anything that waits for the server: a connection, a statement, BEGIN, COMMIT, a part of a
    COPY.

    Args:
        kill_before: the number of the exchange, counted from 1; 0 for none.

    Returns:
        DONE, FAILED after an IndexingError, or KILLED; and the number of exchanges that had begun.
    """
    begun: Synchronized[int] = _context.Value("i", 0)
    # Not the exit code: another thread that starts a process may collect it first.
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

    # Everything that is sent goes through this method, and this process does nothing else.
    psycopg.Connection.wait = counted  # type: ignore[method-assign]
    try:
        indexer = make_indexer(settings, make_storage(settings, PATIENT.database))
        if rollback:
            indexer.roll_back()
        else:
            indexer.build(lambda _: None, Event(), force=True)
        status.value = DONE
    except IndexingError:
        status.value = FAILED
