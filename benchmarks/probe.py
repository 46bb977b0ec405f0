"""One measurement in a process of its own: `python -m benchmarks.probe service|naive`.

`INDEX_DIR` names the index, standard input holds the questions, and one JSON object is written. The imports
and the embedding model are loaded before the measurement.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from app.bootstrap.models import make_provider
from app.bootstrap.serving import make_index_manager
from app.config.settings import Settings, load_settings
from app.domain.query import Query
from app.embeddings.local import LocalEmbedding
from benchmarks.naive import NaiveIndex
from benchmarks.service import keyless_environment


@dataclass(frozen=True)
class Memory:
    """Resident memory in MiB; `files` is the part mapped from files, which the kernel can drop."""

    total: float
    files: float


@dataclass(frozen=True)
class Probe:
    """Times in milliseconds and memory; `retrieval_ms` is the median over all questions but the first."""

    first_answer_ms: float
    retrieval_ms: float
    before: Memory
    after: Memory

    @property
    def net_mib(self) -> float:
        return self.after.total - self.before.total


def run_probe(side: str, index: Path, questions: list[str]) -> Probe:
    """Measure in a new process; the index must answer the first question."""
    with TemporaryDirectory(prefix="rag-benchmark-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.probe", side],
            input=json.dumps(questions),
            env=keyless_environment(INDEX_DIR=str(index)),
            cwd=folder,  # where there is no .env
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"the probe failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Probe(**{**found, "before": Memory(**found["before"]), "after": Memory(**found["after"])})


async def _probe_service(settings: Settings, questions: list[str]) -> Probe:
    manager = make_index_manager(settings, make_provider(settings))
    before = _memory()
    started = time.perf_counter()
    await manager.start()
    engine = manager.current.engine
    answer = await engine.answer(Query(questions[0]))
    first = _since(started)
    assert answer.retrieved.passages, "the first question must be answered, not declined"
    times = []
    for question in questions[1:]:
        started = time.perf_counter()
        await engine.search(Query(question))
        times.append(_since(started))
    return Probe(first, median(times), before, _memory())


def _probe_naive(settings: Settings, questions: list[str]) -> Probe:
    embedding = LocalEmbedding()
    before = _memory()
    started = time.perf_counter()
    naive = NaiveIndex.load(settings.index.dir, embedding)
    naive.query_engine(settings.retrieval.top_k).query(questions[0])
    first = _since(started)
    retriever = naive.retriever(settings.retrieval.top_k)
    times = []
    for question in questions[1:]:
        started = time.perf_counter()
        retriever.retrieve(question)
        times.append(_since(started))
    return Probe(first, median(times), before, _memory())


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def _memory() -> Memory:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kib = {name: int(fields[name].split()[0]) for name in ("VmRSS", "RssFile")}
    return Memory(kib["VmRSS"] / 1024, kib["RssFile"] / 1024)


def main() -> None:
    """Measure the side that the command line names."""
    settings, questions = load_settings(), json.load(sys.stdin)
    if sys.argv[1] == "service":
        probe = asyncio.run(_probe_service(settings, questions))
    else:
        probe = _probe_naive(settings, questions)
    print(json.dumps(asdict(probe)))


if __name__ == "__main__":
    main()
