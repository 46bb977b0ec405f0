"""Builds of an index without a key, compared with the naive build: a full one, of changes, and of no change.

The service is timed as an operator sees it, from the start of `scripts/reindex.py` to its end, including
imports and checks, after the previous run's writes have been flushed to the disk. The naive build is timed
without its imports, and over fewer documents, since its time per chunk does not fall with their number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.corpus import documents
from benchmarks.datasets import ROOT
from benchmarks.processes import Memory, memory_of
from benchmarks.report import Report
from benchmarks.service import keyless_environment

_DOCUMENTS = 7_500
_TENTH = _DOCUMENTS // 10
_NAIVE_DOCUMENTS = 200
# With chunks of this many tokens, the naive build makes about as many chunks of a text as the service.
_CHUNK_TOKENS = 170
_CHANGED = _DOCUMENTS // 100
_REPETITIONS = 3
_LIMIT_S = 1800
_SAMPLE_S = 0.2


@dataclass(frozen=True)
class Build:
    """A run of `scripts/reindex.py`.

    Attributes:
        peak: the highest memory of all its processes together.
        told: the JSON object that it printed.
    """

    seconds: float
    peak: Memory
    told: dict[str, Any]

    @property
    def ms_a_chunk(self) -> float:
        return self.seconds * 1000 / int(self.told["chunks"])


def measure() -> Report:
    """Measure builds of the service and of the naive index."""
    report = Report("offline")
    with TemporaryDirectory(prefix="rag-benchmark-") as folder:
        texts = [text for _, text in islice(documents(), _DOCUMENTS)]
        naive = _naive(_written(Path(folder, "naive"), texts[:_NAIVE_DOCUMENTS]))
        tenth = _reindex(_written(Path(folder, "tenth"), texts[:_TENTH]), Path(folder, "tenth-index"))
        source, index = _written(Path(folder, "all"), texts), Path(folder, "index")
        full = _reindex(source, index)
        changed = []
        for number in range(_REPETITIONS):
            _change(source, range(number, _DOCUMENTS, _DOCUMENTS // _CHANGED))
            changed.append(_reindex(source, index))
        unchanged = [_reindex(source, index) for _ in range(_REPETITIONS)]
        again = _naive(Path(folder, "naive"))
    _report_full(report, full, tenth, [min(pair) for pair in zip(naive, again, strict=True)])
    _report_changes(report, full, changed, unchanged)
    return report.save()


def _report_full(report: Report, full: Build, tenth: Build, naive: list[float]) -> None:
    default, alike = naive
    report.add(f"full build, {full.told['chunks']:,} chunks", full.seconds, "s")
    report.add("full build, a chunk", full.ms_a_chunk, "ms")
    report.add("naive build, a chunk", default, "ms")
    report.add("naive / service, a chunk", default / full.ms_a_chunk, at_least=10)
    report.add("naive build, a chunk, as many chunks of the same text", alike, "ms")
    report.add("naive / service, as many chunks of the same text", alike / full.ms_a_chunk)
    smaller = f"build of {tenth.told['chunks']:,} chunks"
    report.add("full build, peak memory of all processes", full.peak.total, "MiB", at_most=1500)
    report.add(f"{smaller}, peak memory", tenth.peak.total, "MiB")
    report.add("peak memory, full / tenth", full.peak.total / tenth.peak.total, at_most=1.3)
    report.add("full build, peak without mapped files", full.peak.anonymous, "MiB")
    report.add(f"{smaller}, peak without mapped files", tenth.peak.anonymous, "MiB")
    report.add("peak without mapped files, full / tenth", full.peak.anonymous / tenth.peak.anonymous)


def _report_changes(
    report: Report, full: Build, changed: Sequence[Build], unchanged: Sequence[Build]
) -> None:
    assert all(build.told["published"] for build in changed)
    assert not any(build.told["published"] for build in unchanged)
    seconds = median(build.seconds for build in changed)
    report.add(f"{_CHANGED} of {_DOCUMENTS:,} documents changed", seconds, "s")
    report.add("texts embedded in it", median(build.told["embedded"] for build in changed))
    report.add("a hundredth changed / full build", seconds / full.seconds, at_most=0.05)
    seconds = median(build.seconds for build in unchanged)
    report.add("nothing changed", seconds, "s")
    report.add("nothing changed / full build", seconds / full.seconds, at_most=0.02)


def _written(folder: Path, texts: Sequence[str]) -> Path:
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:06d}.md").write_text(text, encoding="utf-8")
    return folder


def _change(folder: Path, numbers: Sequence[int]) -> None:
    """Add a sentence to each document, which changes its last chunk."""
    for number in numbers:
        with (folder / f"{number:06d}.md").open("a", encoding="utf-8") as file:
            file.write(f" Item {number} was amended on day {time.time_ns()}.")


def _reindex(source: Path, index: Path) -> Build:
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "reindex.py"), "--json"],
        env=keyless_environment(DOCUMENTS_DIR=str(source), INDEX_DIR=str(index)),
        cwd=source.parent,  # where there is no .env
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    peak = _Peak(process.pid)
    told, _ = process.communicate(timeout=_LIMIT_S)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise RuntimeError(f"reindex failed with {process.returncode}")
    return Build(seconds, peak.most(), json.loads(told))


class _Peak:
    """A thread that samples the memory of a process and its descendants until `most` is called."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most = Memory(0, 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def most(self) -> Memory:
        self._ended.set()
        self._thread.join()
        return self._most

    def _look(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            now = memory_of(self._pid)
            self._most = Memory(max(self._most.total, now.total), max(self._most.anonymous, now.anonymous))


def _naive(folder: Path) -> list[float]:
    """Measure milliseconds per chunk, with LlamaIndex's default chunk size and with that of the service."""
    return [_naive_ms_a_chunk(folder, *sizes) for sizes in ([], [f"--chunk-tokens={_CHUNK_TOKENS}"])]


def _naive_ms_a_chunk(folder: Path, *arguments: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.naive_build", str(folder), *arguments],
        env=keyless_environment(),
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=_LIMIT_S,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    return float(told["seconds"]) * 1000 / int(told["chunks"])
