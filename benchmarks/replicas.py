"""The service over HTTP with its index in PostgreSQL: its retrieval quality, and two replicas under load."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ir_measures import nDCG

from benchmarks import datasets
from benchmarks.database import database, environment
from benchmarks.datasets import ROOT
from benchmarks.loadgen import Result
from benchmarks.quality import mean, scifact_folder, scifact_rankings
from benchmarks.questions import write_questions
from benchmarks.report import Report
from benchmarks.service import indexed, openai_settings
from benchmarks.sides import Side, openai_side
from benchmarks.upstream import Provider, provider

_TYPICAL = Provider(embedding_ms=100, chat_ms=500)
_CYCLE_S = 0.6
_REPETITIONS = 3
_USERS = 100
_REPLICAS = 2
_QUESTIONS = 60_000


def measure() -> Report:
    """Measure quality and load with one database server."""
    report = Report("replicas")
    with database() as url:
        _measure_quality(report, environment(url, "scifact"))
        _measure_replicas(report, environment(url, "replicas"))
    return report.save()


def _measure_quality(report: Report, in_database: dict[str, str]) -> None:
    """Compare SciFact's nDCG between PostgreSQL and the embedded engine, without a key."""
    search = datasets.scifact()
    with scifact_folder(search) as folder:
        found = mean(nDCG @ 10, search, scifact_rankings(search, folder, **in_database))
        embedded = mean(nDCG @ 10, search, scifact_rankings(search, folder))
    report.add("SciFact nDCG@10, PostgreSQL", found)
    report.add("SciFact nDCG@10, embedded engine", embedded)
    report.add("SciFact nDCG@10, difference", abs(found - embedded), at_most=0.01)


def _measure_replicas(report: Report, in_database: dict[str, str]) -> None:
    """Load two servers on one database, with half of the users each, and a provider of common latency."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="rag-benchmark-"))
        questions = write_questions(Path(folder, "questions.jsonl"), _QUESTIONS)
        with provider(Provider()) as at_once:
            provided = openai_settings(f"{at_once.url}/v1")
            stack.enter_context(indexed(ROOT / "documents", **provided, **in_database))
        upstream = stack.enter_context(provider(_TYPICAL))
        sides = [
            stack.enter_context(openai_side(Path(folder), upstream, questions, **in_database))
            for _ in range(_REPLICAS)
        ]
        for number, side in enumerate(sides):
            side.asked = number * _QUESTIONS // _REPLICAS
        before = sum(side.server.cpu_s() for side in sides)
        results = [_load(sides) for _ in range(_REPETITIONS)]
        cpu_s = sum(side.server.cpu_s() for side in sides) - before
    _add_results(report, results, cpu_s)


def _load(sides: list[Side]) -> list[Result]:
    """Load all sides at once, counting whole cycles from the time when all users have started."""

    def ask(side: Side) -> Result:
        return side.load(
            _USERS // _REPLICAS, seconds=20 * _CYCLE_S, warm_up_s=5 * _CYCLE_S, ramp_s=5 * _CYCLE_S
        )

    with ThreadPoolExecutor(len(sides)) as threads:
        return list(threads.map(ask, sides))


def _add_results(report: Report, results: list[list[Result]], cpu_s: float) -> None:
    label = f"{_REPLICAS} replicas, {_USERS} users, 100 + 500 ms upstream"
    limit = _TYPICAL.limit(_USERS)
    throughput = median(sum(each.throughput for each in pair) for pair in results)
    every = [each for pair in results for each in pair]
    errors = sum((Counter(each.errors) for each in every), Counter[str]())
    kinds = "".join(f"; {count} x {kind}" for kind, count in errors.items())
    asked = sum(each.asked for each in every)
    latencies = [each.latency for each in every if each.latency]
    report.add(f"{label}, throughput", throughput, "queries/s")
    report.add(f"{label}, errors", errors.total(), f"of {asked:,}{kinds}", at_most=0)
    report.add(f"{label}, CPU a query, without the database's", cpu_s * 1000 / asked, "ms")
    report.add(f"{label}, p50", median(each.p50 for each in latencies), "ms")
    report.add(f"{label}, p99", median(each.p99 for each in latencies), "ms")
    report.add(f"{label}, throughput / limit of {limit:.1f}", throughput / limit, at_least=0.95)
