"""The time of one retrieval, and the memory of the index, with 20,000 chunks."""

from __future__ import annotations

from statistics import median

from benchmarks.corpus import naive_index, questions, service_index
from benchmarks.probe import Probe, run_probe
from benchmarks.report import Report

_CHUNKS = 20_000
_REPETITIONS = 5
_QUESTIONS = 200
# Fewer questions, as each takes 0.2 s, after a minute of loading.
_QUESTIONS_NAIVE = 20


def measure() -> Report:
    """Measure the service and the naive index."""
    report = Report("retrieval")
    index = service_index(_CHUNKS)
    service = [run_probe("service", index, questions(_QUESTIONS + 1)) for _ in range(_REPETITIONS)]
    naive = run_probe("naive", naive_index(_CHUNKS), questions(_QUESTIONS_NAIVE + 1))
    fast = median(each.retrieval_ms for each in service)
    report.add("service, one retrieval", fast, "ms")
    report.add("naive, one retrieval", naive.retrieval_ms, "ms")
    report.add("naive / service, time", naive.retrieval_ms / fast, at_least=50)
    _report_memory(report, sorted(service, key=lambda each: each.net_mib)[_REPETITIONS // 2], naive)
    return report.save()


def _report_memory(report: Report, service: Probe, naive: Probe) -> None:
    for name, probe in (("service", service), ("naive", naive)):
        report.add(f"{name}, resident after imports and models", probe.before.total, "MiB")
        report.add(f"{name}, resident after the questions", probe.after.total, "MiB")
        report.add(f"{name}, of it mapped from files", probe.after.files, "MiB")
        report.add(f"{name}, the index's own part", probe.net_mib, "MiB")
    report.add("service / naive, the index's own part", service.net_mib / naive.net_mib, at_most=0.25)
    report.add("service / naive, whole processes", service.after.total / naive.after.total)
