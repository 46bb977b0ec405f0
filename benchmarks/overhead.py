"""The cost of the middleware around the routes: the null app with all of it, and without."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.questions import write_questions
from benchmarks.report import Report
from benchmarks.sides import null_side

_USERS = 32
_REQUESTS = 6_000
_REPETITIONS = 5
_LIMIT_S = 60.0


def measure() -> Report:
    """Measure both in turns."""
    report = Report("overhead")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rag-benchmark-")))
        questions = write_questions(folder / "questions.jsonl", _REQUESTS)
        bare = stack.enter_context(null_side(questions))
        layered = stack.enter_context(null_side(questions, layers=True))
        figures: dict[str, list[tuple[float, float]]] = {bare.name: [], layered.name: []}
        for _ in range(_REPETITIONS):
            for side in (bare, layered):
                side.asked = 0
                cpu_ms, result = side.cpu_ms(_USERS, _REQUESTS)
                figures[side.name].append((result.throughput, cpu_ms))
    for name, found in figures.items():
        report.add(f"{name}, throughput, {_USERS} users", median(each for each, _ in found), "requests/s")
        report.add(f"{name}, CPU a request", median(each for _, each in found), "ms")
    pairs = zip(figures[layered.name], figures[bare.name], strict=True)
    ratio = median(one / other for (one, _), (other, _) in pairs)
    report.add("with all layers / null app, throughput, median of pairs", ratio, at_least=0.85)
    return report.save()
