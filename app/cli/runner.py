"""Priority, cancellation and exit status of the commands that write indexes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

from app.config.settings import SettingsError
from app.domain.errors import IndexingError

DONE, FAILED, WRONG_USAGE = 0, 1, 2
_NICENESS = 10


def lower_priority() -> None:
    """Give a server on the same machine precedence over this process and its later children."""
    os.nice(_NICENESS)


def cancelled_by_signals() -> threading.Event:
    """Return an event that the first SIGINT or SIGTERM sets; the second one raises KeyboardInterrupt."""
    cancelled = threading.Event()

    def cancel(*_: object) -> None:
        if cancelled.is_set():
            raise KeyboardInterrupt
        cancelled.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, cancel)
    return cancelled


def exit_status(work: Callable[[], int]) -> int:
    """Do some work and return its exit status; if it fails, print the reason and return the status for it."""
    try:
        return work()
    except SettingsError as error:
        print(f"Wrong setting: {error}", file=sys.stderr)
        return WRONG_USAGE
    except IndexingError as error:
        print(f"Failed: {error.reason}", file=sys.stderr)
    except OSError as error:
        print(f"Failed: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped at once; the served index is unchanged", file=sys.stderr)
    return FAILED
