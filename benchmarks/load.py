"""The time from a stored index to the first answer, with imports and models already in memory.

The files are in the page cache, as when a service restarts on a running machine. The engine drops its files
from that cache when it closes them, so they are read once before each measurement; loading from the disk is
measured separately.
"""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

from benchmarks.corpus import naive_index, questions, service_index
from benchmarks.probe import run_probe
from benchmarks.report import Report

_REPETITIONS = 9
# Each takes about a minute.
_REPETITIONS_NAIVE = 2


def measure() -> Report:
    """Measure the service with three sizes, and the naive service with one."""
    report = Report("load")
    sizes = {chunks: service_index(chunks) for chunks in (1_000, 20_000, 100_000)}
    naive = naive_index(20_000)
    times: dict[int, list[float]] = {chunks: [] for chunks in sizes}
    from_disk: dict[int, list[float]] = {chunks: [] for chunks in sizes}
    # In turns, so that other load of the machine affects all sizes alike.
    for _ in range(_REPETITIONS):
        for chunks, folder in sizes.items():
            read_into_cache(folder)
            times[chunks].append(_first_answer("service", folder))
            _drop_from_cache(folder)
            from_disk[chunks].append(_first_answer("service", folder))
    for chunks in sizes:
        report.add(f"service, {chunks:,} chunks", median(times[chunks]), "ms")
    for chunks in sizes:
        report.add(
            f"service, {chunks:,} chunks, files not in the page cache", median(from_disk[chunks]), "ms"
        )
    read_into_cache(naive)
    slow = median(_first_answer("naive", naive) for _ in range(_REPETITIONS_NAIVE))
    report.add("naive, 20,000 chunks", slow, "ms")
    report.add("naive / service, 20,000 chunks", slow / median(times[20_000]), at_least=50)
    report.add("service, 100,000 / 1,000 chunks", median(times[100_000]) / median(times[1_000]), at_most=1.5)
    return report.save()


def _first_answer(side: str, index: Path) -> float:
    return run_probe(side, index, questions(2)).first_answer_ms


def read_into_cache(folder: Path) -> None:
    """Read all files of a folder, so that they are in the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()


def _drop_from_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
