"""Questions over HTTP: their cost, the throughput under load, and the time to the first token.

Server, load generator and provider are separate processes, and the sides that are compared run in the same
minutes on the same machine.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.corpus import service_index
from benchmarks.loadgen import Result, middle
from benchmarks.questions import write_questions
from benchmarks.report import Report
from benchmarks.sides import (
    Samples,
    Side,
    add_load,
    direct_side,
    keyless_side,
    naive_side,
    null_side,
    openai_side,
    streaming,
)
from benchmarks.upstream import Provider, provider

_QUESTIONS = 150_000
_AT_ONCE = Provider()
_TYPICAL = Provider(embedding_ms=100, chat_ms=500)
_STREAMED = Provider(embedding_ms=100, chat_ms=500, tokens=20, token_ms=20)
# The time of an answer. Users start evenly over a few cycles, and are counted over a whole number of them.
_CYCLE_S = 0.6
_REPETITIONS = 3
# For loads that end with a number of requests.
_LIMIT_S = 300


def measure() -> Report:
    """Measure the service, the naive service, the provider itself and the null app."""
    report = Report("online")
    with TemporaryDirectory(prefix="rag-benchmark-") as folder, Samples.indexed() as samples:
        questions = write_questions(Path(folder, "questions.jsonl"), _QUESTIONS)
        _measure_cpu(report, samples, questions)
        naive = _measure_hundred_users(report, samples, questions)
        _measure_thousand_users(report, samples, questions, naive)
        _measure_first_token(report, samples, questions)
        _measure_keyless(report, questions)
    return report.save()


def _measure_cpu(report: Report, samples: Samples, questions: Path) -> None:
    """Measure the CPU time of a query when the provider answers at once."""
    users = 8
    with ExitStack() as stack:
        upstream = stack.enter_context(provider(_AT_ONCE))
        service = stack.enter_context(openai_side(samples.index, upstream, questions))
        naive = stack.enter_context(naive_side(samples, upstream, questions))
        for side in (service, naive):
            side.load(users, _LIMIT_S, requests=50)
        ours, theirs = [], []
        for _ in range(_REPETITIONS):
            ours.append(service.cpu_ms(users, requests=1_000))
            theirs.append(naive.cpu_ms(users, requests=200))
    costs = []
    for name, measured in (("service", ours), ("naive", theirs)):
        label = f"{name}, {users} users, no latency upstream"
        costs.append(median(cost for cost, _ in measured))
        report.add(f"{label}, CPU a query", costs[-1], "ms")
        add_load(report, label, middle([result for _, result in measured]), errors_at_most=_bar(name))
    report.add("service / naive, CPU a query", costs[0] / costs[1], at_most=0.25)


def _measure_hundred_users(report: Report, samples: Samples, questions: Path) -> Result:
    """Load one worker with a provider of common latency; return the result of the naive service."""
    users, limit = 100, _TYPICAL.limit(100)
    with ExitStack() as stack:
        upstream = stack.enter_context(provider(_TYPICAL))
        service = stack.enter_context(openai_side(samples.index, upstream, questions))
        naive = stack.enter_context(naive_side(samples, upstream, questions))
        result = middle([_steady(service, users, cycles=20) for _ in range(_REPETITIONS)])
        slow = naive.load(users, seconds=20, warm_up_s=10, ramp_s=_CYCLE_S)
    label = f"service, {users} users, 100 + 500 ms upstream"
    add_load(report, label, result, errors_at_most=0)
    report.add(f"{label}, throughput / limit of {limit:.1f}", result.throughput / limit, at_least=0.95)
    report.add(f"{label}, p99 / 600 ms", _p99(result) / 600, at_most=1.3)
    add_load(report, f"naive, {users} users, 100 + 500 ms upstream", slow)
    return slow


def _measure_thousand_users(report: Report, samples: Samples, questions: Path, naive_100: Result) -> None:
    """Load two workers, and measure how soon the event loop answers a probe."""
    users, path = 1_000, "/health/live"
    with ExitStack() as stack:
        upstream = stack.enter_context(provider(_TYPICAL))
        service = stack.enter_context(openai_side(samples.index, upstream, questions, WORKERS="2"))
        naive = stack.enter_context(naive_side(samples, upstream, questions))
        result = _steady(service, users, cycles=30, probe=path)
        slow = naive.load(users, seconds=40, warm_up_s=20, ramp_s=5 * _CYCLE_S, probe=path)
    for name, each, bar in (("service, 2 workers", result, 100), ("naive", slow, None)):
        label = f"{name}, {users:,} users"
        add_load(report, label, each, errors_at_most=_bar(name))
        if each.probe is not None:
            report.add(f"{label}, {path} p99", each.probe.p99, "ms")
            report.add(f"{label}, {path} max", each.probe.max, "ms", at_most=bar)
    # Many of the naive service's queries time out with so many users, so its better load counts.
    best = max(slow.throughput, naive_100.throughput)
    report.add(
        f"service, {users:,} users / naive, at its better of 100 and {users:,}, throughput",
        result.throughput / best,
        at_least=20,
    )


def _measure_first_token(report: Report, samples: Samples, questions: Path) -> None:
    """Measure how much the service adds to the provider's time until the first token."""
    with ExitStack() as stack:
        upstream = stack.enter_context(provider(_STREAMED))
        direct = direct_side(upstream, questions)
        service = streaming(stack.enter_context(openai_side(samples.index, upstream, questions)))
        service.load(1, _LIMIT_S, requests=3)
        alone = [side.load(1, _LIMIT_S, requests=30) for side in (direct, service)]
        together = [side.load(100, seconds=15, warm_up_s=3, ramp_s=1) for side in (direct, service)]
    for users, (own, whole), bar in (("1 user", alone, 15), ("100 users", together, 60)):
        report.add(f"provider itself, {users}, first token p50", _first(own), "ms")
        report.add(f"service, {users}, first token p50", _first(whole), "ms")
        add_load(report, f"service, {users}, streamed", whole, errors_at_most=0)
        added = _first(whole) - _first(own)
        report.add(f"service, {users}, added to the first token", added, "ms", at_most=bar)


def _measure_keyless(report: Report, questions: Path) -> None:
    """Compare the throughput without a provider with that of FastAPI itself."""
    users, chunks = 32, 20_000
    service_results, null_results = [], []
    with keyless_side(service_index(chunks), questions) as service, null_side(questions) as null:
        for side in (service, null):
            side.load(users, _LIMIT_S, requests=300)
        # Fewer in total than there are single questions, so that no pairs are asked.
        for _ in range(5):
            service_results.append(service.load(users, _LIMIT_S, requests=1_100))
            # The same questions again, as it has no cache.
            null.asked = 0
            null_results.append(null.load(users, _LIMIT_S, requests=6_000))
    ours, bare = middle(service_results), middle(null_results)
    add_load(report, f"service, no key, {chunks:,} chunks, {users} users", ours, errors_at_most=0)
    add_load(report, f"null app, {users} users", bare)
    report.add("service / null app, throughput", ours.throughput / bare.throughput, at_least=0.25)


def _steady(side: Side, users: int, cycles: int, **options: str) -> Result:
    """Load a side, counting from the time when all users have started and warmed up."""
    return side.load(users, seconds=cycles * _CYCLE_S, warm_up_s=5 * _CYCLE_S, ramp_s=5 * _CYCLE_S, **options)


def _bar(name: str) -> float | None:
    """Return the bar for errors, which only the service has."""
    return 0 if name.startswith("service") else None


def _p99(result: Result) -> float:
    return result.latency.p99 if result.latency else math.inf


def _first(result: Result) -> float:
    return result.first.p50 if result.first else math.inf
