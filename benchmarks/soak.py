"""The growth of a server's memory over 100,000 questions, without a key and with a provider's models."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.corpus import service_index
from benchmarks.questions import write_questions
from benchmarks.report import Report
from benchmarks.sides import Samples, Side, add_errors, keyless_side, openai_side
from benchmarks.upstream import Provider, provider

_EARLY, _HALF, _LATE = 5_000, 50_000, 100_000
_CHUNKS = 20_000
_USERS = 16
_LIMIT_S = 3_600
_REST_S = 2.0


def measure() -> Report:
    """Measure both levels."""
    report = Report("soak")
    with TemporaryDirectory(prefix="rag-benchmark-") as folder:
        questions = write_questions(Path(folder, "questions.jsonl"), _LATE)
        with keyless_side(service_index(_CHUNKS), questions) as side:
            _soak(report, f"no key, {_CHUNKS:,} chunks", side)
        with (
            Samples.indexed() as samples,
            provider(Provider()) as upstream,
            openai_side(samples.index, upstream, questions) as side,
        ):
            _soak(report, "OpenAI level, no latency", side)
    return report.save()


def _soak(report: Report, label: str, side: Side) -> None:
    resident = {}
    for queries in (_EARLY, _HALF, _LATE):
        result = side.load(_USERS, _LIMIT_S, requests=queries - side.asked)
        time.sleep(_REST_S)
        memory = side.server.memory()
        resident[queries] = memory.total
        name = f"{label}, up to {queries:,} queries"
        report.add(f"{name}, throughput", result.throughput, "queries/s")
        add_errors(report, name, result, at_most=0)
        report.add(f"{name}, resident", memory.total, "MiB")
        report.add(f"{name}, of it not mapped from files", memory.anonymous, "MiB")
    report.add(
        f"{label}, resident after {_LATE:,} / after {_EARLY:,} queries",
        resident[_LATE] / resident[_EARLY],
        at_most=1.05,
    )
