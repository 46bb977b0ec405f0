"""`swaps` with the index in PostgreSQL: 50 reindexes under a constant load of questions.

The database runs on the same machine: it copies the rows and builds HNSW anew for each generation, on the
processors that the server and the questions need, too.
"""

from __future__ import annotations

from benchmarks.database import database, environment
from benchmarks.report import Report
from benchmarks.swaps import SWAPS, measure_swaps


def measure(number: int = SWAPS) -> Report:
    with database() as url:
        return measure_swaps(Report("flips"), environment(url, "flips"), p99_at_most=None, number=number)
