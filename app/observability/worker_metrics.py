"""Where the figures of several workers are kept, so that any of them can show those of all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# prometheus-client looks there when it is imported: it must be set before, which is before a worker starts.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def shared_metrics(workers: int, parent: Path | None) -> Iterator[None]:
    """Around the lives of all workers.

    Raises:
        OSError: nothing can be written there.
    """
    if workers == 1:
        os.environ.pop(FOLDER, None)  # one that is inherited would hold another server's figures
        yield
        return
    with tempfile.TemporaryDirectory(prefix="rag-metrics-", dir=parent, ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = folder
        yield


def forget_dead_workers(folder: Path) -> None:
    """Remove what was true only while a worker lived. What it has counted stays: counters never fall."""
    for path in folder.glob("gauge_live*_*.db"):
        if not _is_alive(int(path.stem.rsplit("_", 1)[1])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):  # gone, or its number is another user's now
        os.kill(process, 0)
        return True
    return False
