"""`swaps` with the index in PostgreSQL: 50 reindexes under a constant load of questions.

The database runs on the same machine: it copies the rows and rebuilds HNSW for each generation, on the
processors that the server and the load generator also need.
"""

from __future__ import annotations

from benchmarks.database import database, environment
from benchmarks.report import Report
from benchmarks.swaps import SWAPS, measure_swaps


def measure(number: int = SWAPS) -> Report:
    """Measure `swaps` with a database."""
    with database() as url:
        return measure_swaps(Report("flips"), environment(url, "flips"), p99_at_most=None, number=number)
