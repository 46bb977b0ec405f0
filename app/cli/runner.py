"""What the commands that write indexes have in common: how they are stopped, and how they fail."""

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
    """Let a server on the same machine have the processor first, also before what this process starts."""
    os.nice(_NICENESS)


def cancelled_by_signals() -> threading.Event:
    """Set by the first SIGINT or SIGTERM, for a clean end; the second raises KeyboardInterrupt."""
    cancelled = threading.Event()

    def cancel(*_: object) -> None:
        if cancelled.is_set():
            raise KeyboardInterrupt
        cancelled.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, cancel)
    return cancelled


def exit_status(work: Callable[[], int]) -> int:
    """What the work gives, or what its failure means, which is printed."""
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
        print("Stopped at once; the served index is as it was", file=sys.stderr)
    return FAILED
