"""The effect of index swaps on clients: 50 swaps under a constant load of questions over HTTP.

One server process runs with default settings and no key, over 20,000 chunks. For a swap, two documents are
changed, scripts/reindex.py runs, and a moment later /health names its index. A swap begins every 4 s, so that
50 swaps take 20,000 questions. Both documents contain the same version number, and each question asks for it
besides a real one, so that each answer cites both. Two numbers in one answer, or a number that its index does
not contain, mean that the answer mixes two snapshots.

`During swaps` counts all questions that were due between the start of the first reindex and 4 s after the
last swap, including the time until the server polls (INDEX_POLL_S) and the time while it closes the previous
index. The reindex processes take processor time from the server, as they do if both run on one machine.
`Without swaps` counts the questions of 55 s before and after. During the warm-up, words are new to the server
and take longer, which would flatter the comparison: its questions and errors are counted, but not its
latencies.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from benchmarks.corpus import documents
from benchmarks.datasets import ROOT
from benchmarks.processes import Replica
from benchmarks.questions import all_questions
from benchmarks.report import Report
from benchmarks.service import keyless_environment, served
from benchmarks.steady import Asked, Asking, Steady, asking

SWAPS = 50
# The shortest time between the beginnings of two swaps.
INTERVAL_S = 4.0
# The time without swaps, before and again after them.
REFERENCE_S = 55.0
WARM_UP_S = 30.0
# The time after the last swap in which the server verifies its index and closes the previous one.
_AFTERMATH_S = 4.0

_DOCUMENTS = 1_490
_RATE = 100.0
_LINES = 64
_QUESTIONS = 40_000
_SEED = 20261120
_REINDEX_LIMIT_S = 300.0
_SWAP_LIMIT_S = 60.0
_ANSWER_LIMIT_S = 60.0
_LIMIT_S = 3_600.0
_POLL_S = 0.1

# Words of no language, so that both documents are found whatever else a question asks about.
_SUBJECT = "Quorvane Thessilport Umbrikal Vandrossel Ekelmire Jorvinzade"
_STATE = {f"state/{name}.md": f"The {name} {_SUBJECT} version is number %d." for name in ("one", "two")}
_VERSION = r"version is number (\d+)\."


@dataclass(frozen=True)
class Swap:
    """The times in seconds at which a reindex began, ended, and had its index served."""

    began: float
    reindexed: float
    served: float


@dataclass
class Site:
    """Documents, their index, and the version in each index by its id."""

    documents: Path
    index: Path
    settings: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def made(cls, settings: dict[str, str]) -> Iterator[Site]:
        """Write the documents to a temporary folder and index them."""
        with TemporaryDirectory(prefix="rag-benchmark-") as folder:
            site = cls(Path(folder, "documents"), Path(folder, "index"), settings)
            for name, text in islice(documents(), _DOCUMENTS):
                _write(site.documents / name, text)
            site.publish(0)
            yield site

    def publish(self, version: int) -> str:
        """Change the documents, run a reindex, and return the index's id.

        Raises:
            RuntimeError: the reindex failed, or took up other documents.
        """
        for name, text in _STATE.items():
            _write(self.documents / name, text % version)
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "reindex.py"), "--json"],
            env=keyless_environment(
                DOCUMENTS_DIR=str(self.documents), INDEX_DIR=str(self.index), **self.settings
            ),
            cwd=self.documents.parent,  # where there is no .env
            capture_output=True,
            text=True,
            check=False,
            timeout=_REINDEX_LIMIT_S,
        )
        if done.returncode != 0:
            raise RuntimeError(f"reindex failed: {done.stderr[-2000:]}")
        found = json.loads(done.stdout)
        if not found["published"] or (version and sorted(found["changed"]) != sorted(_STATE)):
            raise RuntimeError(f"reindex did not take up the two changed documents: {done.stdout[-2000:]}")
        index: str = found["index"]
        self.versions[index] = str(version)
        return index


def measure() -> Report:
    """Measure swaps of an index on disk."""
    return measure_swaps(Report("swaps"), {}, p99_at_most=3)


def measure_swaps(
    report: Report, settings: dict[str, str], *, p99_at_most: float | None, number: int = SWAPS
) -> Report:
    """Measure swaps with the given settings.

    Args:
        settings: additional settings of the server and of each reindex.
        p99_at_most: the bar of the p99 during swaps, as a multiple of the p99 without.
    """
    with ExitStack() as stack:
        site = stack.enter_context(Site.made(settings))
        folder = stack.enter_context(TemporaryDirectory(prefix="rag-benchmark-"))
        server = stack.enter_context(served(site.index, DOCUMENTS_DIR=str(site.documents), **settings))
        http = stack.enter_context(httpx.Client(base_url=server.url, timeout=30, trust_env=False))
        chunks = http.get("/health").raise_for_status().json()["index"]["chunks"]
        questions = _write_questions(Path(folder, "questions.jsonl"))
        load = stack.enter_context(asking(_steady(server, questions)))
        _let_ask(load, WARM_UP_S)
        warm_up_ended = time.monotonic()
        _let_ask(load, REFERENCE_S)
        swaps = [_swap(site, version, http, load) for version in range(1, number + 1)]
        _let_ask(load, _AFTERMATH_S + REFERENCE_S)
        asked = load.finish()
    report.add("chunks", chunks)
    _add_answers(report, asked, site.versions)
    report.add("swaps", len(swaps), at_least=SWAPS)
    _add_latencies(report, [each for each in asked if each.due >= warm_up_ended], swaps, p99_at_most)
    report.add(
        "reindex of two changed documents, the process, median",
        median(swap.reindexed - swap.began for swap in swaps),
        "s",
    )
    report.add(
        "from there until the server serves it, median",
        median(swap.served - swap.reindexed for swap in swaps),
        "s",
    )
    return report.save()


def _steady(server: Replica, questions: Path) -> Steady:
    return Steady(
        port=server.port,
        questions=str(questions),
        rate=_RATE,
        limit_s=_LIMIT_S,
        lines=_LINES,
        timeout_s=_ANSWER_LIMIT_S,
        documents=tuple(_STATE),
        version=_VERSION,
    )


def _let_ask(load: Asking, seconds: float) -> None:
    time.sleep(seconds)
    load.check()


def _swap(site: Site, version: int, http: httpx.Client, load: Asking) -> Swap:
    """Publish a version, and wait until the server serves it and the next swap is due.

    Raises:
        RuntimeError: the reindex failed, or the server does not serve its index.
    """
    load.check()
    began = time.monotonic()
    index = site.publish(version)
    reindexed = time.monotonic()
    while http.get("/health").raise_for_status().json()["index"]["id"] != index:
        if time.monotonic() > reindexed + _SWAP_LIMIT_S:
            raise RuntimeError(f"the server does not serve {index}")
        time.sleep(_POLL_S)
    swap = Swap(began, reindexed, time.monotonic())
    time.sleep(max(0.0, began + INTERVAL_S - time.monotonic()))
    return swap


def _add_answers(report: Report, asked: list[Asked], versions: dict[str, str]) -> None:
    errors = Counter(each.error for each in asked if each.error is not None)
    kinds = "".join(f"; {count} x {kind}" for kind, count in errors.items())
    mixed = [each for each in asked if each.index and set(each.versions) - {versions.get(each.index)}]
    report.add("queries", len(asked), at_least=20_000)
    report.add("errors", sum(errors.values()), f"of {len(asked):,}{kinds}", at_most=0)
    report.add("answers from two snapshots", len(mixed), at_most=0)
    report.add("indexes that answered", len({each.index for each in asked if each.index}))


def _add_latencies(report: Report, asked: list[Asked], swaps: list[Swap], p99_at_most: float | None) -> None:
    first, last = swaps[0].began, swaps[-1].served + _AFTERMATH_S
    during = [each for each in asked if first <= each.due <= last]
    without = [each for each in asked if not first <= each.due <= last]
    for name, group in (("without swaps", without), ("during swaps", during)):
        report.add(f"{name}, queries at {_RATE:g} a second", len(group))
        report.add(f"{name}, p50", _quantile(group, 0.5), "ms")
        report.add(f"{name}, p99", _quantile(group, 0.99), "ms")
        report.add(f"{name}, slowest", _quantile(group, 1), "ms")
    ratio = _quantile(during, 0.99) / _quantile(without, 0.99)
    report.add("p99 during / without swaps", ratio, at_most=p99_at_most)


def _quantile(asked: list[Asked], share: float) -> float:
    """Return a quantile of the latencies in milliseconds, including those of errors."""
    return float(np.quantile([each.latency_ms for each in asked], share, method="higher"))


def _write_questions(path: Path) -> Path:
    """Write questions in random order, so that short and long ones are spread evenly over the run."""
    questions = list(islice(all_questions(), _QUESTIONS))
    random.Random(_SEED).shuffle(questions)
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(f"{json.dumps(f'{_SUBJECT} version? {question}')}\n" for question in questions)
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
