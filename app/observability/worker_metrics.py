"""The shared folder in which several workers keep their metrics, so that any worker can show all of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# prometheus-client reads this when it is imported, so it must be set before a worker starts.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def shared_metrics(workers: int, parent: Path | None) -> Iterator[None]:
    """Provide the folder while the workers run; a single worker needs none.

    Raises:
        OSError: the folder cannot be made in `parent`.
    """
    if workers == 1:
        os.environ.pop(FOLDER, None)  # an inherited folder would hold another server's metrics
        yield
        return
    with tempfile.TemporaryDirectory(prefix="rag-metrics-", dir=parent, ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = folder
        yield


def forget_dead_workers(folder: Path) -> None:
    """Remove the gauges of workers that have ended; their counters stay, because a counter must not fall."""
    for path in folder.glob("gauge_live*_*.db"):
        if not _is_alive(int(path.stem.rsplit("_", 1)[1])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):  # it has ended, or its id is another user's now
        os.kill(process, 0)
        return True
    return False
