"""Copies of index files, which are sparse: 140 MB long, with 1 MB of data."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder with the holes and times of its files."""
    shutil.copytree(source, target, copy_function=_copy)


def _copy(source: str, target: str) -> None:
    with Path(target).open("wb") as file:
        for offset, data in _extents(Path(source)):
            file.seek(offset)
            file.write(data)
        file.truncate(Path(source).stat().st_size)
    shutil.copystat(source, target)


def _extents(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole is left
                    return
                raise
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, os.pread(file.fileno(), end - start, start)
