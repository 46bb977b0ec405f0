"""The writer's lock: it goes away with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.domain.errors import IndexingError, IndexLocked


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Be the only writer in a folder.

    The guard is held for a moment: by whoever takes the lock until its name is in it, and by whoever was
    refused while it reads that name. Without it, one could read the name of an earlier holder, or none.

    Raises:
        IndexLocked: somebody else is; says who.
        IndexingError: this user may not write there.
    """
    try:
        lock = (folder / "writer.lock").open("a+")
    except PermissionError:
        raise IndexingError(f"{folder} cannot be written to: let this user write there") from None
    with lock:
        with (folder / "writer.guard").open("a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise IndexLocked(
                    f"the index in {folder} is being written by {lock.read().strip()}: wait for it to end"
                ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
        yield
